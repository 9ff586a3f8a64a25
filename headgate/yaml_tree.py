"""A YAML document as a lean tree: raw text, tags and lines, aliases resolved. Knows YAML, not what anything means.

Built from libyaml's events with a stack of its own, so that no file can exhaust the interpreter's; equal texts are
kept once, so that a file of 100,000 like entries takes a fraction of what PyYAML's own nodes take.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml
from yaml.reader import ReaderError

MAX_DEPTH = 100
STR_TAG = "tag:yaml.org,2002:str"
_BINARY_TAG = "tag:yaml.org,2002:binary"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(Exception):
    """Raised when the text is no YAML document.

    Attributes:
        line: 1-based; 0 when unknown.
        context: what was being read; empty when there is nothing to say.
    """

    def __init__(self, line: int, message: str, context: str = "") -> None:
        self.line = line
        self.message = message
        self.context = context
        super().__init__(message)


@dataclass(slots=True)
class ScalarNode:
    """One scalar.

    Attributes:
        tag: None for plain text, which is what it looks like; `STR_TAG` for quoted text.
    """

    line: int
    text: str
    tag: str | None


@dataclass(slots=True)
class ListNode:
    """One sequence."""

    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class MapNode:
    """One mapping; a key may be any node and may stand twice.

    Attributes:
        flat: key, value, key, value... in file order.
    """

    line: int
    flat: list[Node] = field(default_factory=list)

    def pairs(self) -> Iterator[tuple[Node, Node]]:
        """Keys with their values, in file order."""
        nodes = iter(self.flat)
        return zip(nodes, nodes, strict=True)


Node = ScalarNode | ListNode | MapNode


def parse_tree(text: str, *, strict: bool) -> Node | None:
    """The first document of a file; None when there is none.

    Args:
        strict: a second document, or an anchor that is defined twice, is an error.

    Raises:
        DocumentError: not YAML, an unknown or self-containing anchor, or nested over 100 levels deep.
    """
    try:
        return _Builder(text, strict=strict).document()
    except ReaderError as error:
        raise DocumentError(text.encode().count(b"\n", 0, error.position) + 1, error.reason) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = (error.context or "").partition(";")[0]
        raise DocumentError(mark.line + 1 if mark else 0, str(error.problem), context) from None
    except yaml.YAMLError as error:
        raise DocumentError(0, str(error).partition("\n")[0]) from None


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    node: ListNode | MapNode
    children: list[Node]
    anchor: str | None


class _Builder:
    def __init__(self, text: str, *, strict: bool) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._strict = strict
        self._anchors: dict[str, Node] = {}
        self._stack: list[_Open] = []
        self._texts: dict[str, str] = {}
        self._line = 0
        self._root: Node | None = None

    def document(self) -> Node | None:
        for event in self._events:
            self._take(event)
            if isinstance(event, yaml.DocumentEndEvent):
                break
        if self._strict:
            self._expect_end()
        return self._root

    def _expect_end(self) -> None:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise DocumentError(line, "expected a single document in the stream, but found another document")

    def _take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if line == self._line:
            line = self._line  # one number for all nodes of a line
        self._line = line
        match event:
            case yaml.ScalarEvent():
                self._finish(self._scalar(event, line), event.anchor)
            case yaml.AliasEvent():
                self._finish(self._aliased(str(event.anchor), line), None)
            case yaml.SequenceStartEvent():
                sequence = ListNode(line)
                self._open(_Open(sequence, sequence.items, event.anchor))
            case yaml.MappingStartEvent():
                mapping = MapNode(line)
                self._open(_Open(mapping, mapping.flat, event.anchor))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                ended = self._stack.pop()
                self._finish(ended.node, ended.anchor)
            case _:
                pass

    def _open(self, opened: _Open) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise DocumentError(opened.node.line, f"nested over {MAX_DEPTH} levels deep")
        self._stack.append(opened)

    def _finish(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            if self._strict and anchor in self._anchors:
                raise DocumentError(self._line, "second occurrence", f"found duplicate anchor '{anchor}'")
            self._anchors[anchor] = node
        if self._stack:
            self._stack[-1].children.append(node)
        else:
            self._root = node

    def _aliased(self, anchor: str, line: int) -> Node:
        if any(anchor == ancestor.anchor for ancestor in self._stack):
            raise DocumentError(line, f"anchor '{anchor}' value contains itself")
        if anchor not in self._anchors:
            raise DocumentError(line, f"unknown anchor '{anchor}' referenced")
        return self._anchors[anchor]

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> ScalarNode:
        if event.tag == _BINARY_TAG:
            return ScalarNode(line, _decoded(event.value, line), STR_TAG)
        text = self._texts.setdefault(event.value, event.value)
        is_plain, is_quoted = event.implicit
        if is_quoted or (event.tag == STR_TAG and not is_plain):
            return ScalarNode(line, text, STR_TAG)
        return ScalarNode(line, text, event.tag)


def _decoded(text: str, line: int) -> str:
    try:
        return b64decode("".join(text.split()), validate=True).decode(errors="replace")
    except ValueError:
        raise DocumentError(line, "!!binary value contains invalid base64 data") from None
