"""What has been worked out before, by what it was worked out from; when it grows too much, all of it is forgotten."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Remembered(dict[Key, Value]):
    """A dict of at most so many entries: one more than that pushes all others out.

    What is still of use is soon worked out again, and to know what was of use last would cost every look-up.
    """

    __slots__ = ("_max_entries",)

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._max_entries = max_entries

    def __setitem__(self, key: Key, value: Value) -> None:
        if len(self) >= self._max_entries and key not in self:
            self.clear()
        super().__setitem__(key, value)
