"""Reflection as grpcurl uses it: list, describe, then build a request from nothing but the descriptors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from headgate.pb.health_pb2 import HealthCheckRequest
from headgate.reflection import Reflection
from headgate.transport import RpcError, Server, Service
from headgate.transport.grpcio import GrpcioServer
from headgate.transport.lean import LeanServer

PATIENCE_SECONDS = 20.0
V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
HEALTH = "grpc.health.v1.Health"


def check(message: bytes) -> bytes:
    return HealthCheckRequest.FromString(message).service.upper().encode()


@pytest.fixture(params=[LeanServer, GrpcioServer])
async def channel(request: pytest.FixtureRequest) -> AsyncIterator[grpc.aio.Channel]:
    new_server: Callable[..., Server] = request.param
    services = [Service(name=HEALTH, functions={"Check": check})]
    server = new_server("127.0.0.1:0", [*services, *Reflection(services).services()], max_message_bytes=1 << 20)
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        yield channel
    await server.drain(0)


async def ask(channel: grpc.aio.Channel, name: str, **question: str) -> ServerReflectionResponse:
    method = channel.stream_stream(f"/{name}/ServerReflectionInfo")
    request = ServerReflectionRequest(host="h", **question)
    [answer] = [answer async for answer in method(iter([request.SerializeToString()]), timeout=PATIENCE_SECONDS)]
    return ServerReflectionResponse.FromString(answer)


@pytest.mark.parametrize("name", [V1, V1ALPHA])
async def test_services_are_listed_under_both_names_of_reflection(channel: grpc.aio.Channel, name: str) -> None:
    answer = await ask(channel, name, list_services="*")

    assert [service.name for service in answer.list_services_response.service] == [HEALTH, V1, V1ALPHA]
    assert answer.valid_host == "h"
    assert answer.original_request.list_services == "*"


async def test_a_method_can_be_called_from_its_description_alone(channel: grpc.aio.Channel) -> None:
    answer = await ask(channel, V1, file_containing_symbol=f"{HEALTH}.Check")
    pool = DescriptorPool()
    files = [FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]
    for file in reversed(files):
        pool.Add(file)
    method = pool.FindServiceByName(HEALTH).methods_by_name["Check"]
    request = GetMessageClass(method.input_type)(service="abc").SerializeToString()

    assert await channel.unary_unary(f"/{HEALTH}/{method.name}")(request) == b"ABC"


@pytest.mark.parametrize(
    "service",
    [
        "envoy.service.ext_proc.v3.ExternalProcessor",
        "envoy.service.ratelimit.v3.RateLimitService",
        "envoy.service.accesslog.v3.AccessLogService",
        HEALTH,
        V1,
    ],
)
def test_every_service_can_be_described_with_all_that_it_imports(service: str) -> None:
    reflection = Reflection([Service(name=service)])
    pool, wanted = DescriptorPool(), [f"{service}.proto"]
    files: dict[str, FileDescriptorProto] = {}
    while wanted:
        request = ServerReflectionRequest(file_by_filename=wanted.pop()).SerializeToString()
        answer = ServerReflectionResponse.FromString(reflection.answer(request))
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            files[file.name] = file
            wanted += [name for name in file.dependency if name not in files]
    while files:
        for name in [name for name, file in files.items() if not set(file.dependency) & files.keys()]:
            pool.Add(files.pop(name))

    methods = pool.FindServiceByName(service).methods
    assert methods
    assert all(method.input_type.fields or method.output_type.fields for method in methods)


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"file_by_filename": "nothing.proto"}, 5),
        ({"file_containing_symbol": "nothing"}, 5),
        ({"all_extension_numbers_of_type": HEALTH}, 5),
        ({}, 3),
    ],
)
def test_what_is_not_known_is_an_error_in_the_answer(question: dict[str, str], code: int) -> None:
    request = ServerReflectionRequest(**question).SerializeToString()
    answer = ServerReflectionResponse.FromString(Reflection([]).answer(request))

    assert answer.error_response.error_code == code


def test_bytes_that_are_no_request_are_refused() -> None:
    with pytest.raises(RpcError, match="INVALID_ARGUMENT"):
        Reflection([]).answer(b"\xff\xff")
