"""The section `models`: the names product teams use, and the routes of each."""

from __future__ import annotations

from collections.abc import Container
from types import MappingProxyType

from headgate.policy.model import DEFAULT_AUDIO_TOKENS_PER_SECOND, DEFAULT_IMAGE_TOKENS, Model, Route
from headgate.policy.node import Node, optional_integer
from headgate.policy.rules import Rule, RuleEngine, RuleError
from headgate.policy.sections.overrides import read_overrides

_REASON = r"[a-z][a-z0-9_]{0,62}"


def read_model(name: str, node: Node, *, clusters: Container[str] | None, engine: RuleEngine) -> Model:
    """One model, its conditions compiled."""
    fields = node.fields("degrade", "image_tokens", "audio_tokens_per_second", "tokenizer", required=("routes",))
    routes = fields["routes"].elements(empty="names no route") if "routes" in fields else []
    degrade = fields["degrade"].elements() if "degrade" in fields else []
    return Model(
        name=name,
        routes=tuple(_route(route, clusters, engine) for route in routes),
        degrade=tuple(cluster.reference("cluster", clusters) for cluster in degrade),
        image_tokens=fields["image_tokens"].integer(0, 1_000_000) if "image_tokens" in fields else DEFAULT_IMAGE_TOKENS,
        audio_tokens_per_second=(
            fields["audio_tokens_per_second"].number(0, 10_000)
            if "audio_tokens_per_second" in fields
            else DEFAULT_AUDIO_TOKENS_PER_SECOND
        ),
        tokenizer=fields["tokenizer"].text() if "tokenizer" in fields else None,
    )


def _route(node: Node, clusters: Container[str] | None, engine: RuleEngine) -> Route:
    fields = node.fields("when", "max_output_tokens", "reason", "overrides", required=("cluster",))
    return Route(
        cluster=fields["cluster"].reference("cluster", clusters) if "cluster" in fields else "",
        when=_rule(fields["when"], clusters, engine) if "when" in fields else None,
        max_output_tokens=optional_integer(fields, "max_output_tokens", minimum=1),
        reason=fields["reason"].text(_REASON, "lower_case_words") if "reason" in fields else None,
        overrides=read_overrides(fields["overrides"]) if "overrides" in fields else MappingProxyType({}),
    )


def _rule(node: Node, clusters: Container[str] | None, engine: RuleEngine) -> Rule | None:
    source = node.text()
    if not source:
        return None
    try:
        rule = engine.compile(source)
    except RuleError as error:
        node.report(f"is not a condition: {error}")
        return None
    for cluster in rule.clusters():
        if clusters is not None and cluster not in clusters:
            node.report(f"no cluster named '{cluster}'")
    return rule
