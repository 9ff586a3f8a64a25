"""OpenAI's embeddings (https://platform.openai.com/docs/api-reference/embeddings): a prompt and no output."""

from __future__ import annotations

import msgspec

from extproc.inspection.json import decode
from extproc.inspection.openai import Generating, build
from extproc.inspection.prompt import read_prompts
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation


class _Embeddings(Generating):
    input: msgspec.Raw = msgspec.Raw(b"null")


_EMBEDDINGS = msgspec.json.Decoder(_Embeddings)


def inspect_embeddings(body: bytes) -> InferenceRequest:
    """Read an embeddings body; `input` is text, token ids, or a list of either."""
    embeddings = decode(body, _EMBEDDINGS)
    prompt = read_prompts(embeddings.input, "input", body)
    if not prompt.messages:
        raise RequestError("'input' has to hold at least one text.", param="input")
    return build(Operation.EMBEDDINGS, embeddings, prompt, has_output=False)
