import json

import pytest

from ratelimit.limits import Code, Descriptor, Entry, Limit, RateLimitRequest, Status, Unit, Verdict
from ratelimit.refusal import refusal
from ratelimit.reply import Reply


def status(
    code: Code = Code.OVER_LIMIT,
    *,
    name: str = "requests_per_minute",
    limit: int = 600,
    remaining: int = 0,
    reset_seconds: float = 12.0,
    hits: int = 1,
) -> Status:
    own = Limit(requests_per_unit=limit, unit=Unit.MINUTE, name=name)
    return Status(code=code, limit=own, remaining=remaining, reset_seconds=reset_seconds, hits=hits)


def refused(*statuses: Status, protocol: str = "openai", tenant: str = "acme") -> Reply:
    entries = [("tenant", tenant)] if tenant else []
    descriptors = [Descriptor(entries=tuple(Entry(*entry) for entry in entries)) for _ in statuses]
    descriptors.append(Descriptor(entries=(Entry("protocol", protocol),)))
    request = RateLimitRequest(domain="headgate", descriptors=tuple(descriptors))
    answer = refusal(request, Verdict(Code.OVER_LIMIT, (*statuses, Status())))
    assert answer is not None
    return answer


def message(answer: Reply) -> str:
    return str(json.loads(answer.body)["error"]["message"])


@pytest.mark.parametrize("protocol", ["openai", "other", ""])
def test_an_openai_client_gets_its_own_error_object(protocol: str) -> None:
    answer = refused(status(), protocol=protocol)

    assert json.loads(answer.body) == {
        "error": {
            "message": "Rate limit reached for tenant acme on requests per minute: "
            "limit 600, used 600, requested 1. Please try again in 12s.",
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }


def test_a_triton_client_gets_its_own_error_object() -> None:
    assert json.loads(refused(status(), protocol="triton").body) == {
        "error": "Rate limit reached for tenant acme on requests per minute: "
        "limit 600, used 600, requested 1. Please try again in 12s."
    }


def test_the_token_budget_is_named_as_tokens_with_what_was_asked_and_used() -> None:
    answer = refused(status(name="tokens_per_minute", limit=1000, remaining=200, hits=300))

    assert json.loads(answer.body)["error"]["type"] == "tokens"
    assert "tokens per minute: limit 1000, used 800, requested 300." in message(answer)


def test_a_spent_token_budget_is_not_retried_by_itself() -> None:
    assert ("x-should-retry", "false") in refused(status(name="tokens_per_minute")).headers


def test_nobody_is_told_to_wait_longer_than_openais_client_does() -> None:
    assert ("retry-after", "120") in refused(status(reset_seconds=3600.0)).headers


@pytest.mark.parametrize(
    ("reset_seconds", "retry_after", "retry_after_ms"),
    [(12.0, "12", "12000"), (11.2004, "12", "11201"), (0.0004, "1", "1"), (60.0, "60", "60000")],
)
def test_retry_after_is_whole_seconds_rounded_up_and_never_zero(
    reset_seconds: float, retry_after: str, retry_after_ms: str
) -> None:
    assert refused(status(reset_seconds=reset_seconds)).headers == (
        ("content-type", "application/json"),
        ("retry-after", retry_after),
        ("retry-after-ms", retry_after_ms),
        ("x-headgate-decision", "reject; reason=requests_per_minute"),
    )


def test_the_metadata_says_the_same_for_the_access_log() -> None:
    assert refused(status()).metadata == {
        "verdict": "REJECT",
        "reason": "requests_per_minute",
        "limit": 600,
        "decision": "reject; reason=requests_per_minute",
    }


def test_a_request_larger_than_the_whole_limit_is_told_that_waiting_is_no_use() -> None:
    answer = refused(status(name="tokens_per_minute", limit=1000, remaining=1000, hits=1001))

    assert message(answer).endswith("This request alone exceeds the limit.")
    assert ("x-should-retry", "false") in answer.headers


def test_an_exhausted_token_budget_is_for_the_clients_own_code_to_handle_and_requests_may_be_tried_again() -> None:
    tokens = refused(status(name="tokens_per_minute", limit=1000, remaining=200, hits=300))

    assert ("x-should-retry", "false") in tokens.headers
    assert ("retry-after", "12") in tokens.headers
    assert "x-should-retry" not in dict(refused(status()).headers)


def test_no_client_is_told_to_wait_longer_than_openais_clients_do() -> None:
    assert dict(refused(status(reset_seconds=3600.0)).headers)["retry-after"] == "120"


def test_of_two_limits_the_one_that_lasts_longest_is_named() -> None:
    requests = status(reset_seconds=5.0)
    tokens = status(name="tokens_per_minute", reset_seconds=9.0)

    assert refused(requests, tokens).metadata["reason"] == "tokens_per_minute"
    assert refused(status(), status(name="tokens_per_minute")).metadata["reason"] == "requests_per_minute"


def test_a_limit_that_is_not_over_is_never_the_cause() -> None:
    passed = status(Code.OK, name="tokens_per_minute", reset_seconds=50.0)

    assert refused(passed, status()).metadata["reason"] == "requests_per_minute"


def test_a_limit_without_name_or_tenant_still_makes_a_sentence() -> None:
    answer = refused(status(name=""), tenant="")

    assert message(answer).startswith("Rate limit reached on rate limit: limit 600")
    assert answer.metadata["reason"] == "rate_limit"


def test_a_tenant_name_cannot_break_out_of_the_body() -> None:
    hostile = '"}\r\nx: y'
    answer = refused(status(), tenant=hostile)

    assert hostile in message(answer)
    assert not any(hostile in value for _, value in answer.headers)


def test_nothing_is_said_to_a_request_that_is_let_through() -> None:
    request = RateLimitRequest(domain="headgate", descriptors=(Descriptor(entries=()),))

    assert refusal(request, Verdict(Code.OK, (Status(),))) is None


def test_a_grpc_client_gets_a_plain_message_and_its_own_retry_header() -> None:
    answer = refused(status(), protocol="kserve_grpc")

    assert answer.body.startswith(b"Rate limit reached for tenant acme")
    assert dict(answer.headers) == {
        "retry-after": "12",
        "grpc-retry-pushback-ms": "12000",
        "x-headgate-decision": "reject; reason=requests_per_minute",
    }


@pytest.mark.parametrize("spent", [status(limit=10, hits=11), status(name="tokens_per_minute")])
def test_a_grpc_client_is_told_never_to_retry_where_openais_is(spent: Status) -> None:
    answer = refused(spent, protocol="kserve_grpc")

    assert dict(answer.headers)["grpc-retry-pushback-ms"] == "-1"
