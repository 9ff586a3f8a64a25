"""The dashboards as files: each opens, none hides a panel behind another, all ask the provisioned data source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_the_five_are_there_each_with_a_name_of_its_own() -> None:
    assert {path.stem for path in DASHBOARDS} == {"overview", "tiers", "tenants", "clusters", "sidecar"}
    assert {read(path)["uid"] for path in DASHBOARDS} == {f"headgate-{path.stem}" for path in DASHBOARDS}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_stand_beside_each_other(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    panels = read(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_goes_to_the_provisioned_source(path: Path) -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources.yml").read_text())["datasources"]
    document = read(path)
    targets = [target for panel in document["panels"] for target in panel["targets"]]

    for asking in [*document["panels"], *targets, *document["annotations"]["list"]]:
        assert asking["datasource"] == {"type": source["type"], "uid": source["uid"]}
    assert {target["refId"] for target in targets} <= set("ABCDE")


def test_the_stack_mounts_what_grafana_is_told_to_read() -> None:
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]["grafana"]
    mounts = dict(reversed(volume.split(":")[:2]) for volume in compose["volumes"])
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards.yml").read_text())["providers"]

    assert mounts[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    home = compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana/dashboards" / Path(home).name).is_file()
    for place in ("datasources/prometheus.yml", "dashboards/headgate.yml"):
        assert f"/etc/grafana/provisioning/{place}" in mounts
