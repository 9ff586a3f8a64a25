"""Environment variables in the reference's syntax, each read as the type it has to be. Knows no name of any."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from headgate.errors import SettingsError
from ratelimit.durations import parse_bool, parse_duration

Value = TypeVar("Value")


class Environment:
    """The variables; an empty one counts as unset.

    Every reader raises `SettingsError` for a value it cannot use.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def has(self, *names: str) -> bool:
        """Whether any of them is set."""
        return any(self._variables.get(name) for name in names)

    def text(self, name: str, default: str = "") -> str:
        """The raw value."""
        return self._variables.get(name) or default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A Go boolean."""
        return self._read(name, default, parse_bool)

    def count(self, name: str, default: int) -> int:
        """A whole number, 0 or more."""
        return self._read(name, default, _whole_number)

    def seconds(self, name: str, default: float) -> float:
        """A Go duration, 0 or more."""
        return self._read(name, default, _not_negative(parse_duration))

    def ratio(self, name: str, default: float) -> float:
        """A number from 0 to 1."""
        return self._read(name, default, _ratio)

    def pairs(self, name: str, separators: str = ":") -> Mapping[str, str]:
        """Names and values, `a:b,c:d`; any one of the separators may stand between the two."""
        return self._read(name, MappingProxyType({}), _pairs(separators))

    def _read(self, name: str, default: Value, parse: Callable[[str], Value]) -> Value:
        text = self._variables.get(name)
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from None


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"has to be a whole number, not '{text}'")
    return int(text)


def _ratio(text: str) -> float:
    number = float(text)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"has to be between 0 and 1, not '{text}'")
    return number


def _pairs(separators: str) -> Callable[[str], Mapping[str, str]]:
    form = re.compile(f"([^{separators}]+)[{separators}](.*)")

    def parse(text: str) -> Mapping[str, str]:
        found = [form.fullmatch(part.strip()) for part in text.split(",")]
        pairs = {match[1]: match[2] for match in found if match is not None}
        if None in found:
            raise ValueError(f"has to be name{separators[0]}value,name{separators[0]}value, not '{text}'")
        return MappingProxyType(pairs)

    return parse


def _not_negative(parse: Callable[[str], float]) -> Callable[[str], float]:
    def checked(text: str) -> float:
        number = parse(text)
        if number < 0:
            raise ValueError(f"has to be 0 or more, not '{text}'")
        return number

    return checked
