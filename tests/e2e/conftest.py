"""The whole stack on real parts, once: Triton, the stand-ins, Headgate on each transport, Envoy 1.40 and 1.39.3."""

from __future__ import annotations

import queue
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.grpc import service_pb2, service_pb2_grpc

from headgate_cli.demo.client import Client
from headgate_cli.ports import Ports
from headgate_cli.processes import Program
from headgate_cli.stack import Stack, StackSettings, envoy_binary, envoy_program


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = StackSettings(ports=Ports.free(), run=tmp_path_factory.mktemp("stack"))
    with Stack(settings, print) as running:
        yield running


def start_envoy_beside(stack: Stack, binary: Path, name: str, moved: Mapping[int, int]) -> str:
    """Another Envoy with the stack's configuration, some of its ports moved: its URL, once it is waited for."""
    ports, free = stack.settings.ports, Ports.free()
    text = (stack.settings.run / "envoy.yaml").read_text()
    for old, new in ({ports.envoy: free.envoy, ports.envoy_admin: free.envoy_admin} | moved).items():
        assert f"port_value: {old}\n" in text
        text = text.replace(f"port_value: {old}\n", f"port_value: {new}\n")
    configuration = stack.settings.run / f"{name}.yaml"
    configuration.write_text(text)
    stack.supervisor.start(envoy_program(binary, configuration, free.envoy_admin, name))
    return f"http://127.0.0.1:{free.envoy}"


@pytest.fixture(scope="session")
def older_envoy_url(stack: Stack, previous_envoy: Path) -> str:
    """The same sidecar and models behind the older Envoy."""
    url = start_envoy_beside(stack, previous_envoy, "envoy-older", {})
    stack.supervisor.wait_ready()
    return url


@dataclass(frozen=True)
class Sidecar:
    """Another sidecar before the same models, and an Envoy of its own."""

    url: str
    admin_url: str
    log: Path


@pytest.fixture(scope="session")
def on_grpcio(stack: Stack) -> Sidecar:
    """A sidecar whose transport is the reference."""
    ports, free = stack.settings.ports, Ports.free()
    admin_url = f"http://127.0.0.1:{free.admin}"
    names = ("extproc", "ratelimit", "ratelimit_http", "admin")
    addresses = {f"HEADGATE_{name.upper()}_ADDRESS": f"127.0.0.1:{getattr(free, name)}" for name in names}
    sidecar = Program(
        name="headgate-on-grpcio",
        command=[sys.executable, "-m", "headgate_cli", "serve"],
        environment={"HEADGATE_POLICY": str(stack.policy_path), "HEADGATE_TRANSPORT": "grpcio", **addresses},
        ready_url=f"{admin_url}/readyz",
    )
    stack.supervisor.start(sidecar)
    moved = {ports.extproc: free.extproc, ports.ratelimit: free.ratelimit}
    url = start_envoy_beside(stack, envoy_binary(), "envoy-on-grpcio", moved)
    stack.supervisor.wait_ready()
    return Sidecar(url, admin_url, stack.supervisor.log(sidecar.name))


@pytest.fixture(params=["1.40", "1.39.3"])
def url(request: pytest.FixtureRequest, stack: Stack) -> str:
    """Each Envoy in turn."""
    return stack.url if request.param == "1.40" else str(request.getfixturevalue("older_envoy_url"))


@pytest.fixture
def client(url: str, stack: Stack) -> Iterator[Client]:
    with Client(url, stack.supervisor.log("headgate")) as client:
        yield client


@pytest.fixture
def openai_url(url: str) -> str:
    return f"{url}/v1"


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


