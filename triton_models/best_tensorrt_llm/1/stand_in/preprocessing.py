"""Preprocessing: text to token ids, with the tensors of TensorRT-LLM's `preprocessing` model.

Knows the tokenizer and nothing of slots or sampling.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton_python_backend_utils as pb_utils

from stand_in import tokenizer
from stand_in.tensors import int32, scalar, strings, word_list


class TritonPythonModel:
    """One instance serves all requests of a batch, each with its own response."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with its prompt's ids and the ids of its word lists."""
        return [pb_utils.InferenceResponse(list(_outputs(request))) for request in requests]


def _outputs(request: Any) -> Iterator[Any]:
    prompt = tokenizer.encode(b"".join(strings(request, "QUERY")))
    yield int32("INPUT_ID", prompt)
    yield int32("REQUEST_INPUT_LEN", [len(prompt)])
    yield int32("REQUEST_OUTPUT_LEN", [scalar(request, "REQUEST_OUTPUT_LEN")])
    yield word_list("BAD_WORDS_IDS", _spellings(strings(request, "BAD_WORDS_DICT")))
    yield word_list("STOP_WORDS_IDS", _spellings(strings(request, "STOP_WORDS_DICT")))
    yield int32("OUT_END_ID", [scalar(request, "END_ID", tokenizer.END_ID)])
    yield int32("OUT_PAD_ID", [scalar(request, "PAD_ID", tokenizer.PAD_ID)])


def _spellings(words: list[bytes]) -> Iterator[list[int]]:
    # Inside a text a word carries the space before it in its first token, so both spellings have to match.
    for word in words:
        if word:
            yield tokenizer.encode(word)
        if word[:1].isalpha():
            yield tokenizer.encode(b" " + word)
