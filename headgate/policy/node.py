"""One value of a YAML document that knows its place, read field by field into values.

Every reader reports what is wrong as a `Problem` with file, line and key path and goes on with a harmless value,
so that one pass finds all problems. Knows YAML; knows nothing of what the fields mean.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Container, Iterator, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

import yaml
from yaml.constructor import SafeConstructor

from headgate.errors import Problem
from headgate.yaml_tree import STR_TAG, ListNode, MapNode, ScalarNode
from headgate.yaml_tree import Node as TreeNode

Choice = TypeVar("Choice", bound=StrEnum)

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {
    "": 1,
    "B": 1,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]*)")
_NULL_TAG = "tag:yaml.org,2002:null"
_SCALARS = {
    "tag:yaml.org,2002:int": SafeConstructor.construct_yaml_int,
    "tag:yaml.org,2002:float": SafeConstructor.construct_yaml_float,
    "tag:yaml.org,2002:bool": SafeConstructor.construct_yaml_bool,
}
_IMPLICIT = yaml.SafeLoader.yaml_implicit_resolvers
_KEPT_LOOKS = 4096
_MAX_SHOWN_CHARACTERS = 128


class Node:
    """One value of the document; `problems` is shared by all nodes of a document.

    `line` is 1-based: a scalar's own, and the one of its key for what spreads over the lines below it.
    """

    __slots__ = ("_node", "file", "line", "path", "problems")

    def __init__(
        self, node: TreeNode, file: str, path: str, problems: list[Problem], key: TreeNode | None = None
    ) -> None:
        self._node = node
        self.file = file
        self.path = path
        self.problems = problems
        self.line = (node if key is None or isinstance(node, ScalarNode) else key).line

    @property
    def is_text(self) -> bool:
        """Whether the value is one scalar."""
        return isinstance(self._node, ScalarNode)

    @property
    def is_mapping(self) -> bool:
        """Whether the value is a mapping; an absent one counts as empty."""
        return isinstance(self._node, MapNode) or self.is_null

    @property
    def is_null(self) -> bool:
        """Whether the value is absent or `null`."""
        return isinstance(self._node, ScalarNode) and _tag(self._node) == _NULL_TAG

    def silent(self) -> Node:
        """The same value with a list of problems of its own, for a first look ahead of the real reading."""
        return Node(self._node, self.file, self.path, [])

    def report(self, message: str) -> None:
        """Note that this value is wrong."""
        self.problems.append(Problem(self.file, self.line, self.path, message))

    def named(self, *, empty: str = "") -> Iterator[tuple[str, Node]]:
        """The entries of a mapping whose keys are names; keys keep their raw text (`no` stays "no").

        A mapping without entries is wrong when `empty` says so.
        """
        if not isinstance(self._node, MapNode):
            if not self.is_null:
                self.report(f"has to be a mapping, not {self._shown}")
            elif empty:
                self.report(empty)
            return
        if empty and not self._node.flat:
            self.report(empty)
        seen: set[str] = set()
        for key, value in self._node.pairs():
            name = key.text if isinstance(key, ScalarNode) else "?"
            path = f"{self.path}.{_printable(name)}" if self.path else _printable(name)
            if not isinstance(key, ScalarNode):
                self.problems.append(Problem(self.file, key.line, path, "a key has to be plain text"))
            elif name in seen:
                self.problems.append(Problem(self.file, key.line, path, "stands twice"))
            else:
                seen.add(name)
                yield name, Node(value, self.file, path, self.problems, key)

    def fields(self, *allowed: str, required: tuple[str, ...] = ()) -> dict[str, Node]:
        """The entries of a mapping with a fixed set of keys; unknown and missing ones are reported."""
        known = (*required, *allowed)
        found: dict[str, Node] = {}
        for name, child in self.named():
            if name in known:
                found[name] = child
            else:
                close = difflib.get_close_matches(name, known, n=1)
                child.report(f"unknown key; did you mean '{close[0]}'?" if close else "unknown key")
        self.require(found, required)
        return found

    def require(self, found: Mapping[str, Node], names: tuple[str, ...]) -> None:
        """Report each of `names` that the mapping does not hold; what is no mapping has been reported before."""
        if self.is_mapping:
            for name in names:
                if name not in found:
                    self.report(f"'{name}' is missing")

    def elements(self, *, empty: str = "") -> list[Node]:
        """The items of a list. A list without items is wrong when `empty` says so."""
        if not isinstance(self._node, ListNode):
            self.report(f"has to be a list, not {self._shown}")
            return []
        if empty and not self._node.items:
            self.report(empty)
        items = enumerate(self._node.items)
        return [Node(item, self.file, f"{self.path}[{index}]", self.problems) for index, item in items]

    def text(self, pattern: str = r"(?s:.+)", meaning: str = "non-empty text") -> str:
        """A scalar as raw text that matches `pattern` in full; "" when wrong."""
        if isinstance(self._node, ScalarNode) and not self.is_null:
            value = self._node.text
            if re.fullmatch(pattern, value):
                return value
        self.report(f"has to be {meaning}, not {self._shown}")
        return ""

    def integer(self, minimum: int = 0, maximum: int = 2**53) -> int:
        """A whole number; `2_000_000` may be written so. `minimum` when wrong."""
        value = self._scalar()
        if isinstance(value, bool) or not isinstance(value, int):
            self.report(f"has to be a whole number, not {self._shown}")
            return minimum
        return int(self._within(value, minimum, maximum))

    def number(self, minimum: float = 0, maximum: float = math.inf) -> float:
        """Any finite number; `minimum` when wrong."""
        value = self._scalar()
        number = _finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        if number is None:
            self.report(f"has to be a number, not {self._shown}")
            return minimum
        return self._within(number, minimum, maximum)

    def boolean(self) -> bool:
        """`true` or `false`; False when wrong."""
        value = self._scalar()
        if not isinstance(value, bool):
            self.report(f"has to be true or false, not {self._shown}")
            return False
        return value

    def seconds(self) -> float:
        """A duration with its unit: `200ms`, `2s`, `5m`, `1h`; 0.0 when wrong."""
        return self._quantity(_SECONDS, "a duration such as 200ms, 2s or 5m")

    def size_bytes(self) -> int:
        """A size: bytes, or with a unit such as `64KiB` or `8MiB`; 0 when wrong."""
        return int(self._quantity(_BYTES, "a size such as 64KiB or 8MiB"))

    def choice(self, kind: type[Choice]) -> Choice | None:
        """One word of a closed set; None when wrong."""
        value = self._node.text if isinstance(self._node, ScalarNode) else ""
        try:
            return kind(value)
        except ValueError:
            self.report(f"has to be one of {', '.join(kind)}, not {self._shown}")
            return None

    def reference(self, kind: str, names: Container[str] | None) -> str:
        """A name that has to be among `names` (None: nobody knows them, any will do); "" when it is not."""
        value = self.text(meaning=f"the name of a {kind}")
        if value and names is not None and value not in names:
            self.report(f"no {kind} named {self._shown}")
            return ""
        return value

    def _quantity(self, units: Mapping[str, float], meaning: str) -> float:
        value = self._node.text if isinstance(self._node, ScalarNode) else ""
        match = _QUANTITY.fullmatch(value.replace("_", ""))
        if match is None or match[2] not in units:
            self.report(f"has to be {meaning}, not {self._shown}")
            return 0.0
        return float(match[1]) * units[match[2]]

    def _within(self, value: float, minimum: float, maximum: float) -> float:
        if not minimum <= value <= maximum:
            limit = f"at least {minimum}" if value < minimum else f"at most {maximum}"
            self.report(f"has to be {limit}, not {self._shown}")
            return minimum
        return value

    def _scalar(self) -> object:
        if not isinstance(self._node, ScalarNode):
            return None
        tag = _tag(self._node)
        construct = _SCALARS.get(tag)
        if construct is None:
            return None
        try:
            return construct(SafeConstructor(), yaml.ScalarNode(tag, self._node.text))
        except (ValueError, LookupError):
            # A tag that the value does not bear out, such as `!!int soon`.
            return None

    @property
    def _shown(self) -> str:
        if self.is_null:
            return "nothing"
        if isinstance(self._node, ScalarNode):
            return f"'{_printable(self._node.text)}'"
        return "a mapping" if isinstance(self._node, MapNode) else "a list"


def optional_integer(fields: Mapping[str, Node], key: str, *, minimum: int = 0, maximum: int = 2**53) -> int | None:
    """The whole number under `key`; None where the key is absent."""
    return fields[key].integer(minimum, maximum) if key in fields else None


def _tag(node: ScalarNode) -> str:
    return node.tag or _look_of(node.text)


@lru_cache(_KEPT_LOOKS)
def _look_of(text: str) -> str:
    """What a plain scalar is by YAML 1.1, as PyYAML reads it."""
    patterns: list[tuple[str, re.Pattern[str]]] = _IMPLICIT.get(text[:1], [])
    return next((tag for tag, pattern in patterns if pattern.match(text)), STR_TAG)


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _printable(text: str) -> str:
    """At most one short line, so that a message stays one."""
    short = text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[: _MAX_SHOWN_CHARACTERS - 3]}..."
    return short if short.isprintable() else "".join(c if c.isprintable() else " " for c in short)
