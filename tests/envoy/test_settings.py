"""Addresses, and the timers derived from the policy."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headgate.errors import SettingsError
from headgate.policy.load import load_policy
from headgate.policy.model import Policy
from headgate.settings import DEFAULT_POLICY
from headgate_cli.render.settings import Address, EnvoySettings
from headgate_cli.render.timeouts import derive, longest_wait


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("triton.svc:8000", Address("triton.svc", 8000)),
        ("[::1]:8000", Address("::1", 8000)),
        ("unix:/run/headgate.sock", Address(path="/run/headgate.sock")),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":80", "host:0", "host:65536", "host:٣", "::1:80", "unix:relative"]
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match="is written") as refused:
        Address.parse(text)

    assert str(refused.value).startswith(repr(text))


@pytest.mark.parametrize(
    ("text", "literal"), [("10.0.0.1:1", True), ("[::1]:1", True), ("unix:/x", True), ("a:1", False)]
)
def test_only_a_name_has_to_be_looked_up(text: str, *, literal: bool) -> None:
    assert Address.parse(text).is_literal is literal


def _policy(longest: str) -> Policy:
    return load_policy(DEFAULT_POLICY.read_text().replace("600s", longest).encode(), "policy.yaml")


def test_no_timer_fires_while_a_request_may_still_wait_in_a_queue() -> None:
    policy = _policy("900s")

    timeouts = derive(policy, EnvoySettings(upload_seconds=30))

    assert longest_wait(policy) == timedelta(seconds=900)
    assert longest_wait(policy) < timeouts.message < timeouts.stream_idle
    assert timeouts.request - timeouts.message == timedelta(seconds=30)


def test_the_longest_wait_a_policy_may_name_is_within_what_envoy_accepts() -> None:
    assert derive(_policy("3000s"), EnvoySettings()).message < timedelta(hours=1)
