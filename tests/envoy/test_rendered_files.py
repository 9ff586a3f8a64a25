"""The files in `envoy/` are what the default policy renders to, and both Envoys accept them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from headgate.policy.load import load_policy
from headgate.settings import DEFAULT_POLICY
from headgate_cli.render.command import render_envoy
from headgate_cli.render.envoy import render_all
from headgate_cli.render.settings import EnvoySettings

FOLDER = Path(__file__).parents[2] / "envoy"
FILTERS = ("filters/ext_proc.yaml", "filters/ratelimit.yaml")

MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
OWN_ENVOY = f"""
static_resources:
  listeners:
    - name: mine
      address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": {MANAGER}
                stat_prefix: mine
                route_config: {{virtual_hosts: [{{name: mine, domains: ["*"]}}]}}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters: []
"""


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return render_all(load_policy(DEFAULT_POLICY.read_bytes(), "default.yaml"), EnvoySettings())


@pytest.mark.parametrize("name", ["envoy.yaml", *FILTERS])
def test_the_file_is_what_the_default_policy_renders_to(rendered: dict[str, str], name: str) -> None:
    assert (FOLDER / name).read_text() == rendered[name], "run `make envoy`"


def test_nothing_else_is_rendered(rendered: dict[str, str]) -> None:
    assert set(rendered) == {"envoy.yaml", *FILTERS}


def test_envoy_accepts_the_whole(binary: Path, validate: Callable[[Path, Path], str]) -> None:
    assert validate(binary, FOLDER / "envoy.yaml") == ""


@pytest.mark.parametrize("names", [FILTERS[:1], FILTERS])
def test_envoy_accepts_the_filters_in_a_configuration_of_somebody_else(
    binary: Path, validate: Callable[[Path, Path], str], tmp_path: Path, names: tuple[str, ...]
) -> None:
    configuration = tmp_path / "own.yaml"
    configuration.write_text(yaml.safe_dump(_with_filters(names)))

    assert validate(binary, configuration) == ""


def _with_filters(names: tuple[str, ...]) -> dict[str, Any]:
    """Somebody's Envoy with each part put where the file's keys say."""
    document: dict[str, Any] = yaml.safe_load(OWN_ENVOY)
    resources = document["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    for name in names:
        parts = yaml.safe_load((FOLDER / name).read_text())
        options = parts.pop("http_connection_manager")
        manager["http_filters"][-1:-1] = options.pop("http_filters")
        manager.update(options)
        manager["route_config"]["virtual_hosts"][0].update(parts.pop("virtual_host", {}))
        resources["clusters"] += parts.pop("clusters")
        document.update(parts)
    return document


@pytest.fixture(scope="module")
def command() -> Callable[..., Any]:
    """`headgate render envoy` with these arguments."""
    app = typer.Typer()
    app.command()(render_envoy)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, arguments)

    return run


def test_the_command_writes_the_folder(command: Callable[..., Any], rendered: dict[str, str], tmp_path: Path) -> None:
    done = command("--output", str(tmp_path / "new"))

    assert done.exit_code == 0
    assert {name: (tmp_path / "new" / name).read_text() for name in rendered} == rendered


def test_the_command_takes_every_address(command: Callable[..., Any], tmp_path: Path) -> None:
    addresses = {
        "--listen": "0.0.0.0:1001",
        "--admin": "0.0.0.0:1002",
        "--extproc": "unix:/run/headgate.sock",
        "--ratelimit": "limits:1004",
        "--accesslog": "logs:1005",
    }

    done = command("--output", str(tmp_path), *(part for option in addresses.items() for part in option))

    assert done.exit_code == 0
    written = (tmp_path / "envoy.yaml").read_text()
    for expected in ("1001", "1002", "/run/headgate.sock", "limits", "1004", "logs", "1005"):
        assert expected in written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--listen", "10000"), "'10000': an address is written host:port or unix:/path"),
        (("--policy", "no-such-policy.yaml"), "no-such-policy.yaml"),
    ],
)
def test_the_command_says_what_it_cannot_use(
    command: Callable[..., Any], tmp_path: Path, arguments: tuple[str, str], message: str
) -> None:
    done = command("--output", str(tmp_path / "new"), *arguments)

    assert done.exit_code == 64
    assert message in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_bad_policy_lists_all_its_problems(command: Callable[..., Any], tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        DEFAULT_POLICY.read_text().replace("tier: premium", "tier: premum").replace("max_wait: 2s", "max_wait: 2")
    )

    done = command("--output", str(tmp_path / "new"), "--policy", str(policy))

    assert done.exit_code == 64
    assert f"{policy}:" in done.stderr
    assert "premum" in done.stderr
    assert "max_wait" in done.stderr
