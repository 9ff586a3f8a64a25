"""Headers as the decisions read them."""

from __future__ import annotations

import pytest

from extproc.headers import Headers


def test_names_are_read_without_regard_to_case() -> None:
    headers = Headers([("Authorization", "Bearer k"), (":path", "/v1/models")])

    assert headers.get("authorization") == "Bearer k"
    assert headers.get(":path") == "/v1/models"
    assert "authorization" in headers


def test_an_absent_header_reads_as_the_empty_string() -> None:
    assert Headers(()).get("x-request-id") == ""
    assert "x-request-id" not in Headers(())


def test_a_repeated_header_reads_as_its_values_joined_by_a_comma() -> None:
    headers = Headers([("X-Forwarded-Client-Cert", "URI=a"), ("accept", "x"), ("x-forwarded-client-cert", "URI=b")])

    assert headers.get("x-forwarded-client-cert") == "URI=a,URI=b"


@pytest.mark.parametrize(
    ("value", "size_bytes"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        ("1e3", None),
        (" 1", None),
        ("0x10", None),
        ("\u0661\u0662", None),
        ("1" * 18, int("1" * 18)),
        ("1" * 5000, None),
    ],
)
def test_a_content_length_is_plain_digits_or_unknown(value: str, size_bytes: int | None) -> None:
    assert Headers([("content-length", value)]).content_length == size_bytes


def test_two_content_lengths_are_none() -> None:
    assert Headers([("content-length", "5"), ("content-length", "5")]).content_length is None


def test_no_content_length_is_unknown() -> None:
    assert Headers(()).content_length is None
