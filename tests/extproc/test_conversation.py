"""Many streams in any order against small limits: the ledger always equals the open admitted streams."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from extproc.conversation import CARRY_OUT
from extproc.desk import AdmissionDesk
from extproc.events import Effect
from extproc.inspection.grpc_frames import framed
from extproc.inspection.target import STREAM_INFER_PATH
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from headgate.pb import ext_proc_pb2 as pb
from headgate.policy.load import load_policy
from headgate.policy.model import Capacity, Policy, Queue, Rung
from headgate.store import LeaseRequest, Scope, TakeOutcome
from headgate.store.memory import MemoryStore
from headgate.transport import Conversation, Metadata, StatusCode

TURNS = 30
IS_LATE = pytest.mark.parametrize("is_late", [False, True], ids=["store answers at once", "store answers later"])


class Stream:
    """One stream of the service, without a network in between: the transport's side of it."""

    metadata: Metadata = ()
    timeout_seconds = None
    is_congested = False

    def __init__(self, service: ExtProcService, tenant: str) -> None:
        self.tenant = tenant
        self.sent = 0
        self.replies: list[pb.ProcessingResponse] = []
        self.is_open = True
        self.is_paused = False
        self.status: StatusCode | None = None
        self._conversation: Conversation | None = None
        self._conversation = service.open(self)
        if not self.is_open:
            self._end_conversation()

    # what the conversation asks for

    def send(self, message: bytes) -> None:
        if self.is_open:
            self.replies.append(pb.ProcessingResponse.FromString(message))

    def finish(self, code: StatusCode = StatusCode.OK, message: str = "") -> None:
        if self.is_open:
            self.is_open = False
            self.status = code
            self._end_conversation()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def on_drained(self, listener: Callable[[], None]) -> None:
        raise AssertionError

    def on_cancelled(self, listener: Callable[[], object]) -> None:
        raise AssertionError

    # what the client does

    def ask(self, message: pb.ProcessingRequest) -> None:
        self.sent += 1
        if self._conversation is not None:
            self._conversation.receive(message.SerializeToString())

    def end(self) -> None:
        """Half-close."""
        self._end_conversation()

    def vanish(self) -> None:
        """Cancel, or lose the connection."""
        self.is_open = False
        self._end_conversation()

    def _end_conversation(self) -> None:
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.ended()

    @property
    def is_over(self) -> bool:
        return self._conversation is None

    @property
    def is_admitted(self) -> bool:
        return any(reply.request_body.response.HasField("header_mutation") for reply in self.replies)

    @property
    def is_refused(self) -> bool:
        return any(reply.HasField("immediate_response") for reply in self.replies)


class LateStore(MemoryStore):
    """Decides at once and says so some turns later, as a store across a network does."""

    def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
        super().acquire(request, lambda outcome: later(3, lambda: answer(outcome)))


def later(turns: int, action: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    loop.call_soon(action if turns == 0 else lambda: later(turns - 1, action))


def headers(tenant: str) -> pb.ProcessingRequest:
    pairs = {":method": "POST", ":path": "/v1/completions", "authorization": f"Bearer {tenant}-key"}
    values = [pb.HeaderValue(key=key, raw_value=value.encode()) for key, value in pairs.items()]
    return pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=pb.HeaderMap(headers=values)))


def body(**fields: Any) -> pb.ProcessingRequest:
    content = json.dumps({"model": "assistant", "prompt": "Hello"} | fields).encode()
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=content, end_of_stream=True))


class House:
    """A service over a store of few slots."""

    def __init__(self, policy: Policy, *, is_late: bool = False) -> None:
        self.store = (LateStore if is_late else MemoryStore)(time.monotonic)
        self.desk = AdmissionDesk(self.store)
        signals = ClusterSignals(lambda: policy, self.store, self.desk.queue)
        self.service = ExtProcService(
            policy=lambda: policy,
            desk=self.desk,
            signals=signals,
            report=lambda decision, seconds: None,
            clock=time.perf_counter,
        )
        self.clusters = list(policy.clusters)
        self.streams: list[Stream] = []

    def open(self, tenant: str) -> Stream:
        self.streams.append(Stream(self.service, tenant))
        return self.streams[-1]

    @property
    def held(self) -> int:
        return sum(self.store.in_flight(Scope.CLUSTER, cluster) for cluster in self.clusters)

    @property
    def waiting(self) -> int:
        return sum(self.desk.queue.depths().values())

    def check(self) -> None:
        """What has to be true whenever nothing moves."""
        live = [stream for stream in self.streams if not stream.is_over]
        assert self.service.open_streams == len(live)
        assert self.held == sum(stream.is_admitted for stream in live)
        for stream in self.streams:
            assert len(stream.replies) <= stream.sent
            assert stream.status in (None, StatusCode.OK)
            assert not (stream.is_admitted and stream.is_refused)
        unanswered = [stream for stream in live if len(stream.replies) < stream.sent]
        assert self.waiting == len(unanswered)


