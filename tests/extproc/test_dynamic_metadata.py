"""What filters and logs are told of a decision: every field of it, under the names that Envoy's configuration reads."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from extproc.dynamic_metadata import dynamic_metadata
from extproc.events import Decision, Verdict
from headgate.pb import ext_proc_pb2 as pb


def told(decision: Decision, decision_seconds: float = 0.0) -> dict[str, Any]:
    response = pb.ProcessingResponse.FromString(dynamic_metadata(decision, decision_seconds))
    assert response.WhichOneof("response") is None
    [namespace] = MessageToDict(response.dynamic_metadata).items()
    assert namespace[0] == "headgate"
    fields: dict[str, Any] = namespace[1]
    return fields


def test_every_field_has_its_name_and_value() -> None:
    decision = Decision(
        request_id="r-1",
        verdict=Verdict.DEGRADE,
        reason="queue_timeout",
        status=200,
        tenant="acme",
        tier="premium",
        model="assistant",
        cluster="fast",
        protocol="openai",
        operation="chat",
        prompt_tokens=12,
        max_output_tokens=600,
        charged_tokens=612,
        queue_wait_seconds=0.25,
        uncorrected_prompt_tokens=11,
    )

    assert told(decision, 0.00042) == {
        "request_id": "r-1",
        "tenant": "acme",
        "tier": "premium",
        "model": "assistant",
        "cluster": "fast",
        "protocol": "openai",
        "operation": "chat",
        "verdict": "DEGRADE",
        "reason": "queue_timeout",
        "decision": "degrade; reason=queue_timeout; wait=250ms",
        "prompt_tokens": 12,
        "max_output_tokens": 600,
        "charged_tokens": 612,
        "queue_wait_seconds": 0.25,
        "uncorrected_prompt_tokens": 11,
        "server_timing": "hg-queue;dur=250.0, hg-decide;dur=0.42",
    }


@pytest.mark.parametrize(
    ("reason", "wait_seconds", "text"),
    [
        ("", 0.0, "reject"),
        ("queue_full", 0.0, "reject; reason=queue_full"),
        ("queue_timeout", 2.0, "reject; reason=queue_timeout; wait=2000ms"),
    ],
)
def test_a_decision_is_also_told_in_one_line(reason: str, wait_seconds: float, text: str) -> None:
    decision = Decision(
        request_id="", verdict=Verdict.REJECT, reason=reason, status=429, queue_wait_seconds=wait_seconds
    )

    assert told(decision)["decision"] == decision.text == text


@given(st.text(max_size=300), st.text(max_size=20_000), st.integers(0, 10**9), st.floats(0.0, 600.0))
def test_any_words_and_numbers_arrive_as_they_are(reason: str, model: str, tokens: int, wait_seconds: float) -> None:
    decision = Decision(
        request_id=reason,
        verdict=Verdict.REJECT,
        reason=reason,
        status=404,
        model=model,
        prompt_tokens=tokens,
        queue_wait_seconds=wait_seconds,
    )

    fields = told(decision)

    assert (fields["request_id"], fields["reason"], fields["model"]) == (reason, reason, model)
    assert (fields["prompt_tokens"], fields["queue_wait_seconds"]) == (tokens, wait_seconds)
