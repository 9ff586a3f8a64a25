"""Cluster names that lead nowhere: Envoy checks those of routes when it starts, and no others.

`envoy --mode validate` accepts a gRPC service on a cluster that does not exist, and cannot know what ext_proc will
write into `x-model-cluster`; both would be found by the first request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headgate.errors import Problem
from headgate.policy.model import Policy


def undefined_clusters(document: Mapping[str, Any], policy: Policy, file: str) -> list[Problem]:
    """One problem per use of a cluster that the configuration does not define, and per name defined twice.

    Args:
        document: an Envoy bootstrap as plain values, field names as in Envoy's protos.
        file: the configuration's name, for the messages.
    """
    names = [cluster["name"] for cluster in document.get("static_resources", {}).get("clusters", [])]
    uses = [*_used_by_document(document, ""), *_used_by_policy(policy)]
    undefined = [
        Problem(file, 0, path, f"no cluster named '{name}' is defined") for path, name in uses if name not in names
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    return undefined + [Problem(file, 0, "static_resources.clusters", f"'{name}' is defined twice") for name in twice]


def _used_by_policy(policy: Policy) -> Iterator[tuple[str, str]]:
    for cluster in policy.clusters.values():
        for frontend in cluster.frontends.values():
            yield f"clusters.{cluster.name} (x-model-cluster)", frontend.envoy_cluster


def _used_by_document(value: object, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case {"envoy_grpc": {"cluster_name": str(name)}}:
            yield f"{path}.envoy_grpc.cluster_name", name
        case {"route": {"cluster": str(name)}}:
            yield f"{path}.route.cluster", name
        case dict():
            for key, inner in value.items():
                yield from _used_by_document(inner, f"{path}.{key}" if path else key)
        case list():
            for index, inner in enumerate(value):
                yield from _used_by_document(inner, f"{path}[{index}]")
        case _:
            return
