"""What a class of service is owed, and what is said of a wrong one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headgate.policy.model import OutputTokens, Policy, Queue, Rung, Tier

Accepted = Callable[[str, str], Policy]
Refused = Callable[[str, str], list[str]]

GOLD = "  gold: {priority: 0}"


def test_a_tier_that_says_everything_is_read_in_full(accepted: Accepted) -> None:
    policy = accepted(
        GOLD,
        """\
  gold:
    priority: 2
    reserved: 0.25
    concurrency: {tier: 64, tenant: 16}
    queue: {max_wait: 200ms, max_depth: 128}
    on_overload: [queue, degrade, reject]
    output_tokens: {default: 512, max: 1200}
    slo: {ttft: 500ms}
    preemptible: true
    max_body: 1MiB""",
    )

    assert policy.tiers["gold"] == Tier(
        name="gold",
        priority=2,
        reserved=0.25,
        tier_concurrency=64,
        tenant_concurrency=16,
        queue=Queue(max_wait_seconds=0.2, max_depth=128),
        on_overload=(Rung.QUEUE, Rung.DEGRADE, Rung.REJECT),
        output_tokens=OutputTokens(default=512, max=1200),
        ttft_slo_seconds=0.5,
        preemptible=True,
        max_body_bytes=1024 * 1024,
    )


def test_a_tier_that_says_only_its_priority_rejects_under_overload_and_has_no_limits(accepted: Accepted) -> None:
    tier = accepted(GOLD, "  gold: {priority: 7}").tiers["gold"]

    assert tier == Tier(name="gold", priority=7, on_overload=(Rung.REJECT,), max_body_bytes=8 * 1024 * 1024)
    assert (tier.tier_concurrency, tier.tenant_concurrency, tier.queue) == (None, None, None)


def test_the_largest_body_of_a_policy_is_that_of_its_most_generous_tier(accepted: Accepted) -> None:
    policy = accepted(GOLD, "  gold: {priority: 0, max_body: 2KiB}\n  silver: {priority: 1, max_body: 1KiB}")

    assert policy.max_body_bytes == 2048


@pytest.mark.parametrize(
    "shares", [("0.1",) * 10, ("0.7", "0.2", "0.1"), ("0.3", "0.3", "0.3", "0.1"), ("1",), ("0.15",) * 6 + ("0.1",)]
)
def test_shares_that_add_up_to_the_whole_may_be_reserved(shares: tuple[str, ...], accepted: Accepted) -> None:
    tiers = "".join(f"  t{i}: {{priority: {i}, reserved: {share}}}\n" for i, share in enumerate(shares))

    policy = accepted(GOLD, f"  gold: {{priority: 0}}\n{tiers}")

    assert len(policy.tiers) == len(shares) + 1


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        ("{}", ["policy.yaml:7 tiers.gold: 'priority' is missing"]),
        ("{priority: high}", ["policy.yaml:7 tiers.gold.priority: has to be a whole number, not 'high'"]),
        ("{priority: 0, reserved: 25%}", ["policy.yaml:7 tiers.gold.reserved: has to be a number, not '25%'"]),
        ("{priority: 0, reserved: 1.25}", ["policy.yaml:7 tiers.gold.reserved: has to be at most 1, not '1.25'"]),
        (
            "{priority: 0, reserved: 0.8}\n  silver: {priority: 1, reserved: 0.4}",
            ["policy.yaml:6 tiers: reserve 120% of every cluster in all; more than there is"],
        ),
        (
            "{priority: 0, reserved: 0.8}\n  silver: {priority: 1, reserved: 0.201}",
            ["policy.yaml:6 tiers: reserve 100.1% of every cluster in all; more than there is"],
        ),
        (
            "{priority: 0, concurrency: 64}",
            ["policy.yaml:7 tiers.gold.concurrency: has to be a mapping, not '64'"],
        ),
        (
            "{priority: 0, concurrency: {tiers: 64}}",
            ["policy.yaml:7 tiers.gold.concurrency.tiers: unknown key; did you mean 'tier'?"],
        ),
        (
            "{priority: 0, concurrency: {tier: -1}}",
            ["policy.yaml:7 tiers.gold.concurrency.tier: has to be at least 0, not '-1'"],
        ),
        (
            "{priority: 0, queue: {max_wait: 2s}}",
            ["policy.yaml:7 tiers.gold.queue: 'max_depth' is missing"],
        ),
        (
            "{priority: 0, queue: {max_wait: 2, max_depth: 4}}",
            ["policy.yaml:7 tiers.gold.queue.max_wait: has to be a duration such as 200ms, 2s or 5m, not '2'"],
        ),
        (
            "{priority: 0, queue: {max_wait: 2h, max_depth: 4}}",
            ["policy.yaml:7 tiers.gold.queue.max_wait: has to be at most 3000s: Envoy holds no request longer"],
        ),
        (
            "{priority: 0, queue: {max_wait: 2s, max_depth: 2_000_000}}",
            ["policy.yaml:7 tiers.gold.queue.max_depth: has to be at most 1000000, not '2_000_000'"],
        ),
        (
            "{priority: 0, on_overload: [queue, reject]}",
            ["policy.yaml:7 tiers.gold.on_overload: names queue, but the tier has no queue"],
        ),
        (
            "{priority: 0, on_overload: [quueue, reject]}",
            [
                "policy.yaml:7 tiers.gold.on_overload[0]: has to be one of queue, degrade, reject, not 'quueue'",
            ],
        ),
        (
            "{priority: 0, on_overload: [degrade]}",
            ["policy.yaml:7 tiers.gold.on_overload: has to end with reject"],
        ),
        (
            "{priority: 0, on_overload: [reject, degrade]}",
            ["policy.yaml:7 tiers.gold.on_overload: has to end with reject"],
        ),
        (
            "{priority: 0, on_overload: [reject, reject]}",
            ["policy.yaml:7 tiers.gold.on_overload: names a step twice"],
        ),
        ("{priority: 0, on_overload: []}", ["policy.yaml:7 tiers.gold.on_overload: names no step"]),
        (
            "{priority: 0, on_overload: reject}",
            ["policy.yaml:7 tiers.gold.on_overload: has to be a list, not 'reject'"],
        ),
        (
            "{priority: 0, output_tokens: {default: 512, max: 256}}",
            ["policy.yaml:7 tiers.gold.output_tokens.default: is above the max of 256"],
        ),
        (
            "{priority: 0, output_tokens: {max: 0}}",
            ["policy.yaml:7 tiers.gold.output_tokens.max: has to be at least 1, not '0'"],
        ),
        (
            "{priority: 0, slo: {ttft: fast}}",
            ["policy.yaml:7 tiers.gold.slo.ttft: has to be a duration such as 200ms, 2s or 5m, not 'fast'"],
        ),
        (
            "{priority: 0, preemptible: sometimes}",
            ["policy.yaml:7 tiers.gold.preemptible: has to be true or false, not 'sometimes'"],
        ),
        (
            "{priority: 0, max_body: 1GiB}",
            ["policy.yaml:7 tiers.gold.max_body: has to be between 1KiB and 256MiB"],
        ),
        (
            "{priority: 0, max_body: 10}",
            ["policy.yaml:7 tiers.gold.max_body: has to be between 1KiB and 256MiB"],
        ),
        (
            "{priority: 0, max_body: huge}",
            ["policy.yaml:7 tiers.gold.max_body: has to be a size such as 64KiB or 8MiB, not 'huge'"],
        ),
    ],
)
def test_a_wrong_tier_is_named(tier: str, expected: list[str], refused: Refused) -> None:
    assert refused(GOLD, f"  gold: {tier}") == expected


def test_a_policy_without_tiers_is_refused(refused: Refused) -> None:
    assert refused(GOLD, "  {}") == [
        "policy.yaml:5 tenants.acme.tier: no tier named 'gold'",
        "policy.yaml:6 tiers: names nothing",
    ]


def test_tiers_that_are_no_mapping_are_reported_without_every_tenant_that_names_one(refused: Refused) -> None:
    assert refused(GOLD, "  - gold") == ["policy.yaml:6 tiers: has to be a mapping, not a list"]