@pytest.fixture(scope="session")
def small(revise: Callable[..., Policy]) -> Policy:
    """One slot in each cluster but the last; all tiers wait, the last of them in vain."""
    one = {"capacity": Capacity(requests=1)}
    return revise(
        clusters={"best": one, "standard": one, "fast": one, "tiny": {"capacity": Capacity(requests=0)}},
        tiers={
            "premium": {"queue": Queue(max_wait_seconds=3600.0, max_depth=3), "on_overload": (Rung.QUEUE, Rung.REJECT)},
            "interactive": {
                "queue": Queue(max_wait_seconds=3600.0, max_depth=3),
                "on_overload": (Rung.DEGRADE, Rung.QUEUE, Rung.REJECT),
            },
            "best_effort": {
                "queue": Queue(max_wait_seconds=0.0, max_depth=1),
                "on_overload": (Rung.QUEUE, Rung.DEGRADE, Rung.REJECT),
            },
        },
    )


async def turns(times: int = TURNS) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


PICKS = st.integers(0, 1000)
TENANTS = st.sampled_from(["acme", "globex", "hobby"])
ENDS = st.sampled_from(["end", "vanish"])


def test_every_effect_is_carried_out_somehow() -> None:
    assert set(CARRY_OUT) == set(get_args(Effect))


@IS_LATE
def test_any_interleaving_of_streams_keeps_the_ledger_true(small: Policy, is_late: bool) -> None:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.runner = asyncio.Runner()
            self.house = House(small, is_late=is_late)

        def let(self, action: Callable[[], object], times: int = TURNS) -> None:
            """Do something inside the loop and let it turn; few turns leave things half done for the next step."""

            async def act() -> None:
                action()
                await turns(times)

            self.runner.run(act())

        def pick(self, number: int, *, has_asked: bool | None = None) -> Stream | None:
            known = [
                stream for stream in self.house.streams if not stream.is_over and has_asked in (None, stream.sent > 1)
            ]
            return known[number % len(known)] if known else None

        @rule(tenant=TENANTS)
        def come(self, tenant: str) -> None:
            self.let(lambda: self.house.open(tenant).ask(headers(tenant)))

        @rule(tenants=st.lists(TENANTS, max_size=5))
        def come_and_ask_all_at_once(self, tenants: list[str]) -> None:
            def action() -> None:
                for tenant in tenants:
                    stream = self.house.open(tenant)
                    stream.ask(headers(tenant))
                    stream.ask(body())

            self.let(action)

        @rule(number=PICKS, is_bad=st.sampled_from([False] * 7 + [True]))
        def ask(self, number: int, is_bad: bool) -> None:
            if stream := self.pick(number, has_asked=False):
                self.let(lambda: stream.ask(body(max_tokens=0) if is_bad else body()))

        @rule(number=PICKS)
        def repeat_the_last_body(self, number: int) -> None:
            if stream := self.pick(number, has_asked=True):
                self.let(lambda: stream.ask(body()))

        @rule(numbers=st.lists(PICKS, min_size=1, max_size=5), how=ENDS, between=st.integers(0, 6))
        def leave(self, numbers: list[int], how: str, between: int) -> None:
            for number in numbers:
                if stream := self.pick(number):
                    self.let(lambda stream=stream: depart(stream, how), between)
            self.let(lambda: None)

        @rule(number=PICKS, tenant=TENANTS, how=ENDS, between=st.integers(0, 6))
        def leave_while_another_asks(self, number: int, tenant: str, how: str, between: int) -> None:
            newcomer: list[Stream] = []
            self.let(lambda: newcomer.append(self.house.open(tenant)))
            self.let(lambda: [newcomer[0].ask(headers(tenant)), newcomer[0].ask(body())], between)
            if stream := self.pick(number):
                self.let(lambda: depart(stream, how))
            self.let(lambda: None)

        @invariant()
        def the_ledger_is_true(self) -> None:
            self.house.check()

        def teardown(self) -> None:
            self.let(lambda: [depart(stream, "end") for stream in self.house.streams])
            for _ in self.house.streams:
                self.let(lambda: None)
            with self.runner:
                assert (self.house.held, self.house.waiting, self.house.service.open_streams) == (0, 0, 0)
                assert all(stream.is_over for stream in self.house.streams)

    run_state_machine_as_test(Machine, settings=settings(deadline=None, max_examples=50, stateful_step_count=30))


