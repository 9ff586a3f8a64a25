"""What became of one request, as its client saw it. Simulated seconds since the start of the run, unless named wall."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Ending(StrEnum):
    """How a request ended.

    CUT: the run was over before it was; whatever it had received by then counts.
    """

    COMPLETED = "completed"
    REFUSED = "refused"
    GAVE_UP = "gave_up"
    CUT = "cut"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request's story.

    Attributes:
        status: of the response; 0 when there was none.
        reason: why it was refused, as the gateway says it; "" otherwise.
        decision: the verdict in `x-headgate-decision`; "" where there is none.
        first_token_seconds: when its first token came; None if none came.
        progress: (when, tokens received so far), one per piece of the stream.
        answered_wall_ms: real milliseconds from sending it to the end of its response.
        late_wall_ms: real milliseconds it was sent after it was due, the client's own fault.
    """

    number: int
    tier: str
    tenant: str
    due_seconds: float
    prompt_tokens: int
    ending: Ending
    status: int = 0
    reason: str = ""
    decision: str = ""
    first_token_seconds: float | None = None
    progress: list[tuple[float, int]] = field(default_factory=list)
    answered_wall_ms: float = 0.0
    late_wall_ms: float = 0.0

    @property
    def ttft_seconds(self) -> float | None:
        """From when it was due to its first token; None if none came."""
        return None if self.first_token_seconds is None else self.first_token_seconds - self.due_seconds

    @property
    def is_served(self) -> bool:
        """Whether it was answered, or was being answered when the run was over."""
        return self.first_token_seconds is not None and self.ending in (Ending.COMPLETED, Ending.CUT)

    @property
    def answer_tokens(self) -> int:
        """Tokens received in all."""
        return self.progress[-1][1] if self.progress else 0


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of a run: from `start` to before `end`, simulated seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start

    def holds(self, moment: float) -> bool:
        """Whether a moment is inside."""
        return self.start <= moment < self.end

    def overlap(self, start: float, end: float) -> float:
        """How many seconds of [start, end) are inside."""
        return max(0.0, min(end, self.end) - max(start, self.start))
