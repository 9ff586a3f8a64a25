"""One configuration file as the reference reads it: raw text, strict keys, its error texts.

Every reader reports what is wrong as a `Problem` and goes on with a harmless value, so that one pass finds all.
Knows which keys exist anywhere and which types there are; what they mean is `config`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeGuard

from headgate.errors import Problem
from headgate.yaml_tree import DocumentError, ListNode, MapNode, Node, ScalarNode
from ratelimit.limits import UINT32_MAX, Json
from ratelimit.nodes import parse, scalar_of
from ratelimit.scalars import Kind

KEYS = frozenset(
    (
        "descriptors",
        "detailed_metric",
        "domain",
        "headgate",
        "key",
        "metadata",
        "name",
        "quota_mode",
        "rate_limit",
        "replaces",
        "requests_per_unit",
        "shadow_mode",
        "share_threshold",
        "unit",
        "unlimited",
        "value",
        "value_to_metric",
    )
)
"""The keys a file may use. The reference does not mind where. `headgate` is ours, and so is what stands in it."""

_FREE = frozenset(("headgate", "metadata"))
"""Keys whose contents the reference's check does not look at."""

_LOAD_ERROR = "error loading config file: yaml:"
_MERGE = "<<"


class Value:
    """One value of a file; `problems` is shared by all values of a load. A missing value reads like null."""

    __slots__ = ("_line", "_node", "file", "path", "problems")

    def __init__(self, node: Node | None, file: str, path: str, line: int, problems: list[Problem]) -> None:
        self._node = node
        self._line = line
        self.file = file
        self.path = path
        self.problems = problems

    @property
    def is_null(self) -> bool:
        """Whether the value is absent, empty or `null`."""
        return self._node is None or (isinstance(self._node, ScalarNode) and scalar_of(self._node).kind is Kind.NULL)

    def report(self, message: str) -> None:
        """Note that this value is wrong."""
        self.problems.append(Problem(self.file, self._line, self.path, message))

    def expect_map(self, kind: str) -> None:
        """Report a value that is neither a mapping nor null; `kind` is the reference's name for the type."""
        if not isinstance(self._node, MapNode) and not self.is_null:
            self._mistyped(kind)

    def field(self, name: str) -> Value:
        """The value under a key of this mapping; with a key given twice the last counts, as in the reference."""
        found = None
        if isinstance(self._node, MapNode):
            found = next((node for key, node in reversed(list(_pairs(self._node))) if _is_key(key, name)), None)
        line = self._line if found is None else found.line
        return Value(found, self.file, f"{self.path}.{name}" if self.path else name, line, self.problems)

    def elements(self, kind: str) -> list[Value]:
        """The mappings in a list; none for null. What else is in it has been reported with the file's keys."""
        if isinstance(self._node, ListNode):
            return [
                Value(item, self.file, f"{self.path}[{index}]", item.line, self.problems)
                for index, item in enumerate(self._node.items)
                if isinstance(item, MapNode)
            ]
        if not self.is_null:
            self._mistyped(kind)
        return []

    def text(self) -> str:
        """A scalar's raw text, whatever it would resolve to (`007` stays "007"); "" for null."""
        if self.is_null:
            return ""
        if isinstance(self._node, ScalarNode):
            return self._node.text
        self._mistyped("string")
        return ""

    def flag(self) -> bool:
        """A YAML 1.1 boolean; False for null."""
        if isinstance(self._node, ScalarNode) and scalar_of(self._node).kind is Kind.BOOL:
            return bool(scalar_of(self._node).number)
        if not self.is_null:
            self._mistyped("bool")
        return False

    def count(self) -> int:
        """A whole number of 32 bits; 0 for null."""
        scalar = scalar_of(self._node) if isinstance(self._node, ScalarNode) else None
        if scalar is not None and scalar.kind is Kind.INT and 0 <= scalar.number <= UINT32_MAX:
            return scalar.number
        if not self.is_null:
            self._mistyped("uint32")
        return 0

    def number(self) -> float:
        """A number, whole or not; 0 for null."""
        if isinstance(self._node, ScalarNode) and scalar_of(self._node).kind in (Kind.INT, Kind.FLOAT):
            return _number(self._node)
        if not self.is_null:
            self._mistyped("float64")
        return 0.0

    def keys(self) -> list[tuple[str, Value]]:
        """This mapping's keys, as text, each with its value."""
        if not isinstance(self._node, MapNode):
            return []
        return [(key.text, self.field(key.text)) for key, _ in _pairs(self._node) if _is_text(key)]

    def json(self) -> Json:
        """The value as JSON knows it; what JSON does not know is reported."""
        try:
            return _json(self._node)
        except ValueError as error:
            self.report(f"error parsing metadata: {error}")
            return None

    @property
    def line(self) -> int:
        """Where it stands, 1-based."""
        return self._line

    def _mistyped(self, kind: str) -> None:
        shown = {ListNode: "!!seq", MapNode: "!!map"}.get(type(self._node), "")
        if isinstance(self._node, ScalarNode):
            shown = f"!!{scalar_of(self._node).kind} `{self._node.text}`"
        self.report(f"{_LOAD_ERROR} unmarshal errors: line {self._line}: cannot unmarshal {shown} into {kind}")


