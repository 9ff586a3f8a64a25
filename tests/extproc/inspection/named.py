"""A body known by the names of its fields alone, so that two requests can be compared."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from extproc.inspection.request import InferenceRequest


@dataclass(frozen=True)
class Named:
    names: frozenset[str]

    def fields(self) -> frozenset[str]:
        return self.names


def without_prompt(request: InferenceRequest) -> InferenceRequest:
    """The request as it can be written down: its beginning in one piece, its fields by name."""
    named = Named(request.fields)
    prompt = replace(request.prompt, texts=(), overhead_tokens=0, opening=(request.prompt.prefix,))
    return replace(request, prompt=prompt, edited=named)
