"""Many streams in any order against small limits: the ledger always equals the open admitted streams."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from extproc.desk import AdmissionDesk
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from headgate.pb import ext_proc_pb2 as pb
from headgate.policy.model import Capacity, Policy, Queue, Rung
from headgate.store import Scope
from headgate.store.memory import MemoryStore

TURNS = 30
END = None


class Stream:
    """One stream of the service, without a network in between."""

    def __init__(self, service: ExtProcService, tenant: str) -> None:
        self.tenant = tenant
        self.sent = 0
        self.is_sending = False
        self.replies: list[pb.ProcessingResponse] = []
        self._messages: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.task = asyncio.get_running_loop().create_task(service.process(self._read(), self._reply))

    def send(self, message: pb.ProcessingRequest) -> None:
        self.sent += 1
        self._messages.put_nowait(message.SerializeToString())

    def end(self, error: Exception | None = END) -> None:
        """Half-close, or break while reading."""
        self._messages.put_nowait(error)

    @property
    def is_admitted(self) -> bool:
        return any(reply.request_body.response.HasField("header_mutation") for reply in self.replies)

    @property
    def is_refused(self) -> bool:
        return any(reply.HasField("immediate_response") for reply in self.replies)

    async def _read(self) -> AsyncIterator[bytes]:
        while (message := await self._messages.get()) is not END:
            if isinstance(message, Exception):
                raise message
            yield message

    async def _reply(self, message: bytes) -> None:
        # As on a wire: the answer leaves in its own turn, and grpcio cannot end a stream before it has left.
        self.is_sending = True
        await asyncio.sleep(0)
        self.is_sending = False
        self.replies.append(pb.ProcessingResponse.FromString(message))


def headers(tenant: str) -> pb.ProcessingRequest:
    pairs = {":method": "POST", ":path": "/v1/completions", "authorization": f"Bearer {tenant}-key"}
    values = [pb.HeaderValue(key=key, raw_value=value.encode()) for key, value in pairs.items()]
    return pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=pb.HeaderMap(headers=values)))


def body(**fields: Any) -> pb.ProcessingRequest:
    content = json.dumps({"model": "assistant", "prompt": "Hello"} | fields).encode()
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=content, end_of_stream=True))


class House:
    """A service over a store of few slots."""

    def __init__(self, policy: Policy) -> None:
        self.store = MemoryStore(time.monotonic)
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
        live = [stream for stream in self.streams if not stream.task.done()]
        assert self.service.open_streams == len(live)
        assert self.held == sum(stream.is_admitted for stream in live)
        for stream in self.streams:
            assert len(stream.replies) <= stream.sent
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
ENDS = st.sampled_from(["end", "break", "cancel"])


def test_any_interleaving_of_streams_keeps_the_ledger_true(small: Policy) -> None:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.runner = asyncio.Runner()
            self.house = House(small)

        def let(self, action: Callable[[], object], times: int = TURNS) -> None:
            """Do something inside the loop and let it turn; few turns leave things half done for the next step."""

            async def act() -> None:
                action()
                await turns(times)

            self.runner.run(act())

        def pick(self, number: int, *, has_asked: bool | None = None) -> Stream | None:
            known = [
                stream
                for stream in self.house.streams
                if not stream.task.done() and has_asked in (None, stream.sent > 1)
            ]
            return known[number % len(known)] if known else None

        @rule(tenant=TENANTS)
        def come(self, tenant: str) -> None:
            self.let(lambda: self.house.open(tenant).send(headers(tenant)))

        @rule(tenants=st.lists(TENANTS, max_size=5))
        def come_and_ask_all_at_once(self, tenants: list[str]) -> None:
            def action() -> None:
                for tenant in tenants:
                    stream = self.house.open(tenant)
                    stream.send(headers(tenant))
                    stream.send(body())

            self.let(action)

        @rule(number=PICKS, is_bad=st.sampled_from([False] * 7 + [True]))
        def ask(self, number: int, is_bad: bool) -> None:
            if stream := self.pick(number, has_asked=False):
                self.let(lambda: stream.send(body(max_tokens=0) if is_bad else body()))

        @rule(number=PICKS)
        def repeat_the_last_body(self, number: int) -> None:
            if stream := self.pick(number, has_asked=True):
                self.let(lambda: stream.send(body()))

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
            self.let(lambda: [newcomer[0].send(headers(tenant)), newcomer[0].send(body())], between)
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
                assert all(stream.task.done() for stream in self.house.streams)

    run_state_machine_as_test(Machine, settings=settings(deadline=None, max_examples=80, stateful_step_count=30))


@pytest.mark.parametrize("turns_before", range(12))
async def test_draining_at_any_turn_ends_every_stream_normally_and_cuts_no_answer(
    small: Policy, turns_before: int
) -> None:
    house = House(small)
    # One that runs, one that waits, one that runs on a cheaper cluster, one that waits in vain.
    for tenant in ("acme", "acme", "globex", "hobby"):
        stream = house.open(tenant)
        stream.send(headers(tenant))
        stream.send(body())
    late = house.open("acme")
    late.send(headers("acme"))

    await turns(turns_before)
    house.service.drain()
    await turns()
    assert not late.task.done()
    late.send(body())
    await turns()

    for stream in house.streams:
        assert stream.task.done()
        assert not stream.task.cancelled()
        assert stream.task.exception() is None
        assert not stream.is_sending
        assert stream.is_admitted or stream.is_refused
    assert (house.held, house.waiting, house.service.open_streams) == (0, 0, 0)


def depart(stream: Stream, how: str) -> None:
    match how:
        case "end":
            stream.end()
        case "break":
            stream.end(ConnectionResetError())
        case _:
            stream.task.cancel()
