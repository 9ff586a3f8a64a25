"""What changes in a request on its way to a cluster: the model's name there and the output-token limit.

Only fields the client's dialect has are touched, every other value keeps its very bytes, and a request that needs no
change is not rebuilt.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from extproc.headers import Headers
from extproc.inspection.content import is_compressed, wire_body
from extproc.inspection.json import decode, replace_fields
from extproc.inspection.kserve_grpc import edit_message
from extproc.inspection.request import InferenceRequest
from extproc.inspection.target import Operation, Target
from extproc.inspection.triton import OUTPUT_LIMIT_FIELDS, json_length, split_infer
from extproc.routing import Destination
from headgate.policy.model import Protocol

_DEFAULT_LIMIT_FIELD = "max_tokens"
_INPUTS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TENSORS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


class Rewrite(msgspec.Struct, frozen=True):
    """The new path and body, ready for the wire; None where the client's own goes through as it is."""

    path: str | None
    body: bytes | None


def rewrite(
    target: Target, headers: Headers, request: InferenceRequest, destination: Destination, body: bytes
) -> Rewrite:
    """Fit a request to the place it runs at; `body` is plain, see `content.plain_body`."""
    changed = _rewrite(target, headers, request, destination, body)
    if changed.body is not None:
        return replace(changed, body=wire_body(target, changed.body))
    # Of all that run models only Triton's infer can decompress.
    is_unreadable = is_compressed(headers) and target.operation is not Operation.INFER
    return replace(changed, body=body) if is_unreadable else changed


def _rewrite(
    target: Target, headers: Headers, request: InferenceRequest, destination: Destination, body: bytes
) -> Rewrite:
    limit = destination.max_output_tokens
    is_limit_new = limit is not None and not (limit == request.max_output_tokens and request.are_output_limits_equal)
    if request.protocol is Protocol.KSERVE_GRPC:
        new_limit = limit if is_limit_new and request.output_limit_fields else None
        if new_limit is None and destination.frontend.model == request.model:
            return Rewrite(None, None)
        return Rewrite(None, edit_message(body, model=destination.frontend.model, limit=new_limit))
    if request.protocol is Protocol.TRITON:
        path = target.path_for(destination.frontend.model)
        is_renamed = destination.frontend.model != request.model
        edited = _edit_triton(target, headers, request, body, limit) if limit is not None and is_limit_new else None
        return Rewrite(path if is_renamed else None, edited)
    changes: dict[str, bytes] = {}
    if destination.frontend.model != request.model:
        changes["model"] = msgspec.json.encode(destination.frontend.model)
    if limit is not None and is_limit_new:
        changes |= _limit_fields(request, limit)
    return Rewrite(None, replace_fields(body, changes) if changes else None)


def _limit_fields(request: InferenceRequest, limit: int) -> dict[str, bytes]:
    names = request.output_limit_fields or (_DEFAULT_LIMIT_FIELD,)
    return {name: str(limit).encode() for name in names}


def _edit_triton(target: Target, headers: Headers, request: InferenceRequest, body: bytes, limit: int) -> bytes | None:
    if target.operation is Operation.INFER:
        return _edit_infer(headers, body, limit) if request.output_limit_fields else None
    is_llm = request.output_limit_fields or request.messages
    return replace_fields(body, _limit_fields(request, limit)) if is_llm else None


def _edit_infer(headers: Headers, body: bytes, limit: int) -> bytes:
    """Set the limit tensors, in the JSON or in the binary part, without changing the length of either."""
    tensors, spans = split_infer(headers, body)
    json_bytes = json_length(headers, body)
    head, tail = body[:json_bytes], bytearray(body[json_bytes:])
    in_json = [t.name for t in tensors if t.name in OUTPUT_LIMIT_FIELDS and t.name not in spans]
    for name in OUTPUT_LIMIT_FIELDS:
        if name in spans:
            span = spans[name]
            width = span.end - span.start
            tail[span.start - json_bytes : span.end - json_bytes] = limit.to_bytes(width, "little")
    if in_json:
        # The length is declared in a header of its own; white space keeps it true.
        head = _edit_tensors(head, in_json, limit).ljust(json_bytes)
    return head + bytes(tail)


def _edit_tensors(head: bytes, names: list[str], limit: int) -> bytes:
    fields = decode(head, _INPUTS)
    tensors = decode(bytes(fields["inputs"]), _TENSORS)
    for tensor in tensors:
        if msgspec.json.decode(tensor["name"]) in names:
            tensor["data"] = msgspec.Raw(f"[{limit}]".encode())
    return msgspec.json.encode(fields | {"inputs": msgspec.Raw(msgspec.json.encode(tensors))})
