import json

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from headgate.pb import ratelimit_pb2 as pb
from headgate.transport import RpcError, StatusCode
from ratelimit.limits import Code, Descriptor, Entry, Limit, RateLimitRequest, Status, Unit, Verdict
from ratelimit.reply import Reply
from ratelimit.wire import decode_json_request, decode_request, encode_json_response, encode_response

MESSAGE = {
    "domain": "d",
    "hitsAddend": 3,
    "descriptors": [
        {"entries": [{"key": "a", "value": "b"}, {"key": "c"}]},
        {"entries": [{"key": "zero"}], "hitsAddend": "0", "isNegativeHits": True},
        {"entries": [], "limit": {"requestsPerUnit": 9, "unit": "HOUR", "unitMultiplier": 2}},
    ],
}
REQUEST = RateLimitRequest(
    domain="d",
    hits_addend=3,
    descriptors=(
        Descriptor(entries=(Entry("a", "b"), Entry("c", ""))),
        Descriptor(entries=(Entry("zero", ""),), hits_addend=0, is_negative_hits=True),
        Descriptor(entries=(), limit=Limit(requests_per_unit=9, unit=Unit.HOUR, unit_multiplier=2)),
    ),
)


def test_a_request_is_the_same_in_protobuf_and_in_json() -> None:
    text = json.dumps(MESSAGE).encode()

    assert decode_json_request(text) == REQUEST
    assert decode_request(json_format.Parse(text, pb.RateLimitRequest()).SerializeToString()) == REQUEST


def override(unit: int, multiplier: int | None = None) -> bytes:
    message = pb.RateLimitRequest(domain="d")
    limit = message.descriptors.add().limit
    limit.requests_per_unit = 1
    limit.unit = unit  # type: ignore[assignment]
    if multiplier is not None:
        limit.unit_multiplier.value = multiplier
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("number", "unit"), [(1, Unit.SECOND), (2, Unit.MINUTE), (5, Unit.MONTH), (6, Unit.YEAR), (7, Unit.WEEK)]
)
def test_an_override_has_the_units_of_an_answer_week_included(number: int, unit: Unit) -> None:
    (descriptor,) = decode_request(override(number)).descriptors

    assert descriptor.limit == Limit(requests_per_unit=1, unit=unit)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\xff", "not a RateLimitRequest"),
        (override(0), "invalid rate limit unit '0' in an override"),
        (override(99), "invalid rate limit unit '99' in an override"),
        (override(1, 0), "invalid rate limit unit multiplier '0' in an override"),
        (override(6, 101), "invalid rate limit unit multiplier '101' in an override"),
    ],
    ids=["bytes", "unknown_unit", "undefined_unit", "no_multiplier", "endless_window"],
)
def test_a_message_that_means_nothing_is_an_invalid_argument(message: bytes, problem: str) -> None:
    with pytest.raises(RpcError) as raised:
        decode_request(message)

    assert (raised.value.code, raised.value.message) == (StatusCode.INVALID_ARGUMENT, problem)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"domain": 5}', b'{"foo": 1}', b"[" * 100_000])
def test_json_that_means_nothing_is_an_invalid_argument(text: bytes) -> None:
    with pytest.raises(RpcError) as raised:
        decode_json_request(text)

    assert raised.value.code is StatusCode.INVALID_ARGUMENT


@given(message=st.binary(max_size=60))
def test_no_bytes_raise_anything_but_an_rpc_error(message: bytes) -> None:
    for decode in (decode_request, decode_json_request):
        try:
            decode(message)
        except RpcError:
            pass


def response(*statuses: Status, refusal: Reply | None = None) -> dict[str, object]:
    code = Code.OVER_LIMIT if refusal else Code.OK
    text = encode_json_response(Verdict(code, statuses), refusal or Reply())
    binary = pb.RateLimitResponse.FromString(encode_response(Verdict(code, statuses), refusal or Reply()))
    assert json_format.ParseDict(json.loads(text), pb.RateLimitResponse()) == binary
    result: dict[str, object] = json.loads(text)
    return result


def test_a_limited_status_carries_its_limit_and_whole_seconds_rounded_up() -> None:
    limit = Limit(requests_per_unit=5, unit=Unit.WEEK, name="weekly")

    assert response(Status(limit=limit, remaining=4, reset_seconds=19.25, hits=1)) == {
        "overallCode": "OK",
        "statuses": [
            {
                "code": "OK",
                "currentLimit": {"requestsPerUnit": 5, "unit": "WEEK", "name": "weekly"},
                "limitRemaining": 4,
                "durationUntilReset": "20s",
            }
        ],
    }


def test_a_status_without_a_limit_leaves_the_rest_unset() -> None:
    assert response(Status()) == {"overallCode": "OK", "statuses": [{"code": "OK"}]}


def test_a_window_of_several_units_says_how_many() -> None:
    limit = Limit(requests_per_unit=5, unit=Unit.MINUTE, unit_multiplier=5)

    (status,) = response(Status(limit=limit))["statuses"]  # type: ignore[misc]

    assert status["currentLimit"] == {"requestsPerUnit": 5, "unit": "MINUTE", "unitMultiplier": 5}


def test_numbers_beyond_32_bits_become_the_largest_the_api_can_carry() -> None:
    limit = Limit(requests_per_unit=2**40, unit=Unit.MINUTE)

    (status,) = response(Status(limit=limit, remaining=2**40 - 1))["statuses"]  # type: ignore[misc]

    assert status == {
        "code": "OK",
        "currentLimit": {"requestsPerUnit": 2**32 - 1, "unit": "MINUTE"},
        "limitRemaining": 2**32 - 1,
    }


def test_a_refusal_carries_body_headers_and_metadata() -> None:
    refusal = Reply(
        body=b"{}", headers=(("retry-after", "7"),), metadata={"verdict": "REJECT", "reason": "r", "limit": 5}
    )

    assert response(refusal=refusal) == {
        "overallCode": "OVER_LIMIT",
        "rawBody": "e30=",
        "responseHeadersToAdd": [{"key": "retry-after", "value": "7"}],
        "dynamicMetadata": {"verdict": "REJECT", "reason": "r", "limit": 5.0},
    }
