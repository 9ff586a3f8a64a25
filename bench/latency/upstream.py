"""The model server of the benchmark: an Envoy that answers by itself, far faster than what is measured.

Its answer has the shape of a chat completion with usage, so that whoever reads usage has something to read.
"""

from __future__ import annotations

import json
from typing import Any

from bench.latency.question import HOLD_HEADER

Document = dict[str, Any]

HOLD_SECONDS = 5
"""How long an answer takes to a request with the hold header."""

_ANSWER = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "meta/llama-3.1-8b",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "It is your turn. " * 8}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 221, "completion_tokens": 64, "total_tokens": 285},
}
_FAULT = "envoy.filters.http.fault"


def upstream(port: int, admin_port: int) -> Document:
    """Its Envoy configuration."""
    manager = {
        "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "upstream",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [_held(), _answer()]}]},
        "http_filters": [
            # An answer before the end of the request would cost the connection.
            _filter("envoy.filters.http.buffer", "filters.http.buffer.v3.Buffer", max_request_bytes=1024 * 1024),
            _filter(_FAULT, "filters.http.fault.v3.HTTPFault"),
            _filter("envoy.filters.http.router", "filters.http.router.v3.Router"),
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "upstream", "address": _address(port), "filter_chains": [chain]}
    return {"admin": {"address": _address(admin_port)}, "static_resources": {"listeners": [listener]}}


def _answer() -> Document:
    json_type = {"key": "content-type", "value": "application/json"}
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps(_ANSWER)}},
        "response_headers_to_add": [{"header": json_type, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def _held() -> Document:
    fault = {
        "@type": _type("filters.http.fault.v3.HTTPFault"),
        "delay": {"fixed_delay": f"{HOLD_SECONDS}s", "percentage": {"numerator": 100}},
    }
    return _answer() | {
        "match": {"prefix": "/", "headers": [{"name": HOLD_HEADER, "present_match": True}]},
        "typed_per_filter_config": {_FAULT: fault},
    }


def _filter(name: str, kind: str, **config: object) -> Document:
    return {"name": name, "typed_config": {"@type": _type(kind), **config}}


def _type(kind: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{kind}"


def _address(port: int) -> Document:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
