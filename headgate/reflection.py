"""gRPC server reflection, so that tools like grpcurl can list and call what a server offers.

The services are Envoy's by name, their messages ours: the descriptors describe what Headgate reads and writes, under
the names of `protos/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError, Message

from headgate.pb import accesslog_pb2, ext_proc_pb2, health_pb2, ratelimit_pb2
from headgate.pb import reflection_pb2 as pb
from headgate.transport import Call, Conversation, RpcError, Service, StatusCode

_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


@dataclass(frozen=True, slots=True)
class _Method:
    """One method: what is asked, what is answered, and which of the two comes as a stream."""

    name: str
    request: type[Message]
    response: type[Message]
    asks_in_stream: bool = False
    answers_in_stream: bool = False


_REFLECTION = _Method(
    "ServerReflectionInfo",
    pb.ServerReflectionRequest,
    pb.ServerReflectionResponse,
    asks_in_stream=True,
    answers_in_stream=True,
)
_METHODS = {
    "envoy.service.ext_proc.v3.ExternalProcessor": [
        _Method(
            "Process",
            ext_proc_pb2.ProcessingRequest,
            ext_proc_pb2.ProcessingResponse,
            asks_in_stream=True,
            answers_in_stream=True,
        ),
    ],
    "envoy.service.ratelimit.v3.RateLimitService": [
        _Method("ShouldRateLimit", ratelimit_pb2.RateLimitRequest, ratelimit_pb2.RateLimitResponse),
    ],
    "envoy.service.accesslog.v3.AccessLogService": [
        _Method(
            "StreamAccessLogs",
            accesslog_pb2.StreamAccessLogsMessage,
            accesslog_pb2.StreamAccessLogsResponse,
            asks_in_stream=True,
        ),
    ],
    "grpc.health.v1.Health": [
        _Method("Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse),
        _Method("Watch", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, answers_in_stream=True),
    ],
    **{name: [_REFLECTION] for name in _NAMES},
}


class Reflection:
    """Answers about the services of one server, itself included."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._names = sorted({*(service.name for service in services), *_NAMES})
        self._by_file: dict[str, FileDescriptorProto] = {}
        self._by_symbol: dict[str, FileDescriptorProto] = {}
        for name in self._names:
            for file in _files(name):
                self._add(file)

    def services(self) -> list[Service]:
        """What a transport serves: the same under both names in use."""
        return [Service(name=name, conversations={"ServerReflectionInfo": self._open}) for name in _NAMES]

    def answer(self, message: bytes) -> bytes:
        """Answer one ServerReflectionRequest.

        Raises:
            RpcError: INVALID_ARGUMENT when the bytes are not one.
        """
        try:
            request = pb.ServerReflectionRequest.FromString(message)
        except DecodeError:
            raise RpcError(StatusCode.INVALID_ARGUMENT, "not a ServerReflectionRequest") from None
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        match request.WhichOneof("message_request"):
            case "list_services":
                response.list_services_response.service.extend(pb.ServiceResponse(name=name) for name in self._names)
            case "file_by_filename":
                self._describe(response, self._by_file.get(request.file_by_filename))
            case "file_containing_symbol":
                self._describe(response, self._by_symbol.get(request.file_containing_symbol))
            case "all_extension_numbers_of_type" | "file_containing_extension":
                _fail(response, StatusCode.NOT_FOUND, "there are no extensions here")
            case _:
                _fail(response, StatusCode.INVALID_ARGUMENT, "the request asks for nothing")
        return response.SerializeToString()

    def _open(self, call: Call) -> Conversation:
        return _Asking(self, call)

    def _add(self, file: FileDescriptorProto) -> None:
        self._by_file[file.name] = file
        for symbol in _symbols(file):
            self._by_symbol[symbol] = file

    def _describe(self, response: pb.ServerReflectionResponse, file: FileDescriptorProto | None) -> None:
        if file is None:
            _fail(response, StatusCode.NOT_FOUND, "not known here")
            return
        described = response.file_descriptor_response.file_descriptor_proto
        described.append(file.SerializeToString())
        described.extend(self._by_file[name].SerializeToString() for name in file.dependency)


class _Asking:
    """One client's questions."""

    __slots__ = ("_call", "_reflection")

    def __init__(self, reflection: Reflection, call: Call) -> None:
        self._reflection = reflection
        self._call = call

    def receive(self, message: bytes) -> None:
        self._call.send(self._reflection.answer(message))

    def ended(self) -> None:
        self._call.finish()


def _fail(response: pb.ServerReflectionResponse, code: StatusCode, message: str) -> None:
    response.error_response.error_code = code
    response.error_response.error_message = message


def _files(service: str) -> Iterator[FileDescriptorProto]:
    """A file of the service's own, and every file its messages come from."""
    package, _, name = service.rpartition(".")
    file = FileDescriptorProto(name=f"{service}.proto", package=package, syntax="proto3")
    described = file.service.add(name=name)
    for method in _METHODS.get(service, []):
        request, response = method.request.DESCRIPTOR, method.response.DESCRIPTOR
        described.method.add(
            name=method.name,
            input_type=f".{request.full_name}",
            output_type=f".{response.full_name}",
            client_streaming=method.asks_in_stream,
            server_streaming=method.answers_in_stream,
        )
        for messages in (request.file.name, response.file.name):
            if messages not in file.dependency:
                file.dependency.append(messages)
            yield from _with_imports(messages)
    yield file


def _with_imports(name: str) -> Iterator[FileDescriptorProto]:
    file = FileDescriptorProto()
    descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
    for imported in file.dependency:
        yield from _with_imports(imported)
    yield file


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    names = [item.name for item in file.message_type] + [item.name for item in file.enum_type]
    yield from (f"{file.package}.{name}" for name in names)
    for service in file.service:
        yield f"{file.package}.{service.name}"
        yield from (f"{file.package}.{service.name}.{method.name}" for method in service.method)
