"""Random and damaged bodies against every reader of requests and every edit: nothing but `RequestError` comes out.

A bounded run is a test; `python tests/fuzz/test_inspection.py INPUTS [SEED]` goes on as long as it is told.
"""

from __future__ import annotations

import json
import random
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from extproc.headers import Headers
from extproc.inspection import inspect
from extproc.inspection.request import MAX_CHOICES, MAX_OUTPUT_TOKENS, InferenceRequest, RequestError
from extproc.inspection.target import Operation, Target, parse_target
from extproc.rewrite import rewrite
from extproc.routing import Destination
from headgate.policy.model import Backend, Cluster, Frontend, Protocol

TARGETS = [
    parse_target("POST", path)
    for path in (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v2/models/m/generate",
        "/v2/models/m/generate_stream",
        "/v2/models/m/infer",
    )
]
GENERATES = (Operation.GENERATE, Operation.GENERATE_STREAM)
KEYS = [
    *("model", "messages", "prompt", "input", "instructions", "system", "tools", "functions", "stream", "n"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "stream_options", "service_tier", "priority"),
    *("temperature", "stop", "content", "type", "text", "role", "tool_calls", "arguments", "output", "thinking"),
    *("image_url", "input_audio", "data", "text_input", "sampling_param_max_tokens", "streaming", "inputs", "name"),
    *("shape", "datatype", "parameters", "binary_data_size", "", "mod\\u0065l", "x"),
]
SCALARS = [
    *("null", "true", "false", "0", "-1", "1", "5", "1e99", "1" * 40, "1.5", "-0"),
    *('""', '"a"', '"\\u00e9"', '"\\ud83d\\ude00"', '"\\n\\"}"', '",\\"model\\":1}"', '"image"', '"UklGRg=="'),
    *('"max_tokens"', '"text_input"', '"INT32"', '"BYTES"', '"input_audio"', '"tool_result"', '"wav"', '"\xff"'),
]
NO_JSON = ["NaN", "Infinity", "01", '"\\ud83d"', '"\\x"', '"\n"', "'a'", "1.", "", "[" * 3000]
FRAMES = {
    '{"model":"m","messages":[{"role":"user","content":%s}],"max_tokens":5,"x":%s}': [TARGETS[0], TARGETS[4]],
    '{"messages":[{"content":[{"type":"text","text":%s},{"input_audio":{"data":%s}}]}],"model":"m"}': [TARGETS[0]],
    '{"model":"m","max_tokens":5,"system":%s,"messages":[{"content":[{"content":%s}]}]}': [TARGETS[4]],
    '{"model":"m","prompt":%s,"max_tokens":%s}': [TARGETS[1]],
    '{"model":"m","input":%s,"stream_options":%s,"stream":true}': [TARGETS[2], TARGETS[3]],
    '{"model":"m","input":[{"content":%s,"output":%s}],"max_output_tokens":5}': [TARGETS[3]],
    '{"text_input":%s,"max_tokens":%s}': [TARGETS[5], TARGETS[6]],
    '{"inputs":[{"name":"text_input","data":[%s]},{"name":"max_tokens","data":[%s]}]}': [TARGETS[7]],
    '{"inputs":[{"name":"text_input","data":["a"]},{"name":"max_tokens","datatype":"INT32","shape":[1],"data":[5]},'
    '{"name":"temperature","datatype":"FP32","data":%s}],"parameters":%s}': [TARGETS[7]],
}


