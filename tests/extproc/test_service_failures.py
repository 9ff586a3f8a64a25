"""What must not happen, with bugs, failing stores and broken messages: a request let through unchecked, a slot kept."""

from __future__ import annotations

import time
from dataclasses import replace

import grpc
import pytest

from extproc import conversation
from extproc.events import Decision, Event, Reply
from extproc.queue import FairQueue
from extproc.signals import ClusterSignals
from headgate.policy.model import OnStoreFailure, Policy
from headgate.store import LeaseRequest, Scope, TakeOutcome
from headgate.store.memory import MemoryStore
from tests.extproc.sidecars import MODULE_LOOP, START, Sidecar, body, headers, kind, refusal_of

pytestmark = MODULE_LOOP


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "headgate.extproc"]


async def test_a_decision_that_fails_is_a_503_and_never_a_pass(
    start: START, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ClusterSignals):
        def in_flight(self, scope: Scope, name: str) -> int:
            raise ZeroDivisionError("a bug")

    sidecar = await start(signals=Broken(lambda: policy, MemoryStore(time.monotonic), FairQueue()))
    stream = sidecar.open()

    response = await stream.ask(headers("hobby"))

    assert refusal_of(response) == (503, "internal_error")
    assert b"bug" not in response.SerializeToString()
    assert await stream.status() is grpc.StatusCode.OK
    await sidecar.is_idle()
    assert failures(caplog) == ["a decision failed"]


async def test_a_store_that_fails_unforeseen_is_a_503_and_the_next_request_is_served(
    start: START, caplog: pytest.LogCaptureFixture
) -> None:
    class Store(MemoryStore):
        failures = 1

        def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
            if self.failures:
                self.failures -= 1
                raise ConnectionResetError
            super().acquire(request, answer)

    sidecar = await start(store=Store(time.monotonic))
    first, second = sidecar.open(), sidecar.open()
    await first.ask(headers())

    assert refusal_of(await first.ask(body())) == (503, "internal_error")
    await second.admitted()
    assert failures(caplog) == ["a decision failed"]


@pytest.mark.parametrize(
    ("on_failure", "expected"),
    [(OnStoreFailure.CLOSED, "immediate_response"), (OnStoreFailure.OPEN, "request_body")],
)
async def test_a_store_that_is_away_is_answered_as_the_policy_says(
    start: START, policy: Policy, on_failure: OnStoreFailure, expected: str
) -> None:
    class Away(MemoryStore):
        def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
            answer(None)

    sidecar = await start(replace(policy, on_store_failure=on_failure), store=Away(time.monotonic))
    stream = sidecar.open()
    await stream.ask(headers())

    assert kind(await stream.ask(body())) == expected
    assert await stream.end() is grpc.StatusCode.OK
    await sidecar.is_idle()


@pytest.mark.parametrize("message", [headers(), body()], ids=["headers", "body"])
async def test_a_message_whose_reading_fails_unforeseen_is_a_503_and_never_a_pass(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, message: bytes
) -> None:
    def fail(message: bytes) -> Event:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(conversation, "parse_request", fail)
    stream = sidecar.open()

    assert refusal_of(await stream.ask(message)) == (503, "internal_error")
    assert await stream.status() is grpc.StatusCode.OK
    await sidecar.is_idle()
    assert failures(caplog) == ["a decision failed"]


@pytest.mark.parametrize("message", [b"\xff\xff", b"", b"GET / HTTP/1.1"])
async def test_what_is_no_message_ends_the_stream_and_gives_its_slot_back(sidecar: Sidecar, message: bytes) -> None:
    stream = sidecar.open()
    await stream.admitted()

    await stream.call.write(message)

    assert await stream.status() is grpc.StatusCode.INVALID_ARGUMENT
    await sidecar.is_idle()


async def test_a_message_larger_than_any_body_ends_its_stream_and_leaves_the_server_up(sidecar: Sidecar) -> None:
    large, other = sidecar.open(), sidecar.open()
    await large.ask(headers())
    await large.call.write(body(b" " * (2 << 20)))

    assert await large.status() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await other.admitted()
    await other.end()
    await sidecar.is_idle()


async def test_a_report_that_fails_costs_the_client_nothing(sidecar: Sidecar, caplog: pytest.LogCaptureFixture) -> None:
    def fail(decision: Decision, seconds: float) -> None:
        raise OSError

    sidecar.report = fail  # type: ignore[method-assign]
    stream = sidecar.open()

    await stream.admitted()

    assert await stream.status() is grpc.StatusCode.OK
    await sidecar.is_idle()
    assert failures(caplog) == ["a decision failed"]


async def test_a_decision_and_its_report_that_both_fail_are_still_a_503(
    start: START, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ClusterSignals):
        def in_flight(self, scope: Scope, name: str) -> int:
            raise ZeroDivisionError

    def fail(decision: Decision, seconds: float) -> None:
        raise OSError

    sidecar = await start(signals=Broken(lambda: policy, MemoryStore(time.monotonic), FairQueue()))
    sidecar.report = fail  # type: ignore[method-assign]
    stream = sidecar.open()

    assert refusal_of(await stream.ask(headers("hobby"))) == (503, "internal_error")
    assert await stream.status() is grpc.StatusCode.OK
    assert failures(caplog) == ["a decision failed", "a failed decision could not be answered"]


async def test_a_message_that_cannot_be_answered_at_all_ends_its_stream_in_an_error(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(reply: Reply) -> bytes:
        raise ValueError

    stream = sidecar.open()
    await stream.ask(headers())
    monkeypatch.setattr(conversation, "build_response", fail)

    await stream.call.write(body())

    # An end without an error would let the request through unchecked.
    assert await stream.status() is grpc.StatusCode.INTERNAL
    await sidecar.is_idle()
    assert failures(caplog) == ["a decision failed", "a failed decision could not be answered"]
