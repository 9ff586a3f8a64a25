"""What changes in a request on its way to a cluster: the model's name, the output-token limit, what the route sets.

Only fields the client's dialect has are touched, every other value keeps its very bytes, and a request that needs no
change is not rebuilt. What the backend is known to refuse is taken out.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from extproc.headers import Headers
from extproc.infer import infer_changes
from extproc.inspection.content import is_compressed, wire_body
from extproc.inspection.infer_edit import EditedInfer, edit_infer
from extproc.inspection.json import decode
from extproc.inspection.kserve_grpc import edit_message
from extproc.inspection.request import InferenceRequest
from extproc.inspection.splice import replace_fields, set_fields
from extproc.inspection.target import Operation, Target
from extproc.inspection.triton import LLMAPI_LIMIT_FIELD
from extproc.routing import Destination
from headgate.policy.model import Backend, Protocol

_STREAM_OPTIONS = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_TRUE = msgspec.Raw(b"true")

_KSERVE_GRPC, _TRITON, _TRTLLM = Protocol.KSERVE_GRPC, Protocol.TRITON, Backend.TRTLLM
_SHORT_BYTES = 16 * 1024
"""Up to this size all fields of an object are put together anew."""

_DEFAULT_LIMIT_FIELDS = {Operation.RESPONSES: "max_output_tokens"}
_GENERATED = (Operation.CHAT, Operation.COMPLETION)
"""The operations whose models refuse fields they do not know at trtllm-serve, and whose streams tell usage if asked."""

_SAMPLING = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed"}
)
_DECODING = {
    Operation.CHAT: _SAMPLING | {"stop", "reasoning_effort"},
    Operation.COMPLETION: _SAMPLING | {"stop"},
    Operation.RESPONSES: frozenset({"temperature", "top_p"}),
    Operation.MESSAGES: frozenset({"temperature", "top_p", "top_k"}),
    Operation.GENERATE: _SAMPLING - {"min_p"},
    Operation.GENERATE_STREAM: _SAMPLING - {"min_p"},
}
"""The overrides each dialect has a field for; the others do not reach it."""
_LLMAPI_DECODING = _SAMPLING - {"min_p", "repetition_penalty"}

_PRIORITY_TAKEN = {
    Backend.TRTLLM: (Operation.CHAT, Operation.COMPLETION),
    Backend.VLLM: (Operation.CHAT, Operation.COMPLETION, Operation.RESPONSES, Operation.EMBEDDINGS),
}


class Rewrite(msgspec.Struct, frozen=True, gc=False):
    """The new path and body, ready for the wire; None where the client's own goes through as it is.

    Attributes:
        json_bytes: how much of a new infer body is JSON, where that is not what the client declared.
    """

    path: str | None
    body: bytes | None
    json_bytes: int | None = None


def rewrite(
    target: Target, headers: Headers, request: InferenceRequest, destination: Destination, body: bytes
) -> Rewrite:
    """Fit a request to the place it runs at; `body` is plain, see `content.plain_body`."""
    changed = _rewrite(target, headers, request, destination, body)
    if changed.body is not None:
        return changed
    # Of all that run models only Triton's infer can decompress.
    is_unreadable = is_compressed(headers) and target.operation is not Operation.INFER
    return replace(changed, body=body) if is_unreadable else changed


def _rewrite(
    target: Target, headers: Headers, request: InferenceRequest, destination: Destination, body: bytes
) -> Rewrite:
    if request.protocol is _KSERVE_GRPC:
        edited = _edit_message(request, destination, body)
        return Rewrite(None, None if edited is None else wire_body(target, edited))
    if request.protocol is _TRITON:
        is_renamed = destination.frontend.model != request.model
        path = target.path_for(destination.frontend.model) if is_renamed else None
        if target.operation is not Operation.INFER:
            return Rewrite(path, _edit_generate(request, destination, body))
        infer = _edit_infer(headers, request, destination, body)
        return Rewrite(path, infer.body, infer.json_bytes) if infer else Rewrite(path, None)
    changes = _changes(request, destination)
    return Rewrite(None, _with_fields(body, changes, request) if changes else None)


def _with_fields(body: bytes, changes: Changes, request: InferenceRequest) -> bytes:
    # To take a short object apart is many times faster than to look for the fields in it.
    if len(body) <= _SHORT_BYTES:
        return replace_fields(body, changes)
    return set_fields(body, changes, request.fields)


Changes = dict[str, bytes | None]


def _changes(request: InferenceRequest, destination: Destination) -> Changes:
    """What the cluster and the route ask for, as far as the request does not say so already."""
    changes: Changes = {}
    cluster, name = destination.cluster, destination.frontend.model
    if name != request.model:
        changes["model"] = msgspec.json.encode(name)
    if destination.overrides:
        changes |= _overrides(request, destination)
    changes |= _limit(request, destination)
    if cluster.sends_priority:
        changes |= _priority(request, destination)
    if cluster.asks_for_usage and request.stream:
        changes |= _stream_options(request)
    if cluster.backend is _TRTLLM:
        changes |= _refused(request, destination)
    return changes


def _new_limit(request: InferenceRequest, destination: Destination) -> int | None:
    """The output limit, where it is not what the request says itself."""
    limit = destination.max_output_tokens
    is_said = limit == request.max_output_tokens and request.are_output_limits_equal
    return None if is_said else limit


def _limit(request: InferenceRequest, destination: Destination) -> Changes:
    limit = _new_limit(request, destination)
    if limit is None:
        return {}
    names = request.output_limit_fields or (_DEFAULT_LIMIT_FIELDS.get(request.operation, "max_tokens"),)
    return dict.fromkeys(names, str(limit).encode())


def _overrides(request: InferenceRequest, destination: Destination) -> Changes:
    known = _DECODING.get(request.operation, frozenset())
    return {name: msgspec.json.encode(value) for name, value in destination.overrides.items() if name in known}


def _priority(request: InferenceRequest, destination: Destination) -> Changes:
    """The tier's priority: vLLM takes whole numbers, the lower first; trtllm-serve 0.0 to 1.0, the higher first."""
    backend = destination.cluster.backend
    if backend is None or request.operation not in _PRIORITY_TAKEN.get(backend, ()):
        return {}
    number = destination.priority
    return {"priority": msgspec.json.encode(number if backend is Backend.VLLM else round(1 / (1 + number), 6))}


