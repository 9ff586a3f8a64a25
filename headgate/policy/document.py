"""The bytes of a YAML file -> its root node; a file that is no document is refused as a whole."""

from __future__ import annotations

import yaml
from yaml.composer import Composer
from yaml.reader import ReaderError

from headgate.errors import PolicyError, Problem
from headgate.policy.node import Node


class _Loader(Composer, yaml.CSafeLoader):
    """libyaml's parser, several times as fast as Python's, under Python's composer: no depth can crash that one."""

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)
        Composer.__init__(self)


def parse_document(text: bytes, file: str) -> Node:
    """Parse one YAML document.

    Raises:
        PolicyError: the bytes are not UTF-8, not YAML, nested too deeply, or hold no document or several.
    """
    try:
        root = _Loader(text.decode()).get_single_node()
    except UnicodeDecodeError as error:
        raise _unusable(file, _line_at(text, error.start), "is not UTF-8") from None
    except ReaderError as error:
        raise _unusable(file, _line_at(text, error.position), f"is not YAML: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = (error.context or "").partition(";")[0]
        what = f"{context}, {error.problem}" if context else error.problem
        raise _unusable(file, mark.line + 1 if mark else 0, f"is not YAML: {what}") from None
    except RecursionError:
        raise _unusable(file, 0, "is nested too deeply") from None
    if root is None:
        raise _unusable(file, 0, "is empty")
    return Node(root, file, "", [])


def _unusable(file: str, line: int, message: str) -> PolicyError:
    return PolicyError([Problem(file, line, "", message)])


def _line_at(text: bytes, position: int) -> int:
    return text.count(b"\n", 0, position) + 1
