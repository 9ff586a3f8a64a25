"""The section `tiers`: what each class of service is owed, and what becomes of it under overload."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.policy.model import (
    DEFAULT_MAX_BODY_BYTES,
    DEFAULT_QUEUE_BYTES,
    MAX_BODY_BYTES,
    OutputTokens,
    Queue,
    Rung,
    Tier,
)
from headgate.policy.node import Node, optional_integer

MAX_WAIT_SECONDS = 3000.0
"""Envoy's message timeout ends at one hour; the rest is margin."""
# Shares that add up to the whole on paper may miss it by a rounding error.
_WHOLE = 1.0 + 1e-9


def read_tier(name: str, node: Node) -> Tier:
    """One tier."""
    fields = node.fields(
        "reserved", "concurrency", "queue", "on_overload", "output_tokens", "slo", "preemptible", "max_body",
        required=("priority",),
    )  # fmt: skip
    concurrency = fields["concurrency"].fields("tier", "tenant") if "concurrency" in fields else {}
    queue = _queue(fields["queue"]) if "queue" in fields else None
    ladder = _ladder(fields["on_overload"]) if "on_overload" in fields else (Rung.REJECT,)
    if Rung.QUEUE in ladder and "queue" not in fields:
        fields["on_overload"].report("names queue, but the tier has no queue")
    slo = fields["slo"].fields("ttft") if "slo" in fields else {}
    return Tier(
        name=name,
        priority=fields["priority"].integer(0, 1000) if "priority" in fields else 0,
        reserved=fields["reserved"].number(0, 1) if "reserved" in fields else 0.0,
        tier_concurrency=optional_integer(concurrency, "tier"),
        tenant_concurrency=optional_integer(concurrency, "tenant"),
        queue=queue,
        on_overload=ladder,
        output_tokens=_output_tokens(fields["output_tokens"]) if "output_tokens" in fields else OutputTokens(),
        ttft_slo_seconds=slo["ttft"].seconds() if "ttft" in slo else None,
        preemptible=fields["preemptible"].boolean() if "preemptible" in fields else False,
        max_body_bytes=_max_body(fields["max_body"]) if "max_body" in fields else DEFAULT_MAX_BODY_BYTES,
    )


def check_reservations(node: Node, tiers: Mapping[str, Tier]) -> None:
    """No more may be reserved than there is."""
    total = sum(tier.reserved for tier in tiers.values())
    if total > _WHOLE:
        node.report(f"reserve {total * 100:g}% of every cluster in all; more than there is")


def _queue(node: Node) -> Queue | None:
    fields = node.fields("max_bytes", required=("max_wait", "max_depth"))
    if "max_wait" not in fields or "max_depth" not in fields:
        return None
    wait_seconds = fields["max_wait"].seconds()
    if wait_seconds > MAX_WAIT_SECONDS:
        fields["max_wait"].report(f"has to be at most {MAX_WAIT_SECONDS:.0f}s: Envoy holds no request longer")
    return Queue(
        max_wait_seconds=wait_seconds,
        max_depth=fields["max_depth"].integer(0, 1_000_000),
        max_bytes=fields["max_bytes"].size_bytes() if "max_bytes" in fields else DEFAULT_QUEUE_BYTES,
    )


def _ladder(node: Node) -> tuple[Rung, ...]:
    steps = node.elements(empty="names no step")
    rungs = tuple(rung for step in steps if (rung := step.choice(Rung)) is not None)
    if not steps or len(rungs) < len(steps):
        return (Rung.REJECT,)
    if len(set(rungs)) < len(rungs):
        node.report("names a step twice")
    elif rungs[-1] is not Rung.REJECT:
        node.report("has to end with reject")
    return rungs


def _output_tokens(node: Node) -> OutputTokens:
    fields = node.fields("default", "max")
    tokens = OutputTokens(
        default=optional_integer(fields, "default", minimum=1),
        max=optional_integer(fields, "max", minimum=1),
    )
    if tokens.default and tokens.max and tokens.default > tokens.max:
        fields["default"].report(f"is above the max of {tokens.max}")
    return tokens


def _max_body(node: Node) -> int:
    size = node.size_bytes()
    if size and not 1024 <= size <= MAX_BODY_BYTES:
        node.report("has to be between 1KiB and 256MiB")
    return size
