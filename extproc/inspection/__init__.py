"""What is asked for: every protocol's request read into one `InferenceRequest`.

Reads only what decisions need; what a body means beyond that is the model server's business.
"""

from __future__ import annotations

from extproc.headers import Headers
from extproc.inspection import kserve_grpc, triton
from extproc.inspection.chat import inspect_chat
from extproc.inspection.completions import inspect_completion
from extproc.inspection.embeddings import inspect_embeddings
from extproc.inspection.messages import inspect_messages
from extproc.inspection.request import InferenceRequest
from extproc.inspection.responses import inspect_responses
from extproc.inspection.target import Operation, Target
from headgate.policy.model import Protocol

__all__ = ["inspect"]

_BODIES = {
    Operation.CHAT: inspect_chat,
    Operation.COMPLETION: inspect_completion,
    Operation.EMBEDDINGS: inspect_embeddings,
    Operation.RESPONSES: inspect_responses,
    Operation.MESSAGES: inspect_messages,
}
"""The operations whose body says all there is to know."""


def inspect(target: Target, headers: Headers, body: bytes) -> InferenceRequest:
    """Read a whole request body, or of a stream its first message: plain, as `content.plain_body` gives it.

    Raises:
        RequestError: the body is not what its path promises.
    """
    if (read := _BODIES.get(target.operation)) is not None:
        return read(body)
    if target.protocol is Protocol.KSERVE_GRPC:
        return kserve_grpc.inspect_message(body, stream=target.operation is Operation.STREAM_INFER)
    if target.operation is Operation.INFER:
        return triton.inspect_infer(target, headers, body)
    return triton.inspect_generate(target, body)
