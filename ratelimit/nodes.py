"""A configuration file as a tree whose scalars are what the reference takes them for: the first document of a file.

Knows YAML, not what the keys mean.
"""

from __future__ import annotations

from functools import lru_cache

from headgate.yaml_tree import STR_TAG, DocumentError, Node, ScalarNode, parse_tree
from ratelimit.scalars import Kind, Scalar, resolve

_KEPT_SCALARS = 4096


def parse(text: bytes) -> Node | None:
    """The first document of a file; None when there is none.

    Raises:
        DocumentError: not UTF-8, or no document.
    """
    try:
        return parse_tree(text.decode("utf-8-sig"), strict=False)
    except UnicodeDecodeError as error:
        raise DocumentError(text.count(b"\n", 0, error.start) + 1, "invalid Unicode character") from None


def scalar_of(node: ScalarNode) -> Scalar:
    """What a scalar is to the reference."""
    return _scalar(node.text, is_text=node.tag == STR_TAG)


@lru_cache(_KEPT_SCALARS)
def _scalar(text: str, *, is_text: bool) -> Scalar:
    return Scalar(Kind.STR, text) if is_text else resolve(text)
