"""The section `models`: the names product teams use, and the routes of each."""

from __future__ import annotations

from collections.abc import Container

from headgate.policy.model import Model, Route
from headgate.policy.node import Node, optional_integer
from headgate.policy.rules import Rule, RuleEngine, RuleError

_REASON = r"[a-z][a-z0-9_]{0,62}"


def read_model(name: str, node: Node, *, clusters: Container[str] | None, engine: RuleEngine) -> Model:
    """One model, its conditions compiled."""
    fields = node.fields("degrade", required=("routes",))
    routes = fields["routes"].elements(empty="names no route") if "routes" in fields else []
    degrade = fields["degrade"].elements() if "degrade" in fields else []
    return Model(
        name=name,
        routes=tuple(_route(route, clusters, engine) for route in routes),
        degrade=tuple(cluster.reference("cluster", clusters) for cluster in degrade),
    )


def _route(node: Node, clusters: Container[str] | None, engine: RuleEngine) -> Route:
    fields = node.fields("when", "max_output_tokens", "reason", required=("cluster",))
    return Route(
        cluster=fields["cluster"].reference("cluster", clusters) if "cluster" in fields else "",
        when=_rule(fields["when"], clusters, engine) if "when" in fields else None,
        max_output_tokens=optional_integer(fields, "max_output_tokens", minimum=1),
        reason=fields["reason"].text(_REASON, "lower_case_words") if "reason" in fields else None,
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
