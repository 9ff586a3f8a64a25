"""The demo's gRPC client: KServe's messages over grpcio, because NVIDIA's client hides the headers of an answer."""

from __future__ import annotations

import queue
import struct
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from headgate_cli.demo.client import Answer

_TIMEOUT_SECONDS = 60.0
_HTTP_STATUS: Mapping[grpc.StatusCode, int] = MappingProxyType(
    {
        grpc.StatusCode.OK: 200,
        grpc.StatusCode.INVALID_ARGUMENT: 400,
        grpc.StatusCode.UNAUTHENTICATED: 401,
        grpc.StatusCode.NOT_FOUND: 404,
        grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
        grpc.StatusCode.UNAVAILABLE: 503,
    }
)


class KserveClient:
    """Calls `inference.GRPCInferenceService` at one `host:port`; an answer's status is HTTP's for gRPC's."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> KserveClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self._channel.close()

    def infer(self, key: str, model: str, text: str) -> Answer:
        """One ModelInfer of a model with the tensor `text`; the body is its first output."""
        request = service_pb2.ModelInferRequest(model_name=model)
        _add(request, "text", "BYTES", _bytes(text))
        call = self._stub.ModelInfer.future(request, metadata=_metadata(key), timeout=_TIMEOUT_SECONDS)
        answer = Answer()
        if call.exception() is None:
            answer.body = call.result().raw_output_contents[0][4:]
        return _finished(answer, call)

    def stream(self, key: str, model: str, prompt: str, *, max_tokens: int) -> Answer:
        """One ModelStreamInfer whose client closes its side only when it has had its tokens."""
        request = service_pb2.ModelInferRequest(model_name=model)
        _add(request, "text_input", "BYTES", _bytes(prompt))
        _add(request, "max_tokens", "INT32", struct.pack("<i", max_tokens))
        _add(request, "stream", "BOOL", b"\1")
        sending: queue.SimpleQueue[service_pb2.ModelInferRequest | None] = queue.SimpleQueue()
        sending.put(request)
        answer, sent_at = Answer(), time.monotonic()
        call = self._stub.ModelStreamInfer(iter(sending.get, None), metadata=_metadata(key), timeout=_TIMEOUT_SECONDS)
        try:
            for _ in _tokens(call, max_tokens):
                answer.event_seconds.append(time.monotonic() - sent_at)
        finally:
            sending.put(None)
        answer.ttft_seconds = answer.event_seconds[0] if answer.event_seconds else None
        return _finished(answer, call)


def _tokens(call: grpc.Call, count: int) -> Iterator[bytes]:
    try:
        for _ in range(count):
            yield next(call).infer_response.raw_output_contents[0]
    except (grpc.RpcError, StopIteration):
        pass  # the call's status says it


def _finished(answer: Answer, call: grpc.Call) -> Answer:
    answer.headers = {**dict(call.initial_metadata()), **dict(call.trailing_metadata())}
    answer.status = _HTTP_STATUS.get(call.code(), 500)
    return answer


def _add(request: service_pb2.ModelInferRequest, name: str, datatype: str, raw: bytes) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
    request.raw_input_contents.append(raw)


def _bytes(text: str) -> bytes:
    """One element of a BYTES tensor."""
    return struct.pack("<I", len(text.encode())) + text.encode()


def _metadata(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)
