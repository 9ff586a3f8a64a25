"""How a request is told no: the table of statuses, and a body its own client can read."""

from __future__ import annotations

import json

import openai
import pytest
from httpx import Request, Response

from extproc import refusal
from extproc.refusal import Refusal
from headgate.policy.model import Protocol
from headgate.store import Scope
from headgate.transport import StatusCode

EVERY_REFUSAL = [
    refusal.unidentified("invalid_credential", "The API key is not known."),
    refusal.unknown_model("gpt-9"),
    refusal.not_served("no_route", "No route takes this request."),
    refusal.bad_request("The request has no body."),
    refusal.bad_request("Compressed.", "content-encoding", 415),
    refusal.too_large(70_000, 65_536),
    refusal.too_long(60_000, 50_000),
    refusal.contended("tenant_concurrency", 0.4),
    refusal.contended("queue_full", 1.0),
    refusal.unavailable("shutting_down", "Restarting."),
]


@pytest.mark.parametrize(
    ("refused", "status", "reason", "kind", "code", "param"),
    [
        (EVERY_REFUSAL[0], 401, "invalid_credential", "invalid_request_error", "invalid_api_key", None),
        (EVERY_REFUSAL[1], 404, "unknown_model", "invalid_request_error", "model_not_found", "model"),
        (EVERY_REFUSAL[2], 404, "no_route", "invalid_request_error", "model_not_found", "model"),
        (EVERY_REFUSAL[3], 400, "bad_request", "invalid_request_error", None, None),
        (EVERY_REFUSAL[4], 415, "bad_request", "invalid_request_error", None, "content-encoding"),
        (EVERY_REFUSAL[5], 413, "body_too_large", "invalid_request_error", "request_too_large", None),
        (EVERY_REFUSAL[6], 400, "context_too_long", "invalid_request_error", "context_length_exceeded", "messages"),
        (EVERY_REFUSAL[7], 429, "tenant_concurrency", "rate_limit_error", "concurrency_limit_exceeded", None),
        (EVERY_REFUSAL[8], 429, "queue_full", "rate_limit_error", "server_is_overloaded", None),
        (EVERY_REFUSAL[9], 503, "shutting_down", "service_unavailable_error", "service_unavailable", None),
    ],
)
def test_every_refusal_has_its_status_and_its_openai_error(
    refused: Refusal, status: int, reason: str, kind: str, code: str | None, param: str | None
) -> None:
    assert (refused.status, refused.reason) == (status, reason)
    assert json.loads(refused.body(Protocol.OPENAI)) == {
        "error": {"message": refused.message, "type": kind, "param": param, "code": code}
    }


@pytest.mark.parametrize("refused", EVERY_REFUSAL, ids=lambda refused: refused.reason)
def test_triton_clients_get_tritons_error_and_unknown_ones_openais(refused: Refusal) -> None:
    assert json.loads(refused.body(Protocol.TRITON)) == {"error": refused.message}
    assert refused.body(None) == refused.body(Protocol.OPENAI)


@pytest.mark.parametrize("refused", EVERY_REFUSAL, ids=lambda refused: refused.reason)
def test_headers_say_why_and_promise_a_retry_only_where_one_can_help(refused: Refusal) -> None:
    headers = refused.headers(None)

    assert headers["content-type"] == "application/json"
    assert headers["x-headgate-decision"] == f"reject; reason={refused.reason}"
    assert ("retry-after" in headers) == ("retry-after-ms" in headers) == (refused.status in (429, 503))


@pytest.mark.parametrize(
    ("wait_seconds", "seconds", "milliseconds"),
    [
        (0.0, "1", "1"),
        (0.0004, "1", "1"),
        (0.25, "1", "250"),
        (1.0, "1", "1000"),
        (1.0001, "2", "1001"),
        (119.2, "120", "119200"),
        (120.0, "120", "120000"),
    ],
)
def test_retry_after_rounds_up_and_is_never_zero(wait_seconds: float, seconds: str, milliseconds: str) -> None:
    headers = refusal.contended(Scope.CLUSTER, wait_seconds).headers(Protocol.OPENAI)

    assert (headers["retry-after"], headers["retry-after-ms"]) == (seconds, milliseconds)


@pytest.mark.parametrize(
    ("protocol", "name"), [(Protocol.OPENAI, "accept-encoding"), (Protocol.KSERVE_GRPC, "grpc-accept-encoding")]
)
def test_only_who_compressed_in_a_strange_way_is_told_which_ones_are_read(protocol: Protocol, name: str) -> None:
    headers = refusal.bad_request("Compressed.", "content-encoding", 415).headers(protocol)

    assert {key: value for key, value in headers.items() if "accept" in key} == {name: "gzip, deflate"}
    assert name not in refusal.bad_request("No.").headers(protocol)


def test_nobody_is_told_to_wait_longer_than_openais_client_does() -> None:
    assert refusal.contended("queue_too_long", 3600.0).headers(None)["retry-after-ms"] == "120000"


