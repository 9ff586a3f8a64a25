"""YAML no parser misreads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from string import printable

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headgate_cli.render.yaml_text import comment, dump

TREACHEROUS = [
    "y",
    "N",
    "on",
    "Off",
    "yes",
    "null",
    "~",
    "1e3",
    "0x10",
    "1_000",
    "010",
    ".5",
    "1:30",
    "",
    "NaN",
    ".inf",
    "=",
    "<<",
]

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(printable) | st.sampled_from(TREACHEROUS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(printable, min_size=1), inner),
)


@given(documents)
def test_what_is_written_is_read_back(document: object) -> None:
    assert yaml.safe_load(dump(document)) == document


@pytest.mark.parametrize("text", TREACHEROUS)
def test_a_string_that_looks_like_something_else_is_quoted(text: str) -> None:
    assert dump({"key": text}) == f'key: "{text}"\n'


@pytest.mark.parametrize("text", ["envoy.filters.http.ext_proc", "0.250s", "type.googleapis.com/envoy.v3.X", "SEND"])
def test_a_string_that_cannot_be_misread_is_not_quoted(text: str) -> None:
    assert dump({"key": text}) == f"key: {text}\n"


def test_envoy_reads_every_string_as_a_string(
    binary: Path, validate: Callable[[Path, Path], str], tmp_path: Path
) -> None:
    # The name of a cluster has to be a string: a boolean or a number is refused.
    clusters = [{"name": text, "load_assignment": {"cluster_name": text}} for text in TREACHEROUS if text]
    configuration = tmp_path / "envoy.yaml"
    configuration.write_text(dump({"static_resources": {"clusters": clusters}}))

    assert validate(binary, configuration) == ""


def test_quotes_in_a_string_stay_readable() -> None:
    assert dump({"body": json.dumps({"error": "x"})}) == """body: '{"error": "x"}'\n"""


def test_a_note_stands_above_the_item_it_is_about() -> None:
    text = dump({"filters": [{"name": "a"}, {"name": "b", "x": 1}], "name": "b"}, {"b": "First line.\nSecond."})

    assert text == ("filters:\n  - name: a\n  # First line.\n  # Second.\n  - name: b\n    x: 1\nname: b\n")


def test_a_comment_has_no_trailing_space() -> None:
    assert comment("One.\n\nTwo.", "  ") == "  # One.\n  #\n  # Two.\n"