class Script:
    """One random request after another."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def request(self) -> tuple[Target, bytes, Headers]:
        """A body, mostly for the API it is sent to."""
        frame = self._chance.choice(list(FRAMES))
        target = self._chance.choice(FRAMES[frame] if self._chance.random() < 0.8 else TARGETS)
        return target, *self._body(frame)

    def _body(self, frame: str) -> tuple[bytes, Headers]:
        """A body, mostly JSON, now and then damaged or with binary tensors behind it."""
        chance = self._chance
        if chance.random() < 0.8:
            text = frame % tuple(self.value(3) for _ in range(frame.count("%s")))
        else:
            text = self.value(5)
        body = bytearray(text.encode("latin-1", "replace"))
        headers = Headers(())
        if chance.random() < 0.1:
            headers = Headers([("inference-header-content-length", str(len(body) + chance.choice([0, 0, 0, 1, -3])))])
            body += struct.pack("<I", chance.choice([0, 1, 2, 4, 2**32 - 1])) + chance.randbytes(chance.randrange(9))
        if body and chance.random() < 0.15:
            body[chance.randrange(len(body))] = chance.randrange(256)
        if chance.random() < 0.05:
            del body[chance.randrange(len(body) + 1) :]
        return bytes(body), headers

    def value(self, depth: int) -> str:
        chance = self._chance
        kind = chance.random()
        if depth == 0 or kind < 0.5:
            return chance.choice(NO_JSON if chance.random() < 0.01 else SCALARS)
        space = chance.choice(["", "", " ", "\n"])
        if kind < 0.7:
            return (
                f"[{space}" + f"{space},".join(self.value(depth - 1) for _ in range(chance.randrange(4))) + f"{space}]"
            )
        fields = (f'"{chance.choice(KEYS)}"{space}:{space}{self.value(depth - 1)}' for _ in range(chance.randrange(5)))
        return f"{{{space}" + f"{space},".join(fields) + f"{space}}}"

    def destination(self, target: Target, request: InferenceRequest) -> Destination:
        """Somewhere that changes all it may."""
        chance = self._chance
        assert target.protocol is not None
        frontend = Frontend(protocol=target.protocol, model="other", endpoints=("h:1",), envoy_cluster="c")
        cluster = Cluster(name="c", frontends={}, backend=chance.choice([None, *Backend]))
        cluster = replace(cluster, sends_priority=chance.random() < 0.5, asks_for_usage=chance.random() < 0.5)
        cluster = replace(cluster, priority_levels=chance.choice([None, 1, 3]))
        asked = request.max_output_tokens
        return Destination(
            cluster=cluster,
            frontend=frontend,
            max_output_tokens=chance.choice([None, asked, 3 if asked is None else min(3, asked)]),
            charged_tokens=0,
            prompt_tokens=request.prompt_tokens,
            is_degraded=False,
            reason="",
            priority=chance.randrange(5),
            overrides=chance.choice([{}, {"temperature": 0.5, "top_k": 3, "stop": ("x",)}]),
        )


def run(inputs: int, seed: int) -> tuple[int, int]:
    """Try so many inputs; how many were requests, and how many of these were edited."""
    script, accepted, edited = Script(seed), 0, 0
    for _ in range(inputs):
        target, body, headers = script.request()
        try:
            request = inspect(target, headers, body)
            accepted += 1
            place = script.destination(target, request)
            changed = rewrite(target, headers, request, place, body)
        except RequestError:
            continue
        check(request, body)
        if changed.body is not None:
            edited += 1
            if changed.json_bytes is not None:
                headers = Headers([("inference-header-content-length", str(changed.json_bytes))])
            check_edit(target, headers, place, body, changed.body)
    return accepted, edited


def check(request: InferenceRequest, body: bytes) -> None:
    assert 0 <= request.prompt.size_bytes <= 2 * len(body), body
    assert request.prompt_tokens >= 0, body
    assert 1 <= request.choices <= MAX_CHOICES * max(1, len(body)), body
    assert request.max_output_tokens is None or 1 <= request.max_output_tokens <= MAX_OUTPUT_TOKENS, body


def check_edit(target: Target, headers: Headers, place: Destination, body: bytes, changed: bytes) -> None:
    """Read again it is a request of the new limit; of OpenAI's API also of the new model, and settled."""
    after = inspect(target, headers, changed)
    is_limited = bool(after.output_limit_fields) if target.operation is Operation.INFER else after.has_output
    if place.max_output_tokens is not None and is_limited and target.operation not in GENERATES:
        assert after.max_output_tokens == place.max_output_tokens, (body, changed)
    if target.protocol is not Protocol.TRITON:
        assert after.model == "other", (body, changed)
        again = rewrite(target, headers, after, place, changed).body
        assert again in (None, changed), (body, changed)


def test_nothing_but_a_request_error_comes_out_of_any_body() -> None:
    accepted, edited = run(6_000, seed=5)

    assert accepted > 400
    assert edited > 200


LINEAR: dict[str, tuple[Target, Callable[[int], str]]] = {
    "quotes": (TARGETS[0], lambda n: json.dumps({"model": "m", "messages": [{"content": '","m":1}' * n}]})),
    "backslashes": (TARGETS[0], lambda n: json.dumps({"model": "m", "messages": [{"content": "\\" * n}]})),
    "fields": (TARGETS[0], lambda n: '{"model":"m","messages":[{"content":"a"}]' + ',"model":"m"' * n + "}"),
    "commas": (TARGETS[1], lambda n: '{"model":"m","prompt":"' + ',\\"a\\":1' * n + '"}'),
    "messages": (TARGETS[0], lambda n: json.dumps({"model": "m", "messages": [{"content": "a"}] * n})),
    "parts": (TARGETS[4], lambda n: json.dumps({"model": "m", "max_tokens": 1, "messages": [{"content": [{}] * n}]})),
    "items": (TARGETS[3], lambda n: json.dumps({"model": "m", "input": [{"content": "a"}] * n})),
    "texts": (TARGETS[2], lambda n: json.dumps({"model": "m", "input": ["a"] * n})),
    "token ids": (TARGETS[2], lambda n: json.dumps({"model": "m", "input": list(range(n))})),
    "spaces": (TARGETS[0], lambda n: json.dumps({"model": "m", "messages": [{"content": "a"}]}) + " " * n),
    "generate": (TARGETS[5], lambda n: json.dumps({"text_input": ["a"] * n, "max_tokens": 5})),
    "tensors": (TARGETS[7], lambda n: json.dumps({"inputs": [{"name": f"t{i}", "data": []} for i in range(n)]})),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_the_work_grows_no_faster_than_the_body(kind: str) -> None:
    target, make = LINEAR[kind]
    small, large = (work(target, make(n).encode()) for n in (500, 4000))

    # Eight times the body; a pass over every pair of its parts would be sixty-four.
    assert large <= 10 * small + 2000


def work(target: Target, body: bytes) -> int:
    """Python instructions run and C functions called while a body is read and edited."""
    steps = 0

    def count(frame: Any, event: str, argument: object) -> Any:
        nonlocal steps
        steps += 1
        frame.f_trace_opcodes = True
        return count

    def count_call(frame: object, event: str, argument: object) -> None:
        nonlocal steps
        steps += event == "c_call"

    def read() -> None:
        request = inspect(target, Headers(()), body)
        rewrite(target, Headers(()), request, Script(1).destination(target, request), body)

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(count)
    sys.setprofile(count_call)
    try:
        read()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return steps


if __name__ == "__main__":
    total, first_seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    started_at, requests, edits = time.monotonic(), 0, 0
    for done in range(10_000, total + 1, 10_000):
        accepted, edited = run(10_000, first_seed + done)
        requests, edits = requests + accepted, edits + edited
        seconds = time.monotonic() - started_at
        print(f"{done:,} inputs, {requests:,} requests, {edits:,} edits, {seconds:.0f} s", flush=True)
