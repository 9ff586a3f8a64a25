"""One stream of Envoy's: its exchange, carried out by plain calls; the stream is the lease.

Every message gets exactly one reply, but for the pieces of a duplex body. Those that come while a question is open
(the store's answer, a place in the queue) are kept until it is answered, a window full at most.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from extproc.desk import AdmissionDesk, Answer, Waiting
from extproc.events import (
    AcquireLease,
    Continue,
    CountTokens,
    Decision,
    Effect,
    Event,
    Forward,
    JoinQueue,
    ReleaseLease,
    Reply,
    Report,
    Respond,
    SendBody,
    StreamEnded,
    TokensCounted,
    TurnedAway,
)
from extproc.exchange import Exchange
from extproc.tokenizer import CountTexts
from extproc.wire import build_response, parse_request
from headgate.transport import Call, RpcError, StatusCode

_log = logging.getLogger("headgate.extproc")


class RequestConversation:
    """The shell around one `Exchange`.

    Args:
        count: counts texts exactly.
        on_ended: told when the stream is over.
    """

    __slots__ = (
        "_call",
        "_clock",
        "_count",
        "_decision_seconds",
        "_desk",
        "_exchange",
        "_has_question",
        "_is_detached",
        "_is_interrupted",
        "_kept",
        "_on_ended",
        "_report",
        "_unanswered",
        "_waiting",
    )

    def __init__(
        self,
        exchange: Exchange,
        call: Call,
        desk: AdmissionDesk,
        *,
        count: CountTexts,
        report: Callable[[Decision, float], None],
        clock: Callable[[], float],
        on_ended: Callable[[RequestConversation], None],
    ) -> None:
        self._exchange = exchange
        self._call = call
        self._desk = desk
        self._count = count
        self._report = report
        self._clock = clock
        self._on_ended = on_ended
        self._kept: deque[bytes] | None = None
        self._waiting: Waiting | None = None
        self._has_question = False
        self._is_detached = False
        self._is_interrupted = False
        self._unanswered = 0
        self._decision_seconds = 0.0

    def receive(self, message: bytes) -> None:
        """Answer a message, now or once the open question is answered."""
        if not self._has_question:
            self._take(message)
            return
        if self._kept is None:
            self._kept = deque()
        self._kept.append(message)
        # Only a duplex body goes on while its first message waits.
        self._call.pause()

    def ended(self) -> None:
        """Leave the queue and give back what the request holds, unless it runs on without us."""
        self._on_ended(self)
        self._kept = None
        if self._waiting is not None:
            self._leave_queue()
        given_back = self._exchange.receive(_ENDED, self._clock())
        if not self._is_detached:
            self._perform(given_back)
        self._call.finish()

    def interrupt(self) -> None:
        """End soon: now, after the answer that is due, or once the request is decided; an open stream, when it ends.

        What was admitted runs on without us, and its lease with it: the store counts it until its time is over.
        """
        self._is_interrupted = True
        if self._exchange.is_decided and not self._exchange.is_detachable:
            return
        if self._unanswered:
            self._leave_queue()
            self._feed(TurnedAway("shutting_down"))
            self._call.finish()
        elif self._exchange.is_detachable:
            self._detach()

    def _detach(self) -> None:
        self._is_detached = True
        self._call.finish()

    # `_take` and `_feed` are the outermost frames of all that happens to a request: they never raise.

    def _take(self, message: bytes) -> None:
        self._unanswered += 1
        try:
            event = parse_request(message)
        except RpcError as error:
            self._call.finish(error.code, error.message)
        except Exception:  # noqa: BLE001  (an outermost frame)
            self._fail()
        else:
            self._feed(event)

    def _feed(self, event: Event) -> None:
        try:
            self._go_on(event)
        except Exception:  # noqa: BLE001  (an outermost frame)
            self._fail()
        if self._is_interrupted and self._exchange.is_detachable:
            self._detach()

    def _go_on(self, event: Event) -> None:
        started_at = self._clock()
        effects = self._exchange.receive(event, started_at)
        self._decision_seconds += self._clock() - started_at
        self._perform(effects)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            CARRY_OUT[type(effect)](self, effect)

    def _acquire(self, question: AcquireLease) -> None:
        self._has_question = True
        self._desk.acquire(question, self._answered)

    def _join_queue(self, question: JoinQueue) -> None:
        if self._is_interrupted:
            self._turn_away("shutting_down")
            return
        self._has_question = True
        self._waiting = self._desk.wait(question, self._answered) or self._waiting

    def _count_tokens(self, question: CountTokens) -> None:
        self._has_question = True
        self._count(question.path, question.texts, lambda tokens: self._answered(TokensCounted(tokens)))

    def _release(self, effect: ReleaseLease) -> None:
        self._desk.release(effect.lease)

    def _tell(self, effect: Report) -> None:
        self._report(effect.decision, self._decision_seconds)

    def _reply(self, reply: Reply) -> None:
        message = build_response(reply, self._decision_seconds)
        self._unanswered -= 1
        self._call.send(message)

    def _answered(self, answer: Answer | TokensCounted) -> None:
        """Go on with the desk's answer; when the stream is over by now, the exchange gives a lease back."""
        self._waiting = None
        self._has_question = False
        self._feed(answer)
        while self._kept and not self._has_question and self._call.is_open:
            self._take(self._kept.popleft())
        if self._kept is not None and not self._has_question:
            self._call.resume()

    def _leave_queue(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._has_question = False
            waiting.leave()

    def _fail(self) -> None:
        _log.exception("a decision failed")
        try:
            self._turn_away("internal_error")
        except Exception:  # noqa: BLE001  (an outermost frame's)
            _log.exception("a failed decision could not be answered")
        if self._unanswered:
            # An end without an error would let the request through unchecked.
            self._call.finish(StatusCode.INTERNAL, "the decision failed")
        self._call.finish()

    def _turn_away(self, reason: str) -> None:
        """Answer what still waits for an answer, so that the request does not pass unchecked, and end."""
        if self._unanswered:
            self._go_on(TurnedAway(reason))
        self._call.finish()


_ENDED = StreamEnded()
CARRY_OUT: Mapping[type[Effect], Callable[[RequestConversation, Any], None]] = {
    AcquireLease: RequestConversation._acquire,
    CountTokens: RequestConversation._count_tokens,
    JoinQueue: RequestConversation._join_queue,
    ReleaseLease: RequestConversation._release,
    Report: RequestConversation._tell,
    **dict.fromkeys((Continue, Forward, Respond, SendBody), RequestConversation._reply),
}
"""How each effect is carried out; a look-up, as to match the classes one by one takes longer than some of them."""
