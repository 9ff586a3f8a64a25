"""A YAML document as a tree that keeps raw text and lines: the first document of a file, aliases resolved.

Built from the parser's events with a stack of its own, so that no file can exhaust the interpreter's.
Knows YAML, not what the keys mean.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from ratelimit.scalars import Kind, Scalar, resolve

_MAX_DEPTH = 100
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR_TAG = "tag:yaml.org,2002:str"
_BINARY_TAG = "tag:yaml.org,2002:binary"


class DocumentError(Exception):
    """Raised when the text is no YAML document; `line` is 1-based, 0 when unknown."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One scalar."""

    line: int
    scalar: Scalar


@dataclass(frozen=True, slots=True)
class ListNode:
    """One sequence."""

    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MapNode:
    """One mapping, in file order; a key may be any node and may stand twice."""

    line: int
    pairs: list[tuple[Node, Node]] = field(default_factory=list)


Node = ScalarNode | ListNode | MapNode


def parse(text: bytes) -> Node | None:
    """The first document of a file; None when there is none.

    Raises:
        DocumentError: not UTF-8, not YAML, an unknown or self-containing anchor, or nested over 100 levels deep.
    """
    try:
        return _Builder(text.decode("utf-8-sig")).document()
    except UnicodeDecodeError as error:
        raise DocumentError(text.count(b"\n", 0, error.start) + 1, "invalid Unicode character") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(mark.line + 1 if mark else 0, str(error.problem)) from None
    except yaml.YAMLError as error:
        raise DocumentError(0, str(error).partition("\n")[0]) from None


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    node: ListNode | MapNode
    anchor: str | None
    key: Node | None = None

    def add(self, child: Node) -> None:
        if isinstance(self.node, ListNode):
            self.node.items.append(child)
        elif self.key is None:
            self.key = child
        else:
            self.node.pairs.append((self.key, child))
            self.key = None


class _Builder:
    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, Node] = {}
        self._stack: list[_Open] = []
        self._root: Node | None = None

    def document(self) -> Node | None:
        for event in self._events:
            if isinstance(event, yaml.DocumentEndEvent):
                break
            self._take(event)
        return self._root

    def _take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case yaml.ScalarEvent():
                self._finish(ScalarNode(line, _scalar(event, line)), event.anchor)
            case yaml.AliasEvent():
                self._finish(self._aliased(str(event.anchor), line), None)
            case yaml.SequenceStartEvent():
                self._open(ListNode(line), event.anchor)
            case yaml.MappingStartEvent():
                self._open(MapNode(line), event.anchor)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                ended = self._stack.pop()
                self._finish(ended.node, ended.anchor)
            case _:
                pass

    def _open(self, node: ListNode | MapNode, anchor: str | None) -> None:
        if len(self._stack) >= _MAX_DEPTH:
            raise DocumentError(node.line, f"nested over {_MAX_DEPTH} levels deep")
        self._stack.append(_Open(node, anchor))

    def _finish(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if self._stack:
            self._stack[-1].add(node)
        else:
            self._root = node

    def _aliased(self, anchor: str, line: int) -> Node:
        if any(anchor == ancestor.anchor for ancestor in self._stack):
            raise DocumentError(line, f"anchor '{anchor}' value contains itself")
        if anchor not in self._anchors:
            raise DocumentError(line, f"unknown anchor '{anchor}' referenced")
        return self._anchors[anchor]


def _scalar(event: yaml.ScalarEvent, line: int) -> Scalar:
    if event.tag == _BINARY_TAG:
        return Scalar(Kind.STR, _decoded(event.value, line))
    is_plain, is_quoted = event.implicit
    if is_quoted or (event.tag == _STR_TAG and not is_plain):
        return Scalar(Kind.STR, event.value)
    return resolve(event.value)


def _decoded(text: str, line: int) -> str:
    try:
        return b64decode("".join(text.split()), validate=True).decode(errors="replace")
    except ValueError:
        raise DocumentError(line, "!!binary value contains invalid base64 data") from None