def test_a_client_for_whom_there_will_never_be_room_is_told_not_to_retry() -> None:
    headers = refusal.contended(Scope.TENANT, None).headers(Protocol.OPENAI)

    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers


def test_a_grpc_client_for_whom_there_will_never_be_room_is_told_never_to_retry() -> None:
    headers = refusal.contended(Scope.TENANT, None).headers(Protocol.KSERVE_GRPC)

    assert headers["grpc-retry-pushback-ms"] == "-1"
    assert not {"retry-after", "x-should-retry"} & headers.keys()


@pytest.mark.parametrize("refused", EVERY_REFUSAL, ids=lambda refused: refused.reason)
def test_where_a_retry_can_help_or_nobody_would_try_one_nothing_is_said_about_it(refused: Refusal) -> None:
    assert "x-should-retry" not in refused.headers(Protocol.OPENAI)
    assert refused.headers(Protocol.KSERVE_GRPC).get("grpc-retry-pushback-ms") != "-1"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, StatusCode.INVALID_ARGUMENT),
        (401, StatusCode.UNAUTHENTICATED),
        (404, StatusCode.NOT_FOUND),
        (413, StatusCode.RESOURCE_EXHAUSTED),
        (415, StatusCode.UNIMPLEMENTED),
        (418, StatusCode.UNKNOWN),
    ],
)
def test_a_grpc_client_sees_a_status_of_its_own_kind(status: int, code: StatusCode) -> None:
    assert refusal.bad_request("No.", status=status).grpc_status is code


def test_a_grpc_client_told_to_come_back_sees_resource_exhausted_or_unavailable() -> None:
    assert refusal.contended("queue_full", 1.0).grpc_status is StatusCode.RESOURCE_EXHAUSTED
    assert refusal.unavailable("shutting_down", "Bye.").grpc_status is StatusCode.UNAVAILABLE


@pytest.mark.parametrize("refused", EVERY_REFUSAL, ids=lambda refused: refused.reason)
def test_a_grpc_client_gets_the_bare_message_and_its_own_retry_header(refused: Refusal) -> None:
    headers = refused.headers(Protocol.KSERVE_GRPC)

    assert refused.body(Protocol.KSERVE_GRPC) == refused.message.encode()
    assert not {"content-type", "retry-after-ms"} & headers.keys()
    assert ("grpc-retry-pushback-ms" in headers) == (refused.status in (429, 503))


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_is_the_reason_by_the_same_word(scope: Scope) -> None:
    refused = refusal.contended(scope, 1.0)

    assert refused.headers(None)["x-headgate-decision"] == f"reject; reason={scope.value}"
    assert json.loads(refused.body(None))["error"]["code"] == (
        "concurrency_limit_exceeded" if scope is Scope.TENANT else "server_is_overloaded"
    )


def test_a_long_model_name_is_not_repeated_whole() -> None:
    message = refusal.unknown_model("m" * 10_000).message

    assert message == f"The model '{'m' * 125}...' does not exist."


def test_a_size_that_is_not_known_is_not_named() -> None:
    assert refusal.too_large(None, 1024).message == "The request body is larger than the 1024 bytes allowed."
    assert refusal.too_large(2000, 1024).message == (
        "The request body of 2000 bytes is larger than the 1024 bytes allowed."
    )


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (EVERY_REFUSAL[0], openai.AuthenticationError),
        (EVERY_REFUSAL[1], openai.NotFoundError),
        (EVERY_REFUSAL[3], openai.BadRequestError),
        (EVERY_REFUSAL[5], openai.APIStatusError),
        (EVERY_REFUSAL[7], openai.RateLimitError),
        (EVERY_REFUSAL[9], openai.InternalServerError),
    ],
)
def test_the_openai_client_raises_the_error_of_the_status_and_reads_its_code(
    refused: Refusal, error: type[openai.APIStatusError]
) -> None:
    response = Response(
        refused.status,
        headers=refused.headers(Protocol.OPENAI),
        content=refused.body(Protocol.OPENAI),
        request=Request("POST", "http://gateway/v1/chat/completions"),
    )

    with openai.OpenAI(api_key="k") as client:
        raised = client._make_status_error_from_response(response)

    assert isinstance(raised, error)
    assert (raised.code, raised.param, raised.type) == (refused.code, refused.param, refused.type)


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (refusal.unidentified("invalid_credential", "no"), "authentication_error"),
        (refusal.unknown_model("m"), "not_found_error"),
        (refusal.bad_request("no"), "invalid_request_error"),
        (refusal.too_large(9, 5), "request_too_large"),
        (refusal.contended("tier_concurrency", 1.0), "rate_limit_error"),
        (refusal.unavailable("shutting_down", "no"), "overloaded_error"),
    ],
)
def test_an_anthropic_client_reads_its_own_error_object(refused: refusal.Refusal, kind: str) -> None:
    body = json.loads(refused.body(Protocol.ANTHROPIC))

    assert body == {"type": "error", "error": {"type": kind, "message": refused.message}}
