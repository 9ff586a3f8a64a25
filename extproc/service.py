"""Envoy's ExternalProcessor service: one stream a request, and the stream is the lease.

Opens a conversation a stream and knows which are open. A stream stays open until its HTTP request has ended, however
it ends; then its lease goes back.
"""

from __future__ import annotations

from collections.abc import Callable

from extproc.affinity import AffinityNames
from extproc.conversation import RequestConversation
from extproc.desk import AdmissionDesk
from extproc.estimates import Estimates
from extproc.events import Decision
from extproc.exchange import Exchange
from extproc.routing import Signals
from extproc.tokenizer import CountTexts, count_nothing
from extproc.wire import SERVICE_NAME
from headgate.policy.model import Policy
from headgate.transport import Call, Conversation, Service


class ExtProcService:
    """The requests in flight.

    Args:
        policy: yields the policy in force; a request keeps the one it started with.
        report: is told of every decision, and how many seconds deciding took without the wait in a queue.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        desk: AdmissionDesk,
        signals: Signals,
        report: Callable[[Decision, float], None],
        clock: Callable[[], float],
        region: str = "",
        affinity: AffinityNames | None = None,
        estimates: Estimates | None = None,
        count: CountTexts = count_nothing,
    ) -> None:
        self._policy = policy
        self._desk = desk
        self._signals = signals
        self._report = report
        self._clock = clock
        self._region = region
        self._affinity = affinity or AffinityNames()
        self._estimates = estimates or Estimates()
        self._count = count
        self._open: set[RequestConversation] = set()
        self._is_draining = False

    def service(self) -> Service:
        """What a transport serves."""
        return Service(name=SERVICE_NAME, conversations={"Process": self.open})

    @property
    def open_streams(self) -> int:
        """Requests in flight."""
        return len(self._open)

    def drain(self) -> None:
        """End every stream normally once its request is decided: Envoy then lets it go on without us.

        A stream that ended in an error or a cancellation would cut the response its client is reading; one that
        ended undecided would let its request pass unchecked.
        """
        self._is_draining = True
        for conversation in list(self._open):
            conversation.interrupt()

    def open(self, call: Call) -> Conversation:
        """A stream begins."""
        conversation = RequestConversation(
            Exchange(self._policy(), self._signals, self._region, self._affinity, self._estimates),
            call,
            self._desk,
            count=self._count,
            report=self._report,
            clock=self._clock,
            on_ended=self._open.discard,
        )
        self._open.add(conversation)
        if self._is_draining:
            conversation.interrupt()
        return conversation
