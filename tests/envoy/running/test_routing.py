"""A request's way through a running Envoy: what is stripped, what ext_proc may change, where it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

Stack = Any


def test_what_a_client_says_of_itself_is_gone_before_ext_proc_sees_it(stack: Stack) -> None:
    forged = {"x_model_cluster": "best", "x_headgate_tier": "premium", "x_headgate_new": "1", "x_jwt_payload": "e30"}

    stack.post(**forged)

    (seen,) = stack.extproc.headers
    assert not [name for name in seen if name.startswith(("x-model", "x-headgate", "x-jwt"))]
    (received,) = stack.models["standard"].requests
    assert received.headers["x-headgate-tenant"] == "acme"
    assert "x-headgate-new" not in received.headers


def test_an_undecided_request_cannot_pick_its_cluster(stack: Stack, say: SimpleNamespace) -> None:
    stack.extproc.on_body = lambda _: say.untouched()

    response = stack.post("/v1/models", x_model_cluster="standard")

    assert response.status == 404
    assert not stack.models["standard"].requests


def test_ext_proc_gets_the_api_key_and_no_cookie_and_the_model_gets_no_api_key(stack: Stack) -> None:
    stack.post(authorization="Bearer key", cookie="session=1", accept_encoding="gzip")

    (seen,) = stack.extproc.headers
    assert seen["authorization"] == "Bearer key"
    assert "cookie" not in seen
    (received,) = stack.models["standard"].requests
    assert not {"authorization", "accept-encoding"} & received.headers.keys()


def test_a_rewritten_body_goes_to_the_cluster_named_with_it(stack: Stack, say: SimpleNamespace) -> None:
    stack.extproc.on_body = lambda _: say.routed(
        "best", body=b'{"rewritten": true}', **{":path": "/v2/models/m/generate"}
    )

    response = stack.post("/v2/models/assistant/generate", b'{"a": "longer than what replaces it"}')

    assert response.status == 200
    (received,) = stack.models["best"].requests
    assert received.path == "/v2/models/m/generate"
    assert received.body == b'{"rewritten": true}'
    assert not stack.models["standard"].requests


def test_an_untouched_body_arrives_byte_for_byte(stack: Stack) -> None:
    body = bytes(range(256)) * 1024

    assert stack.post(body=body).status == 200

    assert stack.extproc.bodies == [body]
    assert stack.models["standard"].requests[0].body == body


def test_a_client_that_sends_chunks_is_forwarded_whole(stack: Stack) -> None:
    with stack.open("POST", "/v1/x", iter([b'{"a":', b"1}"])) as response:
        assert response.status == 200

    assert stack.extproc.bodies == [b'{"a":1}']


def test_ext_proc_cannot_write_other_headers(stack: Stack, say: SimpleNamespace) -> None:
    forbidden = {":authority": "elsewhere", "x-forwarded-for": "1.2.3.4", "x-envoy-retry-on": "5xx", "cookie": "a=1"}
    stack.extproc.on_body = lambda _: say.routed("standard", **forbidden)

    assert stack.post().status == 200

    (received,) = stack.models["standard"].requests
    assert received.headers["host"] == f"127.0.0.1:{stack.port}"
    assert received.headers["x-forwarded-for"] != "1.2.3.4"
    assert "cookie" not in received.headers
    assert stack.statistic("http.headgate.ext_proc.rejected_header_mutations") >= len(forbidden)


def test_the_client_is_told_the_decision_and_not_what_a_model_says_of_it(stack: Stack) -> None:
    stack.models["standard"].headers = ("x-headgate-decision: forged", "x-headgate-model: forged")

    response = stack.post()

    assert response.headers["x-headgate-decision"] == "admit"
    assert response.headers["x-headgate-model"] == "assistant"
    assert response.headers["x-request-id"]


def test_the_client_is_told_headgates_time_beside_the_models(stack: Stack, say: SimpleNamespace) -> None:
    stack.models["standard"].headers = ("server-timing: prefill;dur=80",)

    assert stack.post().headers["server-timing"] == "prefill;dur=80, hg-queue;dur=0.0, hg-decide;dur=0.12"

    stack.extproc.on_body = lambda _: say.refused(429, b"{}", content_type="application/json")
    assert stack.post().headers["server-timing"] == "hg-queue;dur=9.0, hg-decide;dur=0.20"


def test_nobody_is_told_a_time_that_was_not_taken(stack: Stack, say: SimpleNamespace) -> None:
    stack.extproc.on_body = lambda _: say.untouched()

    assert "server-timing" not in stack.post("/v1/unknown").headers


def test_a_connection_that_fails_is_tried_again_and_a_refusal_of_the_model_is_not(
    stack: Stack, say: SimpleNamespace
) -> None:
    stack.models["standard"].status = 429
    assert stack.post().status == 429
    assert len(stack.models["standard"].requests) == 1

    stack.extproc.on_body = lambda _: say.routed("absent")
    assert stack.post().status == 503
    assert stack.record().common_properties.upstream_request_attempt_count == 3


def test_the_trace_of_a_request_goes_on_to_the_model(stack: Stack) -> None:
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=1"}

    stack.post(**trace)

    [received] = stack.models["standard"].requests
    assert {name: received.headers.get(name) for name in trace} == trace


@pytest.mark.parametrize("path", ["/v1/../v1/x", "/v1//x", "/v1/%2e/x"])
def test_ext_proc_sees_a_normal_path(stack: Stack, path: str) -> None:
    stack.post(path)

    assert stack.extproc.headers[0][":path"] == "/v1/x"