class GrpcTriton:
    """tritonclient over gRPC, with the tensors and the stream of one test."""

    def __init__(self, address: str) -> None:
        self.sdk = grpcclient.InferenceServerClient(address)
        self._answers: queue.Queue[tuple[Any, Any]] = queue.Queue()

    @staticmethod
    def headers(key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    @staticmethod
    def text(name: str, text: str, module: Any = grpcclient) -> Any:
        tensor = module.InferInput(name, (1, 1), "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
        return tensor

    @staticmethod
    def number(name: str, number: int) -> Any:
        tensor = grpcclient.InferInput(name, (1, 1), "INT32")
        tensor.set_data_from_numpy(np.array([[number]], dtype=np.int32))
        return tensor

    @staticmethod
    def flag(name: str) -> Any:
        tensor = grpcclient.InferInput(name, (1, 1), "BOOL")
        tensor.set_data_from_numpy(np.array([[True]]))
        return tensor

    def start(self, key: str | None, **options: Any) -> None:
        """Open the stream; nothing is sent on it yet."""

        def take(result: Any, error: Any) -> None:
            self._answers.put((result, error))

        self.sdk.start_stream(take, headers=self.headers(key), **options)

    def generate(self, prompt: str = "Hello", max_tokens: int = 4, model: str = "assistant") -> None:
        """Ask on the open stream for tokens one by one."""
        tensors = [self.text("text_input", prompt), self.number("max_tokens", max_tokens), self.flag("stream")]
        self.sdk.async_stream_infer(model, tensors)

    def tokens(self, count: int) -> list[str]:
        """The next so many answers, each of which has to be a token."""
        return ["".join(text.decode() for text in self.answer().as_numpy("text_output").flat) for _ in range(count)]

    def answer(self) -> Any:
        result, error = self._answers.get(timeout=20)
        assert error is None, error
        return result

    def error(self) -> Any:
        result, error = self._answers.get(timeout=20)
        assert result is None, result
        return error


@pytest.fixture
def grpc_triton(url: str) -> Iterator[GrpcTriton]:
    client = GrpcTriton(url.removeprefix("http://"))
    yield client
    client.sdk.stop_stream(cancel_requests=True)
    client.sdk.close()


@pytest.fixture
def http_triton(url: str) -> Iterator[Any]:
    with httpclient.InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


class ObedientTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A model server that remembers what it got, answers each message at once, and ends as a message's id says."""

    def __init__(self) -> None:
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.headers: list[Mapping[str, str]] = []
        self._server = grpc.server(ThreadPoolExecutor(64))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def ModelStreamInfer(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        self.headers.append(dict(context.invocation_metadata()))
        for request in request_iterator:
            self.requests.append(request)
            if request.id == "abort":
                context.abort(grpc.StatusCode.UNAVAILABLE, "no more")
            if request.id == "reset":
                context.cancel()
            yield service_pb2.ModelStreamInferResponse(infer_response={"id": request.id})

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture(scope="session")
def obedient_server() -> Iterator[ObedientTriton]:
    server = ObedientTriton()
    yield server
    server.stop()


@pytest.fixture(scope="session", params=["1.40", "1.39.3"])
def obedient_address(
    request: pytest.FixtureRequest, stack: Stack, previous_envoy: Path, obedient_server: ObedientTriton
) -> str:
    """Each Envoy in turn, its gRPC clusters all one obedient server, its sidecar the stack's."""
    binary = envoy_binary() if request.param == "1.40" else previous_envoy
    moved = {stack.settings.ports.triton_grpc: obedient_server.port}
    url = start_envoy_beside(stack, binary, f"envoy-obedient-{request.param}", moved)
    stack.supervisor.wait_ready()
    return url.removeprefix("http://")


class Talk:
    """One ModelStreamInfer; what is said on it goes out at once."""

    def __init__(self, channel: grpc.Channel, key: str) -> None:
        self._saying: queue.SimpleQueue[Any] = queue.SimpleQueue()
        headers = (("authorization", f"Bearer {key}"),)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.call = stub.ModelStreamInfer(iter(self._saying.get, None), metadata=headers)

    def say(self, prompt: str = "Hello", max_tokens: int = 5, **fields: Any) -> None:
        request = service_pb2.ModelInferRequest(**{"model_name": "assistant"} | fields)
        for name, datatype, raw in (
            ("text_input", "BYTES", struct.pack("<I", len(prompt)) + prompt.encode()),
            ("max_tokens", "INT32", struct.pack("<i", max_tokens)),
        ):
            request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
            request.raw_input_contents.append(raw)
        self._saying.put(request)

    def hear(self) -> str:
        """The id of the next answer."""
        return str(next(self.call).infer_response.id)

    def half_close(self) -> None:
        self._saying.put(None)


@pytest.fixture
def obedient(obedient_server: ObedientTriton) -> ObedientTriton:
    obedient_server.requests.clear()
    obedient_server.headers.clear()
    return obedient_server


@pytest.fixture
def talk(obedient_address: str, obedient: ObedientTriton) -> Iterator[Callable[[str], Talk]]:
    """Opens a stream with a key; those still open at the end are cancelled."""
    talks: list[Talk] = []
    with grpc.insecure_channel(obedient_address) as channel:

        def start(key: str) -> Talk:
            talks.append(Talk(channel, key))
            return talks[-1]

        yield start
        for started in talks:
            started.call.cancel()
            started.half_close()
