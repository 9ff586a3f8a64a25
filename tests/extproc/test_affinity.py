"""Requests that belong together have one name, and nobody else's request has it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from extproc.affinity import AffinityNames
from extproc.headers import Headers
from extproc.inspection.request import InferenceRequest, Prompt
from headgate.policy.model import Affinity, Protocol

NO_HEADERS = Headers(())


def request(session: str = "", prefix: str = "Once upon a time") -> InferenceRequest:
    return InferenceRequest(protocol=Protocol.OPENAI, model="m", session=session, prompt=Prompt(opening=(prefix,)))


def name(
    affinity: Affinity = Affinity.SESSION,
    tenant: str = "acme",
    headers: Headers = NO_HEADERS,
    salt: str = "salt",
    **fields: str,
) -> str:
    return AffinityNames(salt).name(affinity, tenant, headers, request(**fields))


def test_a_session_keeps_its_name_whatever_it_says() -> None:
    assert name(session="s", prefix="one") == name(session="s", prefix="two") != name(session="t", prefix="one")


def test_the_session_header_counts_before_the_body() -> None:
    header = Headers([("x-session-id", "s")])

    assert name(headers=header, session="other") == name(session="s")


def test_without_a_session_the_prefix_tells() -> None:
    assert name(prefix="one") == name(prefix="one") != name(prefix="two")
    assert name(prefix="") == ""


def test_by_prefix_sessions_do_not_count() -> None:
    assert name(Affinity.PREFIX, session="s") == name(Affinity.PREFIX, session="t")


def test_a_prefix_that_reads_like_a_session_is_none() -> None:
    assert name(session="s") != name(prefix="s")


def test_off_names_nothing() -> None:
    assert name(Affinity.OFF, session="s") == ""


@pytest.mark.parametrize("affinity", [Affinity.SESSION, Affinity.PREFIX])
def test_two_tenants_never_share_a_name(affinity: Affinity) -> None:
    assert name(affinity, tenant="acme", session="s") != name(affinity, tenant="globex", session="s")


def test_sidecars_with_one_salt_agree_and_those_with_none_do_not() -> None:
    assert name(session="s") == name(session="s")
    assert name(session="s", salt="other") != name(session="s")
    assert name(session="s", salt="") != name(session="s", salt="")


def test_a_name_is_short_and_fits_in_a_header() -> None:
    assert re.fullmatch("[0-9a-f]{24}", name(session="\ud800 Zoë \n" * 1000))


def test_names_spread() -> None:
    shards = Counter(int(name(session=str(number)), 16) % 4 for number in range(1000))

    assert min(shards.values()) > 150
