"""The bytes of a YAML file -> its root node; a file that is no document is refused as a whole."""

from __future__ import annotations

from headgate.errors import PolicyError, Problem
from headgate.policy.node import Node
from headgate.yaml_tree import DocumentError, parse_tree


def parse_document(text: bytes, file: str) -> Node:
    """Parse one YAML document.

    Raises:
        PolicyError: the bytes are not UTF-8, not YAML, nested too deeply, or hold no document or several.
    """
    try:
        root = parse_tree(text.decode("utf-8-sig"), strict=True)
    except UnicodeDecodeError as error:
        raise _unusable(file, text.count(b"\n", 0, error.start) + 1, "is not UTF-8") from None
    except DocumentError as error:
        what = f"{error.context}, {error.message}" if error.context else error.message
        raise _unusable(file, error.line, f"is not YAML: {what}") from None
    if root is None:
        raise _unusable(file, 0, "is empty")
    return Node(root, file, "", [])


def _unusable(file: str, line: int, message: str) -> PolicyError:
    return PolicyError([Problem(file, line, "", message)])