@IS_LATE
@pytest.mark.parametrize("turns_before", range(12))
async def test_draining_at_any_turn_ends_every_stream_normally_and_cuts_no_answer(
    small: Policy, turns_before: int, is_late: bool
) -> None:
    house = House(small, is_late=is_late)
    # One that runs, one that waits, one that runs on a cheaper cluster, one that waits in vain.
    for tenant in ("acme", "acme", "globex", "hobby"):
        stream = house.open(tenant)
        stream.ask(headers(tenant))
        stream.ask(body())
    late = house.open("acme")
    late.ask(headers("acme"))

    await turns(turns_before)
    house.service.drain()
    await turns()
    assert not late.is_over
    late.ask(body())
    await turns()

    for stream in house.streams:
        assert (stream.is_over, stream.status) == (True, StatusCode.OK)
        assert stream.is_admitted or stream.is_refused
        assert len(stream.replies) == 2
    # What was admitted runs on without us, and counts.
    running_on = sum(stream.is_admitted for stream in house.streams)
    assert (house.held, house.waiting, house.service.open_streams) == (running_on, 0, 0)


@IS_LATE
async def test_a_request_costs_no_task_whether_it_runs_waits_or_has_left(small: Policy, is_late: bool) -> None:
    house = House(small, is_late=is_late)
    for _ in range(3):
        stream = house.open("acme")
        stream.ask(headers("acme"))
        stream.ask(body())
        await turns()
    assert house.waiting == 2

    house.streams[1].vanish()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert house.waiting == 1


@pytest.mark.parametrize("turns_before", range(6))
@pytest.mark.parametrize("how", ["end", "vanish"])
async def test_a_slot_granted_to_one_who_left_while_the_store_answered_goes_back(
    small: Policy, how: str, turns_before: int
) -> None:
    house = House(small, is_late=True)
    stream = house.open("acme")
    stream.ask(headers("acme"))
    stream.ask(body())

    await turns(turns_before)
    depart(stream, how)
    await turns()

    assert (house.held, house.service.open_streams) == (0, 0)
    assert len(stream.replies) == (2 if turns_before > 3 else 1)


async def test_messages_that_come_while_the_store_makes_up_its_mind_are_answered_in_their_order(small: Policy) -> None:
    house = House(small, is_late=True)
    stream = house.open("acme")
    trailers = pb.ProcessingRequest()
    trailers.response_trailers.SetInParent()
    for message in (headers("acme"), body(), body(), trailers):
        stream.ask(message)
    assert len(stream.replies) == 1

    await turns()

    phases = [reply.WhichOneof("response") for reply in stream.replies]
    assert phases == ["request_headers", "request_body", "request_body", "response_trailers"]
    assert stream.is_admitted


async def test_while_a_question_is_open_envoy_is_asked_to_send_no_more(small: Policy) -> None:
    house = House(small, is_late=True)
    stream = house.open("acme")
    stream.ask(headers("acme"))
    stream.ask(body())
    assert not stream.is_paused

    stream.ask(body())
    assert stream.is_paused
    await turns()

    assert not stream.is_paused


STREAMING = b"""
apiVersion: headgate/v1
identity: [{anonymous: {tenant: acme}}]
tenants: {acme: {tier: premium}}
tiers: {premium: {priority: 0, concurrency: {tenant: 1}}}
models: {m: {routes: [{cluster: c}]}}
clusters: {c: {protocol: triton, model: m, endpoints: ["h:8000"], grpc_endpoints: ["h:8001"]}}
"""


async def test_draining_leaves_an_open_grpc_stream_its_sidecar() -> None:
    house = House(load_policy(STREAMING, "policy.yaml"))
    stream = house.open("acme")
    first = headers("acme")
    first.request_headers.headers.headers[1].raw_value = STREAM_INFER_PATH.encode()
    first.protocol_config.request_body_mode = pb.ProcessingMode.FULL_DUPLEX_STREAMED
    message = framed(b"\n\x01m")
    stream.ask(first)
    for piece in (message[:2], message[2:], message):
        stream.ask(pb.ProcessingRequest(request_body=pb.HttpBody(body=piece)))
    assert [reply.WhichOneof("response") for reply in stream.replies] == ["request_headers"] + ["request_body"] * 2
    assert house.held == 1

    house.service.drain()
    stream.ask(pb.ProcessingRequest(request_body=pb.HttpBody(body=message)))

    assert stream.is_open
    assert stream.replies[-1].request_body.response.body_mutation.streamed_response.body == message
    stream.end()
    assert house.held == 0


def depart(stream: Stream, how: str) -> None:
    if how == "end":
        stream.end()
    else:
        stream.vanish()
