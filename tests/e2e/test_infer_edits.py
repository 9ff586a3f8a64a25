"""What a route sets for decoding, and a tier's priority, in tensors: NVIDIA's clients, real Envoy, real Triton."""

from __future__ import annotations

import hashlib
import json
import queue
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

from headgate.policy.load import load_policy
from headgate_cli.home import home, triton_lock, triton_models
from headgate_cli.ports import Ports
from headgate_cli.processes import Program, Supervisor
from headgate_cli.render.envoy import bootstrap
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.yaml_text import dump
from headgate_cli.stack import envoy_binary, envoy_program
from headgate_cli.triton_environment import TritonEnvironment, new_shm_prefix, remove_shared_memory

PATIENCE_SECONDS = 60.0
URGENT, PATIENT = "urgent-key", "patient-key"
POLICY = """
apiVersion: headgate/v1
identity: [{{api_key: {{header: authorization}}}}]
tenants:
  urgent: {{tier: first, api_key_sha256: ["{urgent}"]}}
  patient: {{tier: last, api_key_sha256: ["{patient}"]}}
tiers:
  first: {{priority: 0, on_overload: [reject]}}
  last: {{priority: 9, on_overload: [reject]}}
models:
  decoder:
    routes: [{{cluster: decoder, max_output_tokens: 10, overrides: {overrides}}}]
  teller:
    routes: [{{cluster: teller, overrides: {{seed: 41}}}}]
clusters:
  decoder:
    protocol: triton
    model: decoder
    endpoints: ["127.0.0.1:{http}"]
    grpc_endpoints: ["127.0.0.1:{grpc}"]
    backend: triton
    send_priority: true
    priority_levels: 3
  teller: {{protocol: triton, model: fast, endpoints: ["127.0.0.1:{http}"], grpc_endpoints: ["127.0.0.1:{grpc}"]}}
"""
OVERRIDES = {"temperature": 0.5, "top_p": 0.25, "top_k": 3, "seed": 2**63 - 1, "repetition_penalty": 1.5}
SET = OVERRIDES | {"max_tokens": 10}


@dataclass(frozen=True)
class Place:
    """Where clients and the test itself ask."""

    envoy: str
    triton_grpc: str
    metrics_url: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    run, ports, shm_prefix = tmp_path_factory.mktemp("infer"), Ports.free(), new_shm_prefix()
    policy, envoy = run / "policy.yaml", run / "envoy.yaml"
    keys = {name: hashlib.sha256(f"{name}-key".encode()).hexdigest() for name in ("urgent", "patient")}
    text = POLICY.format(overrides=OVERRIDES, http=ports.triton_http, grpc=ports.triton_grpc, **keys)
    policy.write_text(text)
    addresses = {
        name: f"127.0.0.1:{getattr(ports, name)}" for name in ("extproc", "ratelimit", "ratelimit_http", "admin")
    }
    settings = EnvoySettings(
        listen=f"127.0.0.1:{ports.envoy}",
        admin=f"127.0.0.1:{ports.envoy_admin}",
        extproc=addresses["extproc"],
        ratelimit=addresses["ratelimit"],
        accesslog=addresses["extproc"],
    )
    envoy.write_text(dump(bootstrap(load_policy(text.encode(), str(policy)), settings)))
    sidecar = Program(
        name="headgate",
        command=[sys.executable, "-m", "headgate_cli", "serve"],
        environment={"HEADGATE_POLICY": str(policy)}
        | {f"HEADGATE_{name.upper()}_ADDRESS": address for name, address in addresses.items()},
        ready_url=f"http://{addresses['admin']}/readyz",
    )
    try:
        with Supervisor(run) as supervisor:
            for program in (
                triton(ports, shm_prefix),
                sidecar,
                envoy_program(envoy_binary(), envoy, ports.envoy_admin),
            ):
                supervisor.start(program)
            supervisor.wait_ready()
            yield Place(
                envoy=f"127.0.0.1:{ports.envoy}",
                triton_grpc=f"127.0.0.1:{ports.triton_grpc}",
                metrics_url=f"http://127.0.0.1:{ports.triton_metrics}/metrics",
            )
    finally:
        remove_shared_memory(shm_prefix)


def triton(ports: Ports, shm_prefix: str) -> Program:
    """A server of the shipped models and of one that answers what it got."""
    environment = TritonEnvironment(home() / "triton")
    environment.ensure(triton_lock(), print)
    command = environment.command(
        triton_models(),
        http_port=ports.triton_http,
        grpc_port=ports.triton_grpc,
        metrics_port=ports.triton_metrics,
        shm_prefix=shm_prefix,
    )
    return Program(
        name="triton",
        command=[*command, f"--model-repository={Path(__file__).with_name('models')}"],
        environment=environment.environ(),
        ready_url=f"http://127.0.0.1:{ports.triton_http}/v2/health/ready",
    )


NUMPY: dict[str, Any] = {"BYTES": np.object_, "INT32": np.int32, "UINT64": np.uint64, "FP32": np.float32}


def tensor(module: Any, name: str, datatype: str, value: object, **options: Any) -> Any:
    made = module.InferInput(name, (1, 1), datatype)
    made.set_data_from_numpy(np.array([[value]], dtype=NUMPY[datatype]), **options)
    return made


def asked(module: Any, prompt: str = "Hello", **options: Any) -> list[Any]:
    """A request for 5000 tokens, warmer than the route lets it be."""
    return [
        tensor(module, "text_input", "BYTES", prompt, **options),
        tensor(module, "temperature", "FP32", 1.5, **options),
        tensor(module, "max_tokens", "INT32", 5000, **options),
    ]


def headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def received(result: Any) -> dict[str, Any]:
    [[text]] = result.as_numpy("received")
    answer: dict[str, Any] = json.loads(text)
    return answer


# decoding


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_over_http_the_model_gets_what_the_route_sets(
    place: Place, *, is_binary: bool, compression: str | None
) -> None:
    with httpclient.InferenceServerClient(place.envoy) as client:
        result = client.infer(
            "decoder",
            asked(httpclient, binary_data=is_binary),
            headers=headers(URGENT),
            request_compression_algorithm=compression,
        )

    assert received(result)["numbers"] == SET


def test_json_and_binary_tensors_mix_over_http(place: Place) -> None:
    tensors = [
        tensor(httpclient, "text_input", "BYTES", "Hello", binary_data=False),
        tensor(httpclient, "seed", "UINT64", 1, binary_data=True),
        tensor(httpclient, "max_tokens", "INT32", 7, binary_data=False),
        tensor(httpclient, "top_k", "INT32", 99, binary_data=True),
    ]

    with httpclient.InferenceServerClient(place.envoy) as client:
        answer = received(client.infer("decoder", tensors, headers=headers(URGENT)))

    assert (answer["prompt"], answer["numbers"]) == ("Hello", SET | {"max_tokens": 7})


def test_over_grpc_the_model_gets_what_the_route_sets(place: Place) -> None:
    with grpcclient.InferenceServerClient(place.envoy) as client:
        result = client.infer("decoder", asked(grpcclient), headers=headers(URGENT))

    assert received(result)["numbers"] == SET


def test_typed_contents_are_set_over_grpc(place: Place) -> None:
    request = grpcclient.service_pb2.ModelInferRequest(model_name="decoder")
    for name, datatype, contents in (
        ("text_input", "BYTES", {"bytes_contents": [b"Hello"]}),
        ("top_k", "INT32", {"int_contents": [77]}),
        ("max_tokens", "INT32", {"int_contents": [5000]}),
    ):
        request.inputs.add(name=name, datatype=datatype, shape=[1, 1], contents=contents)

    with grpcclient.InferenceServerClient(place.envoy) as client:
        answer = client._client_stub.ModelInfer(request, metadata=list(headers(URGENT).items()))

    [raw] = answer.raw_output_contents
    assert json.loads(raw[4:])["numbers"] == SET


def test_a_stream_of_the_stock_ensemble_tells_the_story_of_the_routes_seed(place: Place) -> None:
    tale = told(place.envoy, "teller", URGENT)

    assert tale == told(place.triton_grpc, "fast", None, tensor(grpcclient, "seed", "UINT64", 41))
    assert tale != told(place.triton_grpc, "fast", None)


def told(address: str, model: str, key: str | None, *tensors: Any) -> str:
    """Eight tokens of a stream."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with grpcclient.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=headers(key) if key else {})
        asked = [
            tensor(grpcclient, "text_input", "BYTES", "Hello"),
            tensor(grpcclient, "max_tokens", "INT32", 8),
            *tensors,
        ]
        streaming = grpcclient.InferInput("stream", (1, 1), "BOOL")
        streaming.set_data_from_numpy(np.array([[True]]))
        client.async_stream_infer(model, [*asked, streaming])
        found = [answers.get(timeout=PATIENCE_SECONDS) for _ in range(8)]
        client.stop_stream()
    assert [error for _, error in found] == [None] * 8
    return b"".join(result.as_numpy("text_output").item() for result, _ in found).decode()


# priority


def over_http(place: Place, key: str, prompt: str) -> dict[str, Any]:
    with httpclient.InferenceServerClient(place.envoy, network_timeout=PATIENCE_SECONDS) as client:
        # Everybody says to be first.
        result = client.infer("decoder", asked(httpclient, prompt), headers=headers(key), priority=1)
    return received(result)


def over_grpc(place: Place, key: str, prompt: str) -> dict[str, Any]:
    with grpcclient.InferenceServerClient(place.envoy) as client:
        result = client.infer("decoder", asked(grpcclient, prompt), headers=headers(key), priority=1)
    return received(result)


Ask = Callable[[Place, str, str], dict[str, Any]]


@pytest.mark.parametrize(
    ("ask_patiently", "ask_urgently"), [(over_http, over_grpc), (over_grpc, over_http)], ids=["grpc", "http"]
)
def test_who_has_the_better_priority_overtakes_in_tritons_own_queue(
    place: Place, tmp_path: Path, ask_patiently: Ask, ask_urgently: Ask
) -> None:
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as clients:
        blocker = clients.submit(over_http, place, URGENT, str(gate))
        wait_until(gate.with_suffix(".started").exists)
        patient = [clients.submit(ask_patiently, place, PATIENT, "later") for _ in range(2)]
        wait_until(lambda: pending(place) == 2)
        urgent = clients.submit(ask_urgently, place, URGENT, "now")
        wait_until(lambda: pending(place) == 3)
        gate.touch()

        first, next_, *last = [run(each) for each in (blocker, urgent, *patient)]

    assert next_ == first + 1
    assert min(last) > next_


def run(answer: Future[dict[str, Any]]) -> int:
    """At which turn the model ran it."""
    return int(answer.result(PATIENCE_SECONDS)["run"])


def pending(place: Place) -> float:
    """How many requests wait in the queue of the model."""
    found = re.search(
        r'^nv_inference_pending_request_count\{model="decoder",version="1"\} (\S+)$',
        httpx.get(place.metrics_url).text,
        re.MULTILINE,
    )
    assert found is not None
    return float(found[1])


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
