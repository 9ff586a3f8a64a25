"""Who writes an error and in whose format: Headgate's refusals go out as they are, Envoy's own become JSON."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headgate.pb.ratelimit_pb2 import RateLimitRequest, RateLimitResponse

Stack = Any

REFUSAL_HEADERS = {
    "content_type": "application/json",
    "retry_after": "3",
    "retry_after_ms": "2900",
    "x_should_retry": "false",
    "x_ratelimit_remaining_tokens": "0",
    "x_headgate_decision": "reject; reason=test",
    "www_authenticate": "Bearer",
}


@pytest.mark.parametrize("stage", ["on_headers", "on_body"])
@pytest.mark.parametrize("status", [400, 404, 413, 429, 503])
def test_a_refusal_of_ext_proc_goes_out_as_it_is(stack: Stack, say: SimpleNamespace, stage: str, status: int) -> None:
    body = b'{"error": {"message": "mine"}}'
    setattr(stack.extproc, stage, lambda _: say.refused(status, body, **REFUSAL_HEADERS))

    response = stack.post("/v2/models/m/generate")

    assert (response.status, response.body) == (status, body)
    sent = {name.replace("_", "-"): value for name, value in REFUSAL_HEADERS.items()}
    assert {name: response.headers.get(name) for name in sent} == sent


def test_the_metadata_of_a_refusal_reaches_the_access_log(stack: Stack, say: SimpleNamespace) -> None:
    stack.extproc.on_headers = lambda _: say.refused(401, b"{}", content_type="application/json")

    stack.post()

    said = {"verdict": "REJECT", "decision": "reject; reason=test"}
    assert said.items() <= stack.metadata("headgate").items()
    assert stack.record().response.response_code_details == "headgate_test"


def test_a_refusal_of_ratelimit_goes_out_as_it_is(stack: Stack) -> None:
    def over_limit(request: RateLimitRequest) -> RateLimitResponse:
        status = RateLimitResponse.DescriptorStatus(code=RateLimitResponse.OVER_LIMIT)
        answer = RateLimitResponse(overall_code=RateLimitResponse.OVER_LIMIT, raw_body=b'{"error": "mine"}')
        answer.statuses.extend([status] * len(request.descriptors))
        answer.response_headers_to_add.add(key="content-type", value="application/json")
        answer.response_headers_to_add.add(key="x-headgate-decision", value="reject; reason=tokens_per_minute")
        answer.dynamic_metadata.update({"decision": "reject; reason=tokens_per_minute"})
        return answer

    stack.ratelimit.answer = over_limit

    response = stack.post()

    assert (response.status, response.json) == (429, {"error": "mine"})
    assert response.headers["x-headgate-decision"] == "reject; reason=tokens_per_minute"
    assert stack.metadata("envoy.filters.http.ratelimit")["decision"] == "reject; reason=tokens_per_minute"


def test_an_error_of_the_model_goes_out_as_it_is(stack: Stack) -> None:
    model = stack.models["standard"]
    model.status, model.content_type, model.chunks = 503, "text/plain", (b"engine is loading",)

    response = stack.post()

    assert (response.status, response.body) == (503, b"engine is loading")


def test_a_request_nobody_routes_is_not_found(stack: Stack, say: SimpleNamespace) -> None:
    stack.extproc.on_body = lambda _: say.untouched()

    response = stack.post("/v1/unknown")

    error = {"message": "No model is served at this path.", "type": "invalid_request_error", "param": None}
    assert (response.status, response.json) == (404, {"error": {**error, "code": "not_found"}})


def test_a_triton_client_reads_its_own_error_format(stack: Stack, say: SimpleNamespace) -> None:
    stack.extproc.on_body = lambda _: say.untouched()

    assert stack.post("/v2/models/m/unknown").json == {"error": "No model is served at this path."}


def test_a_body_of_the_limit_passes_and_one_byte_more_is_too_large(stack: Stack, say: SimpleNamespace) -> None:
    assert stack.post(body=b"x" * say.max_body_bytes).status == 200

    response = stack.post(body=b"x" * (say.max_body_bytes + 1))

    assert response.status == 413
    assert response.json["error"]["code"] == "request_too_large"
    assert len(stack.extproc.bodies) == 1


def test_headers_over_the_limit_are_too_large(stack: Stack) -> None:
    response = stack.post(x_filler="x" * 40_000)

    assert response.status == 431
    assert response.json["error"]["code"] == "headers_too_large"


def test_a_header_with_an_underscore_is_refused(stack: Stack, say: SimpleNamespace) -> None:
    response = say.raw(stack, b"GET / HTTP/1.1\r\nhost: a\r\nx_headgate_tier: premium\r\nconnection: close\r\n\r\n")

    assert response.startswith(b"HTTP/1.1 400")
    assert b'"code": "bad_request"' in response
    assert not stack.extproc.headers


def test_a_model_that_cannot_be_reached_is_unavailable(stack: Stack, say: SimpleNamespace) -> None:
    stack.extproc.on_body = lambda _: say.routed("absent")

    response = stack.post()

    assert response.status == 503
    assert response.json["error"]["type"] == "service_unavailable_error"
    assert response.headers["retry-after"] == "1"


def test_a_cluster_envoy_does_not_know_is_unavailable_and_not_not_found(stack: Stack, say: SimpleNamespace) -> None:
    stack.extproc.on_body = lambda _: say.routed("rendered-later")

    assert stack.post().json["error"]["code"] == "service_unavailable"


def test_a_model_that_never_answers_times_out(stack: Stack) -> None:
    stack.models["standard"].is_silent = True

    response = stack.post()

    assert response.status == 504
    assert response.json["error"]["code"] == "timeout"
