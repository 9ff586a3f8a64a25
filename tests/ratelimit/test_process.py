"""`python -m ratelimit` with the reference's environment names, from outside."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import pytest
import trustme

from headgate.pb import health_pb2
from headgate.pb import ratelimit_pb2 as pb

PATIENCE_SECONDS = 20.0
FILE = """
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: free, rate_limit: {unlimited: true}}
"""


@dataclass
class Service:
    """The running process and its addresses."""

    process: subprocess.Popen[bytes]
    addresses: dict[str, str]

    def get(self, part: str, path: str) -> httpx.Response:
        return httpx.get(f"http://{self.addresses[part]}{path}", timeout=PATIENCE_SECONDS)

    def ask(self, key: str, value: str, domain: str = "shop") -> httpx.Response:
        body = {"domain": domain, "descriptors": [{"entries": [{"key": key, "value": value}]}]}
        return httpx.post(f"http://{self.addresses['http']}/json", json=body, timeout=PATIENCE_SECONDS)

    def health(self, name: str) -> int:
        with grpc.insecure_channel(self.addresses["ratelimit"]) as channel:
            answer = channel.unary_unary("/grpc.health.v1.Health/Check")(
                health_pb2.HealthCheckRequest(service=name).SerializeToString(), timeout=PATIENCE_SECONDS
            )
        return int(health_pb2.HealthCheckResponse.FromString(answer).status)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start the process on free ports with further environment variables."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(**variables: str) -> Service:
        own = {"GRPC_PORT": "0", "PORT": "0", "DEBUG_PORT": "0", "HEADGATE_ADMIN_ADDRESS": "127.0.0.1:0"}
        inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LD_LIBRARY_PATH")}
        log = tmp_path / f"log{len(running)}"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "ratelimit"], env=inherited | own | variables, stderr=stderr
            )
        running.append(process)
        service = Service(process, {})
        service.until(lambda: '"serving"' in log.read_text())
        entries = map(msgspec.json.decode, log.read_text().splitlines())
        service.addresses = next(entry for entry in entries if entry["message"] == "serving")
        return service

    yield begin
    for process in running:
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """The reference's layout: ROOT/SUBDIRECTORY/config."""
    folder = tmp_path / "current" / "ratelimit" / "config"
    folder.mkdir(parents=True)
    (folder / "shop.yaml").write_text(FILE)
    return {"RUNTIME_ROOT": str(tmp_path / "current"), "RUNTIME_SUBDIRECTORY": "ratelimit"}


def test_the_ports_of_the_reference_answer_as_there(start: Callable[..., Service], runtime: dict[str, str]) -> None:
    service = start(**runtime, LIMIT_RESPONSE_HEADERS_ENABLED="1")

    assert [service.ask("user", "u").status_code for _ in range(3)] == [200, 200, 429]
    assert service.ask("free", "f").json()["statuses"][0]["limitRemaining"] == 2**32 - 1
    assert service.ask("user", "u", domain="").status_code == 400
    assert (service.get("http", "/healthcheck").text, service.health("ratelimit"), service.health("")) == ("OK", 1, 1)
    lines = service.get("http1", "/rlconfig").text.splitlines()
    assert "shop.user: unit=YEAR requests_per_unit=2, shadow_mode: false, quota_mode: false" in lines
    assert "ratelimit.service.rate_limit.shop.user.over_limit: 1" in service.get("http1", "/stats").text.splitlines()


def test_prometheus_shows_the_references_names(start: Callable[..., Service], runtime: dict[str, str]) -> None:
    service = start(**runtime)
    for _ in range(3):
        service.ask("user", "u")
    service.ask("x", "y", domain="elsewhere")

    exposition = service.get("admin", "/metrics").text

    for line in (
        'ratelimit_service_rate_limit_total_hits{domain="shop",key1="user"} 3',
        'ratelimit_service_rate_limit_over_limit{domain="shop",key1="user"} 1',
        'ratelimit_service_rate_limit_within_limit{domain="shop",key1="user"} 2',
        'ratelimit_service_rate_limit_domain_not_found{domain="elsewhere"} 1',
        'ratelimit_service_total_requests{grpc_method="ShouldRateLimit"} 4',
        'ratelimit_service_should_rate_limit_error{err_type="redis_error"} 0',
        "ratelimit_service_config_load_success 1",
        "headgate_rate_limit_keys 1",
    ):
        assert re.search(f"^{re.escape(line)}(\\.0)?$", exposition, re.MULTILINE), line
    assert 'ratelimit_service_response_time_seconds_count{grpc_method="ShouldRateLimit"}' in exposition


