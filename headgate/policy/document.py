"""A YAML document as nodes that know their place, read field by field into values.

Every reader reports what is wrong as a `Problem` with file, line and key path and goes on with a harmless value,
so that one pass finds all problems. Knows YAML; knows nothing of what the fields mean.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterator
from enum import StrEnum
from typing import TypeVar

import yaml

from headgate.errors import PolicyError, Problem

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
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_NULL_TAG = "tag:yaml.org,2002:null"


def parse_document(text: bytes, file: str) -> Node:
    """Parse one YAML document.

    Raises:
        PolicyError: the bytes are not UTF-8, not YAML, or hold no document or several.
    """
    try:
        root = yaml.compose(text.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise PolicyError([Problem(file, line, "", "is not UTF-8")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PolicyError([Problem(file, mark.line + 1 if mark else 0, "", f"is not YAML: {error.problem}")]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise PolicyError([Problem(file, 0, "", f"is not YAML: {error}")]) from None
    if root is None:
        raise PolicyError([Problem(file, 0, "", "is empty")])
    return Node(root, file, "", [])


class Node:
    """One value of the document; `problems` is shared by all nodes of a document."""

    __slots__ = ("_node", "file", "path", "problems")

    def __init__(self, node: yaml.Node, file: str, path: str, problems: list[Problem]) -> None:
        self._node = node
        self.file = file
        self.path = path
        self.problems = problems

    @property
    def line(self) -> int:
        """1-based."""
        return int(self._node.start_mark.line) + 1

    @property
    def is_text(self) -> bool:
        """Whether the value is one scalar."""
        return isinstance(self._node, yaml.ScalarNode)

    @property
    def is_null(self) -> bool:
        """Whether the value is absent or `null`."""
        return self._node.tag == _NULL_TAG

    def silent(self) -> Node:
        """The same value with a list of problems of its own, for a first look ahead of the real reading."""
        return Node(self._node, self.file, self.path, [])

    def report(self, message: str) -> None:
        """Note that this value is wrong."""
        self.problems.append(Problem(self.file, self.line, self.path, message))

    def named(self) -> Iterator[tuple[str, Node]]:
        """The entries of a mapping whose keys are names; keys keep their raw text (`no` stays "no")."""
        if self.is_null:
            return
        if not isinstance(self._node, yaml.MappingNode):
            self.report(f"has to be a mapping, not {self._kind}")
            return
        seen: set[str] = set()
        for key, value in self._node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            child = Node(value, self.file, f"{self.path}.{name}" if self.path else name, self.problems)
            if not isinstance(key, yaml.ScalarNode):
                child.report("a key has to be plain text")
            elif name in seen:
                self.problems.append(Problem(self.file, int(key.start_mark.line) + 1, child.path, "stands twice"))
            else:
                seen.add(name)
                yield name, child

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
        if isinstance(self._node, yaml.MappingNode) or self.is_null:
            for name in required:
                if name not in found:
                    self.report(f"'{name}' is missing")
        return found

    def elements(self) -> list[Node]:
        """The items of a list."""
        if not isinstance(self._node, yaml.SequenceNode):
            self.report(f"has to be a list, not {self._kind}")
            return []
        items = enumerate(self._node.value)
        return [Node(item, self.file, f"{self.path}[{index}]", self.problems) for index, item in items]

    def text(self, pattern: str = r"(?s:.+)", meaning: str = "non-empty text") -> str:
        """A scalar as raw text that matches `pattern` in full; "" when wrong."""
        if not isinstance(self._node, yaml.ScalarNode) or self.is_null:
            self.report(f"has to be {meaning}, not {self._kind}")
            return ""
        value = str(self._node.value)
        if not re.fullmatch(pattern, value):
            self.report(f"has to be {meaning}, not '{value}'")
            return ""
        return value

    def integer(self, minimum: int = 0, maximum: int = 2**53) -> int:
        """A whole number; `2_000_000` may be written so. `minimum` when wrong."""
        value = self._scalar()
        if isinstance(value, bool) or not isinstance(value, int):
            self.report(f"has to be a whole number, not {self._shown}")
            return minimum
        return int(self._within(value, minimum, maximum))

    def number(self, minimum: float = 0.0, maximum: float = float("inf")) -> float:
        """Any finite number; `minimum` when wrong."""
        value = self._scalar()
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            self.report(f"has to be a number, not {self._shown}")
            return minimum
        return self._within(value, minimum, maximum)

    def boolean(self) -> bool:
        """`true` or `false`; False when wrong."""
        value = self._scalar()
        if not isinstance(value, bool):
            self.report(f"has to be true or false, not {self._shown}")
            return False
        return value

    def seconds(self) -> float:
        """A duration with its unit: `200ms`, `2s`, `5m`, `1h`; 0.0 when wrong."""
        return self._quantity(_SECONDS, "a duration such as 200ms, 2s or 5m") or 0.0

    def size_bytes(self) -> int:
        """A size: bytes, or with a unit such as `64KiB` or `8MiB`; 0 when wrong."""
        return int(self._quantity(_BYTES, "a size such as 64KiB or 8MiB") or 0)

    def choice(self, kind: type[Choice], default: Choice) -> Choice:
        """One word of a closed set; `default` when wrong."""
        value = str(self._node.value) if isinstance(self._node, yaml.ScalarNode) else ""
        try:
            return kind(value)
        except ValueError:
            self.report(f"has to be one of {', '.join(kind)}, not {self._shown}")
            return default

    def reference(self, kind: str, names: Container[str]) -> str:
        """A name that has to be among `names`; "" when it is not."""
        value = self.text(meaning=f"the name of a {kind}")
        if value and value not in names:
            self.report(f"no {kind} named '{value}'")
            return ""
        return value

    def _quantity(self, units: dict[str, float] | dict[str, int], meaning: str) -> float | None:
        value = str(self._node.value) if isinstance(self._node, yaml.ScalarNode) else ""
        match = _QUANTITY.fullmatch(value.replace("_", ""))
        if match is None or match[2] not in units:
            self.report(f"has to be {meaning}, not {self._shown}")
            return None
        return float(match[1]) * units[match[2]]

    def _within(self, value: float, minimum: float, maximum: float) -> float:
        if not minimum <= value <= maximum:
            limit = f"at least {minimum}" if value < minimum else f"at most {maximum}"
            self.report(f"has to be {limit}, not {self._shown}")
            return minimum
        return value

    def _scalar(self) -> object:
        if not isinstance(self._node, yaml.ScalarNode):
            return None
        try:
            return yaml.SafeLoader("").construct_object(self._node)
        except (ValueError, yaml.YAMLError):
            return None

    @property
    def _kind(self) -> str:
        if self.is_null:
            return "nothing"
        if isinstance(self._node, yaml.ScalarNode):
            return f"'{self._node.value}'"
        return "a mapping" if isinstance(self._node, yaml.MappingNode) else "a list"

    @property
    def _shown(self) -> str:
        return self._kind if not self.is_text else f"'{self._node.value}'"
