"""YAML that every parser reads alike: a string stays a string for PyYAML (YAML 1.1), yaml-cpp and Go's readers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import yaml

# Everything else is quoted: `y`, `off`, `1e3` or `0x10` are booleans and numbers to some parser.
_PLAIN = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_./@-]*|\d+(?:\.\d+)?s)\Z")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})
_NAMED = re.compile(r"(?P<indent> *)- name: (?P<name>\S+)")
_UNLIMITED = 1 << 20


def dump(document: object, notes: Mapping[str, str] = MappingProxyType({})) -> str:
    """Write a document in block style, its keys in their order.

    Args:
        notes: name -> what to say, as a comment, above each list item that starts with `name: NAME`.
    """
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=_UNLIMITED, default_flow_style=False)
    return "".join(f"{line}\n" for line in _annotated(text.splitlines(), notes))


def comment(text: str, indent: str = "") -> str:
    """The text as YAML comment lines."""
    return "".join(f"{indent}# {line}".rstrip() + "\n" for line in text.splitlines())


def _annotated(lines: Iterable[str], notes: Mapping[str, str]) -> Iterator[str]:
    for line in lines:
        found = _NAMED.fullmatch(line)
        if found and (note := notes.get(found["name"])):
            yield comment(note, found["indent"]).rstrip("\n")
        yield line


class _Dumper(yaml.SafeDumper):
    """Indents lists under their key, and writes what occurs twice twice."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if text.endswith("\n") and text.replace("\n", "").isprintable():
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    is_plain = _PLAIN.match(text) and text.lower() not in _WORDS
    quotes = "'" if '"' in text and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else quotes)


_Dumper.add_representer(str, _string)
