"""Every error Headgate raises on purpose.

    HeadgateError
    ├── PolicyError        the policy file is wrong; carries every problem found in it
    ├── StoreUnavailable   the store gave no answer in time (the policy says what follows)
    └── SettingsError      a setting (environment or flag) cannot be used

Overload is never an exception: it is a verdict with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass


class HeadgateError(Exception):
    """Root of all errors raised on purpose."""


class SettingsError(HeadgateError):
    """Raised when a setting cannot be used."""


class StoreUnavailable(HeadgateError):  # noqa: N818  (the name of the event it becomes in the core)
    """Raised when the store did not answer within its deadline."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a configuration file.

    Attributes:
        file: the file's name as the operator wrote it.
        line: 1-based line of the offending value, 0 when the file as a whole is meant.
        path: dotted key path, for example `tenants.acme.tier`.
        message: what is wrong, in one sentence.
    """

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place} {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class PolicyError(HeadgateError):
    """Raised when a policy file cannot be used; lists all its problems, not just the first."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))