def read_document(text: bytes, file: str, problems: list[Problem]) -> Value | None:
    """A file's root with its keys checked; None when the text is not YAML, which is then among the problems."""
    try:
        root = parse(text)
    except DocumentError as error:
        place = f"line {error.line}: " if error.line else ""
        problems.append(Problem(file, error.line, "", f"{_LOAD_ERROR} {place}{error.message}"))
        return None
    line = root.line if root is not None else 0
    if isinstance(root, MapNode):
        problems += [Problem(file, at, "", message) for at, message in _Structure().faults(root)]
    return Value(root, file, "", line, problems)


class _Structure:
    """The reference's check of every key and list of a file; what several aliases share is checked once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def faults(self, root: MapNode) -> Iterator[tuple[int, str]]:
        if id(root) in self._seen:
            return
        self._seen.add(id(root))
        for key, value in _pairs(root):
            yield from self._key(key)
            if not (isinstance(key, ScalarNode) and key.text in _FREE):
                yield from self._value(value)

    def _key(self, key: Node) -> Iterator[tuple[int, str]]:
        if not isinstance(key, ScalarNode) or scalar_of(key).kind is not Kind.STR:
            yield key.line, f"config error, key is not of type string: {_shown(key)}"
        elif key.text not in KEYS:
            yield key.line, f"config error, unknown key '{key.text}'"

    def _value(self, value: Node) -> Iterator[tuple[int, str]]:
        match value:
            case MapNode():
                yield from self.faults(value)
            case ListNode(items=items):
                for item in items:
                    if isinstance(item, MapNode):
                        yield from self.faults(item)
                    else:
                        shown = _shown(item)
                        yield item.line, f"config error, yaml file contains list of type other than map: {shown}"
            case ScalarNode():
                if not scalar_of(value).is_checkable:
                    yield value.line, "error checking config"


def _pairs(node: MapNode) -> Iterator[tuple[Node, Node]]:
    """A mapping's pairs with `<<` merged in; what is merged comes first, so that the mapping's own keys win."""
    for key, value in node.pairs():
        if _is_key(key, _MERGE):
            for merged in reversed(value.items) if isinstance(value, ListNode) else [value]:
                if isinstance(merged, MapNode):
                    yield from _pairs(merged)
    yield from ((key, value) for key, value in node.pairs() if not _is_key(key, _MERGE))


def _is_key(node: Node, name: str) -> bool:
    return isinstance(node, ScalarNode) and scalar_of(node).kind is Kind.STR and node.text == name


def _is_text(node: Node) -> TypeGuard[ScalarNode]:
    return isinstance(node, ScalarNode) and scalar_of(node).kind is Kind.STR


def _number(node: ScalarNode) -> float:
    text = node.text.replace("_", "")
    return float(scalar_of(node).number if scalar_of(node).kind is Kind.INT else text.lower().replace(".inf", "inf"))


def _json(node: Node | None) -> Json:
    match node:
        case None:
            return None
        case ListNode(items=items):
            return [_json(item) for item in items]
        case MapNode():
            return _json_object(node)
        case ScalarNode():
            scalar = scalar_of(node)
            match scalar.kind:
                case Kind.NULL:
                    return None
                case Kind.BOOL:
                    return bool(scalar.number)
                case Kind.INT | Kind.FLOAT:
                    return _finite(node)
                case Kind.STR:
                    return scalar.text


def _json_object(node: MapNode) -> dict[str, Json]:
    members: dict[str, Json] = {}
    for key, value in _pairs(node):
        # The reference writes keys that are no strings as Go prints them: `y` is "true".
        members[_shown(key)] = _json(value)
    return members


def _finite(node: ScalarNode) -> float:
    number = _number(node) if node.text.strip("+-.").lower() not in ("inf", "nan") else math.nan
    if not math.isfinite(number):
        raise ValueError(f"no number in JSON: {node.text}")
    return number


def _shown(node: Node) -> str:
    match node:
        case ScalarNode():
            return scalar_of(node).shown
        case ListNode(items=items):
            return f"[{' '.join(map(_shown, items))}]"
        case MapNode():
            return f"map[{' '.join(f'{_shown(key)}:{_shown(value)}' for key, value in node.pairs())}]"
