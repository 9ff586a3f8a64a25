"""A decision as Envoy's dynamic metadata: for rate limits, response headers and the access log."""

from __future__ import annotations

import functools
import struct

from google.protobuf.struct_pb2 import Struct, Value

from extproc.events import Decision, decision_text
from extproc.wire_format import head, nested, tag_of
from headgate.pb import ext_proc_pb2 as pb

METADATA_NAMESPACE = "headgate"


def dynamic_metadata(decision: Decision, decision_seconds: float) -> bytes:
    """The field of a `ProcessingResponse` that tells of the decision, and how long it took."""
    wait_seconds = decision.queue_wait_seconds
    fields = (
        _words(
            decision.tenant,
            decision.tier,
            decision.model,
            decision.cluster,
            decision.protocol,
            decision.operation,
            decision.verdict,
            decision.reason,
        )
        + _NUMBERS.pack(
            _PROMPT_TOKENS,
            decision.prompt_tokens,
            _MAX_OUTPUT_TOKENS,
            decision.max_output_tokens,
            _CHARGED_TOKENS,
            decision.charged_tokens,
            _QUEUE_WAIT_SECONDS,
            wait_seconds,
            _UNCORRECTED_PROMPT_TOKENS,
            decision.uncorrected_prompt_tokens,
        )
        + _text_field(_REQUEST_ID, decision.request_id.encode())
        + _server_timing(round(wait_seconds * 1e4), round(decision_seconds * 1e5))
    )
    if wait_seconds:
        # Of a repeated name the last counts.
        fields += _text_field(_DECISION, decision.text.encode())
    return head(_NAMESPACE, len(fields)) + fields


@functools.lru_cache(maxsize=4096)
def _words(
    tenant: str, tier: str, model: str, cluster: str, protocol: str, operation: str, verdict: str, reason: str
) -> bytes:
    """What many requests have in common, so that it is serialised once."""
    words = {
        "tenant": tenant,
        "tier": tier,
        "model": model,
        "cluster": cluster,
        "protocol": protocol,
        "operation": operation,
        "verdict": verdict,
        "reason": reason,
        "decision": decision_text(verdict, reason),
    }
    return b"".join([_text_field(_text(name), word.encode()) for name, word in words.items()])


@functools.lru_cache(maxsize=4096)
def _server_timing(wait_tenths: int, decision_hundredths: int) -> bytes:
    """The value of the client's `server-timing` header (https://www.w3.org/TR/server-timing/), in milliseconds.

    Args:
        wait_tenths, decision_hundredths: of a millisecond, so that many requests have the same.
    """
    value = b"hg-queue;dur=%.1f, hg-decide;dur=%.2f" % (wait_tenths / 10, decision_hundredths / 100)
    return _text_field(_SERVER_TIMING, value)


def _text_field(tags: tuple[bytes, ...], text: bytes) -> bytes:
    return head(tags, len(text)) + text


def _text(name: str) -> tuple[bytes, ...]:
    """The tags of a field of text."""
    return (_FIELDS, nested(_KEY, name.encode()) + _VALUE, _STRING_VALUE)


def _number_field(name: str) -> bytes:
    """A number's field but for the eight bytes of the number itself, which come last."""
    return Struct(fields={name: Value(number_value=0.0)}).SerializeToString()[:-8]


_DYNAMIC_METADATA = tag_of(pb.ProcessingResponse, "dynamic_metadata")
_FIELDS = tag_of(Struct, "fields")
_KEY, _VALUE = tag_of(Struct.FieldsEntry, "key"), tag_of(Struct.FieldsEntry, "value")
_STRUCT_VALUE, _STRING_VALUE = tag_of(Value, "struct_value"), tag_of(Value, "string_value")
_NAMESPACE = (_DYNAMIC_METADATA, _FIELDS, nested(_KEY, METADATA_NAMESPACE.encode()) + _VALUE, _STRUCT_VALUE)
_REQUEST_ID, _SERVER_TIMING, _DECISION = map(_text, ("request_id", "server_timing", "decision"))
_NUMBER_FIELDS = (
    _PROMPT_TOKENS,
    _MAX_OUTPUT_TOKENS,
    _CHARGED_TOKENS,
    _QUEUE_WAIT_SECONDS,
    _UNCORRECTED_PROMPT_TOKENS,
) = [
    _number_field(name)
    for name in (
        "prompt_tokens",
        "max_output_tokens",
        "charged_tokens",
        "queue_wait_seconds",
        "uncorrected_prompt_tokens",
    )
]
_NUMBERS = struct.Struct("<" + "".join(f"{len(field)}sd" for field in _NUMBER_FIELDS))
