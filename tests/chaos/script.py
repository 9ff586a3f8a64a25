"""What the upstream is to do with a request, as its client writes it into a header."""

from __future__ import annotations

from enum import StrEnum

import msgspec

HEADER = "x-script"


class Act(StrEnum):
    """What becomes of one attempt."""

    ANSWER = "answer"
    FAIL = "fail"
    """A 503."""
    RESET = "reset"
    """The connection is cut instead of an answer."""
    CUT = "cut"
    """The connection is cut in the middle of the answer."""
    FALL_SILENT = "fall_silent"
    """Nothing comes any more, in the middle of the answer."""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One request's; the last act is repeated should there be more attempts.

    Attributes:
        request: its name, the same for all attempts.
        chunks: of the answer, `pace_seconds` apart.
    """

    request: str
    tenant: str
    tier: str
    acts: tuple[Act, ...] = (Act.ANSWER,)
    chunks: int = 3
    pace_seconds: float = 0.02

    def act(self, attempt: int) -> Act:
        """What to do at an attempt, counted from 0."""
        return self.acts[min(attempt, len(self.acts) - 1)]
