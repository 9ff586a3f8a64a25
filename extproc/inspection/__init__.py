"""What is asked for: every protocol's request read into one `InferenceRequest`.

Reads only what decisions need; what a body means beyond that is the model server's business.
"""

from __future__ import annotations

from extproc.headers import Headers
from extproc.inspection import openai, triton
from extproc.inspection.request import InferenceRequest
from extproc.inspection.target import Operation, Target

__all__ = ["inspect"]


def inspect(target: Target, headers: Headers, body: bytes) -> InferenceRequest:
    """Read a whole request body.

    Raises:
        RequestError: the body is not what its path promises.
    """
    match target.operation:
        case Operation.CHAT:
            return openai.inspect_chat(body)
        case Operation.COMPLETION:
            return openai.inspect_completion(body)
        case Operation.INFER:
            return triton.inspect_infer(target, headers, body)
        case _:
            return triton.inspect_generate(target, body)
