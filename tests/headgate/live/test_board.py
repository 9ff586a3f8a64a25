"""Sections are read when somebody looks, and not more often than they change for an eye."""

from __future__ import annotations

from headgate.live.board import REUSED_SECONDS, LiveBoard


def test_nothing_is_read_until_somebody_looks() -> None:
    read: list[str] = []
    board = LiveBoard(lambda: 0.0)

    board.show("tiers", lambda: read.append("tiers"))

    assert read == []
    assert board.snapshot() == {"tiers": None}
    assert read == ["tiers"]


def test_many_who_look_at_once_are_shown_the_same() -> None:
    now = [100.0]
    values = iter(range(10))
    board = LiveBoard(lambda: now[0])
    board.show("count", lambda: next(values))

    first, second = board.snapshot(), board.snapshot()
    now[0] += REUSED_SECONDS
    third = board.snapshot()

    assert (first, second, third) == ({"count": 0}, {"count": 0}, {"count": 1})


def test_a_section_put_up_later_is_shown_at_once() -> None:
    board = LiveBoard(lambda: 0.0)
    board.show("a", lambda: 1)
    board.snapshot()

    board.show("b", lambda: 2)

    assert board.snapshot() == {"a": 1, "b": 2}