def test_explain_names_the_line_that_refused(start: Callable[..., Service], runtime: dict[str, str]) -> None:
    service = start(**runtime)
    for _ in range(3):
        service.ask("user", "u")

    explained = service.get("http1", "/explain?domain=shop&descriptor=user=u").json()

    assert explained["result"] == "limited by config.shop.yaml:4"
    assert explained["steps"][0]["rule"] == "any value"
    assert (explained["count"], explained["remaining"]) == (3, 0)
    assert service.get("http1", "/explain?domain=shop").status_code == 400


def test_a_changed_file_holds_at_once_and_a_wrong_one_never(
    start: Callable[..., Service], runtime: dict[str, str]
) -> None:
    file = Path(runtime["RUNTIME_ROOT"]) / "ratelimit" / "config" / "shop.yaml"
    service = start(**runtime)

    file.write_text(FILE.replace("unit: 2", "unit: 0"))
    service.until(lambda: "shop.user: unit=YEAR requests_per_unit=0" in service.get("http1", "/rlconfig").text)
    errors = stat(service, "config_load_error")
    file.write_text(FILE.replace("year", "decade"))
    service.until(lambda: stat(service, "config_load_error") > errors)

    assert service.ask("user", "u").status_code == 429


def stat(service: Service, name: str) -> int:
    found = re.search(f"{name}: ([0-9]+)", service.get("http1", "/stats").text)
    return int(found.group(1)) if found else 0