def _stream_options(request: InferenceRequest) -> Changes:
    if request.operation not in _GENERATED:
        return {}
    options = (decode(request.stream_options, _STREAM_OPTIONS) or {}) if request.stream_options else {}
    if options.get("include_usage") == _TRUE:
        return {}
    return {"stream_options": msgspec.json.encode(options | {"include_usage": _TRUE})}


def _refused(request: InferenceRequest, destination: Destination) -> Changes:
    """What trtllm-serve answers with a 400: a field it does not know, two names of one, an option without its use."""
    if request.operation not in _GENERATED:
        return {}
    refused: Changes = {name: None for name in ("service_tier",) if name in request.fields}
    if "stream_options" in request.fields and not request.stream:
        refused["stream_options"] = None
    return refused | _one_limit(request, destination)


def _one_limit(request: InferenceRequest, destination: Destination) -> Changes:
    """The limit under the one name that is taken: a completion has the older, a chat either but not both."""
    has_both = "max_tokens" in request.fields
    if "max_completion_tokens" not in request.fields or not (has_both or request.operation is Operation.COMPLETION):
        return {}
    limit = destination.max_output_tokens or request.max_output_tokens
    value = str(limit).encode() if limit is not None else None
    return {"max_completion_tokens": None, "max_tokens": value}


# tensors


def _edit_message(request: InferenceRequest, destination: Destination, message: bytes) -> bytes | None:
    changes = infer_changes(request, destination, _new_limit(request, destination))
    if changes.is_nothing and destination.frontend.model == request.model:
        return None
    return edit_message(message, model=destination.frontend.model, changes=changes)


def _edit_infer(
    headers: Headers, request: InferenceRequest, destination: Destination, body: bytes
) -> EditedInfer | None:
    changes = infer_changes(request, destination, _new_limit(request, destination))
    return None if changes.is_nothing else edit_infer(headers, body, changes)


# Triton's generate


def _edit_generate(request: InferenceRequest, destination: Destination, body: bytes) -> bytes | None:
    if not (request.output_limit_fields or request.prompt.messages):
        return None
    changes = _limit(request, destination) | _generate_overrides(request, destination)
    # Of a repeated field Triton takes the first, so each is made to stand once.
    return replace_fields(body, changes) if changes else None


def _generate_overrides(request: InferenceRequest, destination: Destination) -> Changes:
    """The overrides under the names of the model's inputs, in the dialect of the limit the request names."""
    is_llmapi = LLMAPI_LIMIT_FIELD in request.output_limit_fields
    overrides = _overrides(request, destination)
    if is_llmapi:
        return {f"sampling_param_{name}": value for name, value in overrides.items() if name in _LLMAPI_DECODING}
    if destination.cluster.asks_for_usage:
        overrides |= {"return_num_input_tokens": b"true", "return_num_output_tokens": b"true"}
    return overrides
