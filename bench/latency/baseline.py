"""Envoy alone: the rendered configuration less everything that is Headgate's, so that the two cannot drift apart.

Listener, connection manager, model cluster and its connections stay as they are. What goes is what Headgate puts in:
its filters, the access log, the headers it strips and adds, its clusters, and the route by header.
"""

from __future__ import annotations

import copy
from typing import Any

Document = dict[str, Any]

_ROUTER = "envoy.filters.http.router"
_OF_HEADGATE = ("access_log", "early_header_mutation_extensions", "local_reply_config")
_OF_HEADGATE_IN_HOST = ("response_headers_to_add", "response_headers_to_remove")


def without_headgate(rendered: Document, model_cluster: str) -> Document:
    """The same Envoy with one route, to `model_cluster`.

    Raises:
        KeyError: the rendered configuration has another shape than expected.
    """
    alone = copy.deepcopy(rendered)
    resources = alone["static_resources"]
    resources["clusters"] = [cluster for cluster in resources["clusters"] if cluster["name"] == model_cluster]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [item for item in manager["http_filters"] if item["name"] == _ROUTER]
    for name in _OF_HEADGATE:
        del manager[name]
    host = manager["route_config"]["virtual_hosts"][0]
    for name in _OF_HEADGATE_IN_HOST:
        del host[name]
    host["routes"] = [_direct(host["routes"], model_cluster)]
    return alone


def _direct(routes: list[Document], model_cluster: str) -> Document:
    decided: Document = next(route for route in routes if route["name"] == "decided")
    action = decided["route"]
    del action["cluster_header"], decided["match"]["headers"]
    action["cluster"] = model_cluster
    return decided
