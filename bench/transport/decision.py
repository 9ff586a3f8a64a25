"""The whole decision without its shell's coroutines: the exchange, driven by plain calls on the event loop.

Memory store and default policy, as `headgate serve` has them; what would have to wait in a queue fails here.
"""

from __future__ import annotations

import time

from bench.transport.noop import EXT_PROC
from extproc.desk import AdmissionDesk
from extproc.events import AcquireLease, Effect, Event, LeaseGranted, ReleaseLease, Report, StreamEnded
from extproc.exchange import Exchange
from extproc.signals import ClusterSignals
from extproc.wire import build_response, parse_request
from headgate.policy.load import load_policy
from headgate.policy.model import Policy
from headgate.settings import DEFAULT_POLICY
from headgate.store import Refused
from headgate.store.ledger import Ledger
from headgate.store.memory import MemoryStore
from headgate.transport import Call, Conversation, RpcError, Service, StatusCode


class Desk:
    """What all decisions share."""

    def __init__(self) -> None:
        self.policy: Policy = load_policy(DEFAULT_POLICY.read_bytes(), DEFAULT_POLICY.name)
        store = MemoryStore(time.monotonic)
        self.signals = ClusterSignals(lambda: self.policy, store, AdmissionDesk(store).queue)
        self.ledger = Ledger()
        self.decided_total = 0

    def service(self) -> Service:
        """What a transport serves."""
        return Service(name=EXT_PROC, conversations={"Process": self.open})

    def open(self, call: Call) -> Conversation:
        """One request."""
        return _Decision(self, call)


class _Decision:
    __slots__ = ("_call", "_desk", "_exchange")

    def __init__(self, desk: Desk, call: Call) -> None:
        self._desk = desk
        self._call = call
        self._exchange = Exchange(desk.policy, desk.signals)

    def receive(self, message: bytes) -> None:
        self._feed(parse_request(message))

    def ended(self) -> None:
        self._feed(StreamEnded())
        self._call.finish()

    def _feed(self, event: Event) -> None:
        for effect in self._exchange.receive(event, time.perf_counter()):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case AcquireLease(request):
                answer = self._desk.ledger.acquire(request, time.monotonic())
                if isinstance(answer, Refused):
                    raise RpcError(StatusCode.RESOURCE_EXHAUSTED, f"the benchmark may not be refused: {answer.scope}")
                self._feed(LeaseGranted(answer))
            case ReleaseLease(lease):
                self._desk.ledger.release(lease, time.monotonic())
            case Report():
                self._desk.decided_total += 1
            case _:
                self._call.send(build_response(effect))
