"""The four systems compared, each as one Envoy configuration around the same listener and the same cluster.

The three without Headgate are the rendered configuration less everything of Headgate's. What each adds has the values
a careful operator would choose for LLM requests, not Envoy's defaults, which suit requests of milliseconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from bench.latency.baseline import without_headgate
from headgate.policy.model import Policy
from headgate_cli.render.envoy import bootstrap
from headgate_cli.render.settings import EnvoySettings

Document = dict[str, Any]

MODEL_CLUSTER = "standard"
PENDING_REQUESTS = 32
"""What the circuit breakers let wait in Envoy."""

_ADAPTIVE = "envoy.filters.http.adaptive_concurrency"
_ADAPTIVE_TYPE = "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency"


class System(StrEnum):
    """What stands between the clients and the cluster."""

    HEADGATE = "headgate"
    LEAST_REQUEST = "envoy_least_request"
    CIRCUIT_BREAKERS = "envoy_circuit_breakers"
    ADAPTIVE_CONCURRENCY = "envoy_adaptive_concurrency"


def configuration(
    system: System, policy: Policy, settings: EnvoySettings, *, slots: int, time_factor: float
) -> Document:
    """Its Envoy configuration; `slots` are those of the whole cluster."""
    rendered = bootstrap(policy, settings)
    if system is System.HEADGATE:
        return rendered
    alone = without_headgate(rendered, MODEL_CLUSTER)
    match system:
        case System.CIRCUIT_BREAKERS:
            alone["static_resources"]["clusters"][0]["circuit_breakers"] = _circuit_breakers(slots)
        case System.ADAPTIVE_CONCURRENCY:
            _http_filters(alone).insert(0, _adaptive_concurrency(slots, time_factor))
        case System.LEAST_REQUEST:
            pass
    return alone


def _circuit_breakers(slots: int) -> Document:
    limits = {
        "priority": "DEFAULT",
        "max_connections": slots,
        "max_requests": slots,
        "max_pending_requests": PENDING_REQUESTS,
    }
    return {"thresholds": [limits]}


def _adaptive_concurrency(slots: int, time_factor: float) -> Document:
    controller = {
        "sample_aggregate_percentile": {"value": 50},
        "concurrency_limit_params": {
            "max_concurrency_limit": 4 * slots,
            "concurrency_update_interval": _duration(1, time_factor),
        },
        "min_rtt_calc_params": {
            "interval": _duration(120, time_factor),
            "request_count": 20,
            "min_concurrency": 8,
            # Answers differ tenfold in length; without room for that the limit shrinks when nothing is wrong.
            # Envoy takes no more than 100.
            "buffer": {"value": 100},
            "jitter": {"value": 10},
        },
    }
    config = {"gradient_controller_config": controller, "enabled": {"default_value": True, "runtime_key": "adaptive"}}
    return {"name": _ADAPTIVE, "typed_config": {"@type": _ADAPTIVE_TYPE, **config}}


def _http_filters(document: Document) -> list[Document]:
    chain = document["static_resources"]["listeners"][0]["filter_chains"][0]
    filters: list[Document] = chain["filters"][0]["typed_config"]["http_filters"]
    return filters


def _duration(seconds: float, time_factor: float) -> str:
    return f"{seconds / time_factor:.3f}s"
