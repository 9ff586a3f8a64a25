"""The production trace: when requests came and how long prompts and answers were. It is data beside the checkout."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from headgate.errors import HeadgateError

DEFAULT_TRACE = Path("../shared/traces/azure_conv_2023.csv")
"""Relative to the checkout, where `make` runs."""


class TraceMissing(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when the trace is not where it should be, or is not one."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request; `at_seconds` counts from the first of the trace."""

    at_seconds: float
    prompt_tokens: int
    answer_tokens: int


def read_trace(path: Path) -> list[TraceRequest]:
    """The whole trace in order: a CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens.

    Raises:
        TraceMissing: there is no such file, or it has other columns.
    """
    try:
        with path.open(newline="") as file:
            rows = [(_moment(row["TIMESTAMP"]), row) for row in csv.DictReader(file)]
    except OSError as error:
        raise TraceMissing(
            f"{path}: {error.strerror}. This benchmark replays the Azure LLM inference trace of 2023 "
            "(AzureLLMInferenceTrace_conv.csv, CC-BY 4.0); put it there or pass --trace FILE."
        ) from None
    except KeyError as error:
        raise TraceMissing(f"{path}: no column {error}") from None
    if not rows:
        raise TraceMissing(f"{path}: no requests in it")
    first = rows[0][0]
    return [_request((moment - first).total_seconds(), row) for moment, row in rows]


def _moment(text: str) -> datetime:
    # The trace counts to 100 ns, datetime to 1 us.
    return datetime.fromisoformat(text[:26])


def _request(at_seconds: float, row: dict[str, str]) -> TraceRequest:
    return TraceRequest(at_seconds, max(1, int(row["ContextTokens"])), max(1, int(row["GeneratedTokens"])))
