"""The `overrides` of a route: decoding parameters by OpenAI's names, each with its type and range."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from headgate.policy.model import Decoding
from headgate.policy.node import Node

_EFFORT = "none|minimal|low|medium|high|xhigh|max"
_READERS: Mapping[str, Callable[[Node], Decoding]] = {
    "temperature": lambda node: node.number(0, 2),
    "top_p": lambda node: node.number(0.000001, 1),
    "top_k": lambda node: node.integer(1, 1_000_000),
    "min_p": lambda node: node.number(0, 1),
    "presence_penalty": lambda node: node.number(-2, 2),
    "frequency_penalty": lambda node: node.number(-2, 2),
    "repetition_penalty": lambda node: node.number(0.01, 10),
    "seed": lambda node: node.integer(0, 2**63 - 1),
    "stop": lambda node: tuple(element.text() for element in node.elements(empty="names no text")),
    "reasoning_effort": lambda node: node.text(_EFFORT, f"one of {_EFFORT.replace('|', ', ')}"),
}


def read_overrides(node: Node) -> Mapping[str, Decoding]:
    """Name -> value, in the order of the file."""
    fields = node.fields(*_READERS)
    return MappingProxyType({name: _READERS[name](value) for name, value in fields.items()})
