"""Configuration from a control plane: a real gRPC server of the test's own, speaking aggregated discovery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import trustme
from google.protobuf.any_pb2 import Any as AnyMessage

from headgate.errors import SettingsError
from headgate.pb import discovery_pb2 as discovery
from headgate.pb import ratelimit_config_pb2 as pb
from ratelimit.discovery import ControlPlane
from ratelimit.discovery_wire import TYPE_URL
from ratelimit.listing import listing
from ratelimit.matching import Configuration
from ratelimit.xds_settings import XdsSettings, XdsTls

PATIENCE_SECONDS = 20.0
LIMIT = pb.RateLimitPolicy(unit=pb.MINUTE, requests_per_unit=5)
SHOP = pb.RateLimitConfig(
    name="shop", domain="shop", descriptors=[pb.RateLimitDescriptor(key="user", value="007", rate_limit=LIMIT)]
)


@dataclass
class Plane:
    """The other end: what it was asked, and a way to answer."""

    requests: asyncio.Queue[discovery.DiscoveryRequest] = field(default_factory=asyncio.Queue)
    metadata: dict[str, Any] = field(default_factory=dict)
    streams: int = 0
    _calls: list[Any] = field(default_factory=list)
    _open: list[asyncio.Event] = field(default_factory=list)

    async def serve(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        self.streams += 1
        self.metadata = dict(context.invocation_metadata())
        ended = asyncio.Event()
        self._calls.append(context)
        self._open.append(ended)
        reading = asyncio.create_task(self._read(messages))
        await ended.wait()
        reading.cancel()

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        async for message in messages:
            await self.requests.put(discovery.DiscoveryRequest.FromString(message))

    async def asked(self) -> discovery.DiscoveryRequest:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.requests.get()

    async def answers(self, version: str, *configs: pb.RateLimitConfig, raw: bytes = b"") -> discovery.DiscoveryRequest:
        """Send one response; returns what is said to it."""
        resources = [AnyMessage(type_url=TYPE_URL, value=config.SerializeToString()) for config in configs]
        if raw:
            resources.append(AnyMessage(type_url=TYPE_URL, value=raw))
        response = discovery.DiscoveryResponse(
            version_info=version, nonce=f"n{version}", type_url=TYPE_URL, resources=resources
        )
        await self._calls[-1].write(response.SerializeToString())
        return await self.asked()

    def hang_up(self) -> None:
        self._open[-1].set()


@asynccontextmanager
async def served(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[tuple[Plane, str]]:
    plane = Plane()
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(plane.serve)
    name = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    generic = grpc.method_handlers_generic_handler(name, {"StreamAggregatedResources": handler})
    server.add_generic_rpc_handlers((generic,))
    port = (
        server.add_secure_port("localhost:0", credentials) if credentials else server.add_insecure_port("localhost:0")
    )
    await server.start()
    try:
        yield plane, f"localhost:{port}"
    finally:
        await server.stop(None)


@dataclass
class Held:
    """What is in force, and how loads went."""

    configuration: Configuration = field(default_factory=Configuration)
    loads: list[bool] = field(default_factory=list)

    def adopt(self, configuration: Configuration) -> None:
        self.configuration = configuration

    @property
    def limits(self) -> list[str]:
        return [line.partition(",")[0] for line in listing(self.configuration)]


@asynccontextmanager
async def asking(settings: XdsSettings) -> AsyncIterator[Held]:
    held = Held()
    part = ControlPlane(settings, held.adopt, held.loads.append)
    await part.start()
    try:
        yield held
    finally:
        await part.stop()


def settings(address: str, **rest: Any) -> XdsSettings:
    quick: dict[str, Any] = {"retry_seconds": 0.01, "longest_retry_seconds": 0.05}
    return XdsSettings(address=address, node_id="node-1", **(quick | rest))


async def test_the_whole_configuration_comes_and_is_acknowledged() -> None:
    headers = {"x-token": "t"}
    async with (
        served() as (plane, address),
        asking(settings(address, headers=headers, node_metadata={"a": "b"})) as held,
    ):
        first = await plane.asked()
        assert (first.node.id, first.type_url, first.version_info) == ("node-1", TYPE_URL, "")
        assert (dict(first.node.metadata), plane.metadata["x-token"]) == ({"a": "b"}, "t")

        taken = await plane.answers("1", SHOP)

        assert (taken.version_info, taken.response_nonce, taken.HasField("error_detail")) == ("1", "n1", False)
        assert held.limits == ["shop.user_007: unit=MINUTE requests_per_unit=5"]

        other = pb.RateLimitConfig(name="other", domain="other", descriptors=SHOP.descriptors)
        await plane.answers("2", other)

        assert held.limits == ["other.user_007: unit=MINUTE requests_per_unit=5"]
        assert held.loads == [True, True]


async def test_a_wrong_configuration_is_refused_with_its_problems_and_the_last_good_one_stays() -> None:
    async with served() as (plane, address), asking(settings(address)) as held:
        await plane.asked()
        await plane.answers("1", SHOP)
        wrong = pb.RateLimitConfig(name="bad", domain="d", descriptors=[pb.RateLimitDescriptor(key="")])

        refused = await plane.answers("2", SHOP, wrong)

        assert (refused.version_info, refused.response_nonce) == ("1", "n2")
        assert "descriptor has empty key" in refused.error_detail.message
        assert held.limits == ["shop.user_007: unit=MINUTE requests_per_unit=5"]
        assert "RateLimitConfig" in (await plane.answers("3", raw=b"\xff\xff")).error_detail.message
        assert held.loads == [True, False, False]


async def test_all_that_a_descriptor_can_say_arrives() -> None:
    below = pb.RateLimitDescriptor(
        key="path",
        rate_limit=pb.RateLimitPolicy(unit=pb.WEEK, requests_per_unit=2, name="slow", replaces=[{"name": "x"}]),
    )
    top = pb.RateLimitDescriptor(key="user", value="yes", shadow_mode=True, quota_mode=True, descriptors=[below])
    top.rate_limit.unlimited = True
    config = pb.RateLimitConfig(name="n", domain="d", descriptors=[top])
    async with served() as (plane, address), asking(settings(address)) as held:
        await plane.asked()
        taken = await plane.answers("1", config)

    assert not taken.error_detail.message
    (user,) = held.configuration.domains["d"].descriptors
    (path,) = user.descriptors
    assert (user.value, user.limit and user.limit.unlimited) == ("yes", True)
    assert path.limit is not None
    assert (path.limit.unit, path.limit.name, path.limit.replaces) == ("week", "slow", {"x"})
    assert user.limit is not None
    assert (user.limit.shadow_mode, user.limit.quota_mode) == (True, True)


async def test_a_lost_stream_is_opened_again_with_the_version_in_force() -> None:
    async with served() as (plane, address), asking(settings(address)) as held:
        await plane.asked()
        await plane.answers("1", SHOP)

        plane.hang_up()

        assert (await plane.asked()).version_info == "1"
        assert plane.streams == 2
        assert held.limits
        await plane.answers("2")
        assert held.limits == []


async def test_a_control_plane_that_comes_late_is_found() -> None:
    async with served() as (_, address):
        pass
    async with asking(settings(address)) as held:
        await asyncio.sleep(0)
        server = grpc.aio.server()
        plane = Plane()
        generic = grpc.method_handlers_generic_handler(
            "envoy.service.discovery.v3.AggregatedDiscoveryService",
            {"StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(plane.serve)},
        )
        server.add_generic_rpc_handlers((generic,))
        server.add_insecure_port(address)
        await server.start()
        await plane.asked()
        await plane.answers("1", SHOP)
        await server.stop(None)

    assert held.loads == [True]


async def test_tls_both_ways_and_the_name_its_certificate_is_for(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("plane.test"), authority.issue_cert("headgate.test")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    client.private_key_pem.write_to_path(tmp_path / "key.pem")
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())], authority.cert_pem.bytes(), True
    )
    tls = XdsTls(
        authority=str(tmp_path / "ca.pem"),
        certificate=str(tmp_path / "cert.pem"),
        key=str(tmp_path / "key.pem"),
        server_name="plane.test",
    )
    async with served(credentials) as (plane, address), asking(settings(address, tls=tls)) as held:
        await plane.asked()
        await plane.answers("1", SHOP)
        assert held.loads == [True]
    with pytest.raises(SettingsError, match="CONFIG_GRPC_XDS"):
        ControlPlane(settings(address, tls=replace(tls, key="missing")), held.adopt, held.loads.append)