def test_with_files_expected_and_none_to_read_only_the_policys_limits_are_answered(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    service = start(
        RUNTIME_ROOT=str(tmp_path / "later"), RUNTIME_WATCH_ROOT="false", HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED="true"
    )
    assert service.ask("user", "u").status_code == 400
    assert service.ask("tenant", "acme", domain="headgate").status_code == 200
    assert (service.get("http", "/healthcheck").status_code, service.health("ratelimit")) == (500, 2)

    (tmp_path / "later" / "config").mkdir(parents=True)
    (tmp_path / "later" / "config" / "shop.yaml").write_text(FILE)

    service.until(lambda: service.ask("user", "u").status_code == 200)
    assert service.health("ratelimit") == 1


def test_serving_and_health_begin_before_redis(
    start: Callable[..., Service], runtime: dict[str, str], redis_server: Any
) -> None:
    redis = {"REDIS_URL": f"127.0.0.1:{redis_server.port}", "HEADGATE_RATELIMIT_REDIS_DEADLINE": "2s"}
    service = start(**runtime, **redis, REDIS_HEALTH_CHECK_ACTIVE_CONNECTION="true")
    assert service.health("ratelimit") == 2
    assert service.ask("user", "u").status_code == 400
    assert service.ask("free", "f").status_code == 200

    redis_server.start()

    service.until(lambda: service.health("ratelimit") == 1)
    assert [service.ask("user", "u").status_code for _ in range(3)] == [200, 200, 429]


def test_a_killed_redis_fails_what_needs_it_and_nothing_else_until_it_is_back(
    start: Callable[..., Service], runtime: dict[str, str], redis_server: Any
) -> None:
    redis_server.start()
    service = start(**runtime, REDIS_URL=f"127.0.0.1:{redis_server.port}", HEADGATE_RATELIMIT_REDIS_DEADLINE="2s")
    assert [service.ask("user", "u").status_code for _ in range(3)] == [200, 200, 429]

    redis_server.kill()
    assert [service.ask("user", "u").status_code for _ in range(20)] == [400] * 20
    assert [service.ask("free", "f").status_code for _ in range(3)] == [200] * 3
    assert stat(service, "redis_error") == 20
    assert (service.get("http", "/healthcheck").status_code, service.health("ratelimit")) == (200, 1)

    redis_server.start()
    service.until(lambda: service.ask("probe", "p").status_code == 200 and service.ask("user", "x").status_code == 200)
    assert [service.ask("user", "u").status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"BACKEND_TYPE": "memcache"}, "BACKEND_TYPE: memcached is not supported"),
        ({"CONFIG_TYPE": "HTTP"}, "CONFIG_TYPE: has to be FILE or GRPC_XDS_SOTW"),
        ({"GRPC_SERVER_USE_TLS": "1"}, "GRPC_SERVER_TLS_CERT: is needed"),
        ({"SHADOW_MODE": "yes"}, "SHADOW_MODE: 'yes' is neither true nor false"),
    ],
)
def test_a_setting_that_cannot_be_used_is_said_at_once(variables: dict[str, str], problem: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ratelimit"], env=os.environ | variables, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 64
    assert problem in ended.stderr


def test_a_whole_session_over_grpc(start: Callable[..., Service], runtime: dict[str, str]) -> None:
    service = start(**runtime, RESPONSE_DYNAMIC_METADATA="true")
    request = pb.RateLimitRequest(domain="shop")
    request.descriptors.add().entries.add(key="user", value="u")
    with grpc.insecure_channel(service.addresses["ratelimit"]) as channel:
        call = channel.unary_unary("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
        answer = pb.RateLimitResponse.FromString(call(request.SerializeToString(), timeout=PATIENCE_SECONDS))

    assert answer.overall_code == pb.RateLimitResponse.OK
    assert answer.dynamic_metadata["domain"] == "shop"


@pytest.mark.parametrize("transport", ["lean", "grpcio"])
def test_the_grpc_port_is_behind_tls_and_asks_for_a_client_certificate(
    start: Callable[..., Service], runtime: dict[str, str], tmp_path: Path, transport: str
) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("envoy.test")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    service = start(
        **runtime,
        HEADGATE_TRANSPORT=transport,
        GRPC_SERVER_USE_TLS="true",
        GRPC_SERVER_TLS_CERT=str(tmp_path / "cert.pem"),
        GRPC_SERVER_TLS_KEY=str(tmp_path / "key.pem"),
        GRPC_CLIENT_TLS_CACERT=str(tmp_path / "ca.pem"),
    )
    own = (client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes())

    def ask(*pair: bytes) -> pb.RateLimitResponse:
        request = pb.RateLimitRequest(domain="shop")
        request.descriptors.add().entries.add(key="user", value="u")
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *pair)
        with grpc.secure_channel(service.addresses["ratelimit"], credentials) as channel:
            call = channel.unary_unary("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
            return pb.RateLimitResponse.FromString(call(request.SerializeToString(), timeout=PATIENCE_SECONDS))

    assert ask(*own).statuses[0].limit_remaining == 1
    with pytest.raises(grpc.RpcError):
        ask()


def test_prometheus_is_where_its_own_settings_say(start: Callable[..., Service], runtime: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {
        "HEADGATE_ADMIN_ADDRESS": "127.0.0.1:9090",
        "PROMETHEUS_ADDR": f"127.0.0.1:{port}",
        "PROMETHEUS_PATH": "/stats/prometheus",
    }
    service = start(**runtime, **own)
    service.ask("user", "u")

    assert service.addresses["admin"] == f"127.0.0.1:{port}"
    text = service.get("admin", "/stats/prometheus").text
    assert 'ratelimit_service_rate_limit_total_hits{domain="shop",key1="user"} 1' in text
    assert service.get("admin", "/metrics").status_code == 404


def test_statsd_hears_the_references_names(start: Callable[..., Service], runtime: dict[str, str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE_SECONDS)
        own = {"STATSD_PROTOCOL": "udp", "STATSD_PORT": str(statsd.getsockname()[1]), "STATSD_HOST": "127.0.0.1"}
        service = start(**runtime, **own, STATS_FLUSH_INTERVAL="50ms", EXTRA_TAGS="env:test")
        for _ in range(3):
            service.ask("user", "u")

        heard = ""
        while "over_limit" not in heard:
            heard += statsd.recv(65536).decode()

    assert "ratelimit.service.rate_limit.shop.user.over_limit.__env=test:1|c\n" in heard
    assert sum(map(int, re.findall(r"shop\.user\.total_hits\.__env=test:(\d+)\|c", heard))) == 3


def test_a_control_plane_that_is_not_there_yet_leaves_only_the_policys_limits(
    start: Callable[..., Service],
) -> None:
    service = start(CONFIG_TYPE="GRPC_XDS_SOTW", CONFIG_GRPC_XDS_SERVER_URL="127.0.0.1:1")

    assert service.ask("user", "u").status_code == 400
    assert service.ask("tenant", "acme", domain="headgate").status_code == 200


def test_logs_are_the_references_when_they_are_asked_for(runtime: dict[str, str]) -> None:
    own = {"GRPC_PORT": "0", "PORT": "0", "DEBUG_PORT": "0", "HEADGATE_ADMIN_ADDRESS": "127.0.0.1:0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ratelimit"],
        env=os.environ | own | runtime | {"LOG_FORMAT": "text", "LOG_LEVEL": "info"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    process.terminate()
    process.communicate(timeout=PATIENCE_SECONDS)

    assert re.match(r'time=\S+Z level=info msg="new rate limits are in force" domains="\[', line), line
