"""A dict that is emptied rather than outgrown."""

from __future__ import annotations

from headgate.remembered import Remembered


def test_one_more_than_there_is_room_for_pushes_all_others_out() -> None:
    remembered: Remembered[str, int] = Remembered(2)
    remembered["a"], remembered["b"] = 1, 2
    assert remembered == {"a": 1, "b": 2}

    remembered["c"] = 3

    assert remembered == {"c": 3}


def test_what_is_there_already_needs_no_room() -> None:
    remembered: Remembered[str, int] = Remembered(2)
    remembered["a"], remembered["b"] = 1, 2

    remembered["a"] = 3

    assert remembered == {"a": 3, "b": 2}
