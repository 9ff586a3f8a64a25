"""Random gRPC bodies: whatever comes, a request is read or refused, and an edit is read as what it was meant to be.

Damaged requests, wrong lengths, wrong wire types and bad compression, cut at random places.
A million inputs: `python tests/fuzz/test_kserve_messages.py 1000000 [first seed]`.
"""

from __future__ import annotations

import gzip
import random
import struct
import sys
import time
import zlib

from tritonclient.grpc import service_pb2 as triton

from extproc.inspection.grpc_frames import FrameReader, framed, only_message
from extproc.inspection.infer_changes import InferChanges
from extproc.inspection.kserve_grpc import asked_model, edit_message, inspect_message, rename_question
from extproc.inspection.request import RequestError

LIMIT = 4096
NAMES = (
    *("text_input", "max_tokens", "sampling_param_max_tokens", "request_output_len", "stream", ""),
    *("temperature", "runtime_top_k"),
)
TYPES = ("BYTES", "INT32", "INT64", "UINT32", "UINT64", "FP32", "FP16", "BOOL", "")
CONTENTS = ("int_contents", "int64_contents", "uint_contents", "uint64_contents", "fp32_contents")
NUMBERS = (0, 1, 5, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)


class Script:
    """One random request and what becomes of it on its way."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def body(self) -> tuple[bytes, str]:
        """A body and its `grpc-encoding`."""
        chance, encoding = self._chance, self._chance.choice(["", "gzip", "deflate", "identity", "br"])
        parts = [self._frame(self._message(), encoding) for _ in range(chance.choice([1, 1, 1, 1, 0, 2, 3]))]
        return self._damaged(b"".join(parts), 0.1), encoding

    def _frame(self, message: bytes, encoding: str) -> bytes:
        if self._chance.random() < 0.7:
            return framed(message)
        packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)(message)
        return b"\1" + struct.pack(">I", len(packed)) + packed

    def _message(self) -> bytes:
        chance = self._chance
        if chance.random() < 0.1:
            return chance.randbytes(chance.randrange(60))
        request = triton.ModelInferRequest(model_name=chance.choice(["assistant", "x" * 200, ""]))
        if chance.random() < 0.3:
            request.parameters["sequence_id"].int64_param = chance.choice(NUMBERS)
        if chance.random() < 0.5:
            self._add_prompt(request)
        for _ in range(chance.choice([0, 0, 1, 2, 3])):
            self._add_tensor(request)
        if chance.random() < 0.1:
            request.raw_input_contents.append(chance.randbytes(chance.randrange(10)))
        return self._damaged(request.SerializeToString(deterministic=True), 0.3)

    def _add_prompt(self, request: triton.ModelInferRequest) -> None:
        name, limit = self._chance.choice(NAMES[1:4]), self._chance.choice([1, 50, 2**31 - 1])
        request.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
        request.inputs.add(name=name, datatype="INT32", shape=[1, 1])
        request.raw_input_contents.extend([struct.pack("<I", 5) + b"hello", struct.pack("<i", limit)])

    def _add_tensor(self, request: triton.ModelInferRequest) -> None:
        chance = self._chance
        tensor = request.inputs.add(name=chance.choice(NAMES), datatype=chance.choice(TYPES), shape=[1, 1])
        match chance.randrange(6):
            case 0:
                text = chance.choice([b"", b"hello", b"\xff" * 20, b"x" * 3000])
                request.raw_input_contents.append(struct.pack("<I", len(text)) + text)
            case 1:
                request.raw_input_contents.append(chance.choice([struct.pack("<i", 7), struct.pack("<q", -7), b""]))
            case 2:
                tensor.contents.bytes_contents.append(b"hello")
            case 3:
                field = chance.choice(CONTENTS)
                number = chance.choice(NUMBERS) % (2**31 if field == "int_contents" else 2**32)
                getattr(tensor.contents, field).append(number)
            case 4:
                tensor.parameters["shared_memory_region"].string_param = "r"
            case _:
                pass

    def _damaged(self, data: bytes, share: float) -> bytes:
        chance = self._chance
        if not data or chance.random() >= share:
            return data
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            position = chance.randrange(len(changed))
            match chance.randrange(4):
                case 0:
                    changed[position] = chance.randrange(256)
                case 1:
                    del changed[position : position + chance.randint(1, 8)]
                case 2:
                    changed[position:position] = chance.randbytes(chance.randint(1, 8))
                case _:
                    changed[position:position] = changed[: chance.randint(1, 40)]
            if not changed:
                break
        return bytes(changed)


def run(chance: random.Random) -> bool:
    """One body from its first byte to its last; whether it was a request."""
    body, encoding = Script(chance).body()
    read = list(_pieces(chance, body, encoding))
    try:
        message = only_message(body, encoding, LIMIT)
    except RequestError:
        return False
    assert read == [message], "cut in pieces a body reads otherwise"
    try:
        assert asked_model(rename_question(message, "best")) == "best"
    except RequestError:
        pass
    try:
        request = inspect_message(message, stream=chance.random() < 0.5)
    except RequestError:
        return False
    assert request.prompt_tokens >= 0
    limit = 3 if request.output_limit_fields else None
    overrides = chance.choice([{}, {"temperature": 0.5, "top_k": 3, "stop": ("x",)}])
    changes = InferChanges(limit=limit, overrides=overrides, priority=chance.choice([None, 1]))
    try:
        edited = inspect_message(edit_message(message, model="ensemble", changes=changes), stream=request.stream)
    except RequestError:
        return bool(overrides)
    assert (edited.model, edited.max_output_tokens) == ("ensemble", limit)
    assert (edited.prompt_tokens, edited.session) == (request.prompt_tokens, request.session)
    return True


def _pieces(chance: random.Random, body: bytes, encoding: str) -> list[bytes]:
    reader, messages = FrameReader(encoding, LIMIT), []
    try:
        while body:
            size = chance.choice([1, 4, 9, 100, 5000])
            messages += reader.feed(body[:size])
            body = body[size:]
    except RequestError:
        pass
    return messages


def fuzz(inputs: int, seed: int) -> int:
    """Run so many bodies; how many of them were requests. One that fails is named by its seed."""
    requests = 0
    for number in range(seed, seed + inputs):
        try:
            requests += run(random.Random(number))
        except Exception as error:
            raise AssertionError(f"input {number} fails") from error
    return requests


def test_ten_thousand_random_bodies_break_nothing() -> None:
    inputs = 10_000

    assert inputs / 10 < fuzz(inputs, seed=0) < inputs


if __name__ == "__main__":
    asked, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    started_at = time.monotonic()
    read = fuzz(asked, first)
    took = time.monotonic() - started_at
    print(f"{asked} inputs from seed {first}, {read} of them requests: nothing broke, {took:.0f} s")
