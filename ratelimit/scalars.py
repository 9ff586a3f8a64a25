"""What a scalar of a YAML file is to the reference, which reads YAML 1.1 its own way (Go's yaml.v2).

PyYAML resolves scalars differently (`1e3`, `y`, `1:30`, dates), so kinds are found here from the raw text. Knows
single scalars only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_INT64_MAX = 2**63 - 1
_UINT64_MAX = 2**64 - 1
_LONGEST_NUMBER = 80
"""Characters; no 64-bit number in any base has more."""

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")


class Kind(StrEnum):
    """YAML's types, by the last part of their tags."""

    NULL = "null"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STR = "str"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One scalar: its raw text, and what it resolves to.

    Attributes:
        number: the value of an INT; 0 or 1 for a BOOL.
    """

    kind: Kind
    text: str
    number: int = 0

    @property
    def is_checkable(self) -> bool:
        """Whether the reference accepts such a scalar anywhere in its files; it knows no fractions."""
        return self.kind is not Kind.FLOAT and self.number <= _INT64_MAX

    @property
    def shown(self) -> str:
        """The value as the reference prints it."""
        match self.kind:
            case Kind.BOOL:
                return "true" if self.number else "false"
            case Kind.INT:
                return str(self.number)
            case Kind.NULL:
                return "<nil>"
            case Kind.FLOAT | Kind.STR:
                return self.text


def resolve(text: str) -> Scalar:
    """What a plain (unquoted, untagged) scalar is."""
    if text in _NULLS:
        return Scalar(Kind.NULL, text)
    if text in _TRUE or text in _FALSE:
        return Scalar(Kind.BOOL, text, int(text in _TRUE))
    digits = text.replace("_", "")
    number = _integer(digits)
    if number is not None and -_INT64_MAX - 1 <= number <= _UINT64_MAX:
        return Scalar(Kind.INT, text, number)
    if _SPECIAL_FLOAT.fullmatch(text) or _FLOAT.fullmatch(digits):
        return Scalar(Kind.FLOAT, text)
    return Scalar(Kind.STR, text)


def _integer(digits: str) -> int | None:
    found = _INTEGER.fullmatch(digits) if len(digits) <= _LONGEST_NUMBER else None
    if found is None:
        return None
    sign, hexadecimal, binary, octal, decimal = found.groups()
    for digits_of_base, base in ((hexadecimal, 16), (binary, 2), (octal, 8), (decimal, 10)):
        if digits_of_base is not None:
            return int(sign + digits_of_base, base)
    return None
