"""The Envoy that asks the servers: for each a listener with the ext_proc filter, and one with the rate limit filter.

What it admits it answers itself, so that Envoy and the server are all there is.
"""

from __future__ import annotations

from collections.abc import Mapping

Document = dict[str, object]

EXT_PROC = "ext_proc"
RATE_LIMIT = "rate_limit"
_ANSWER = "answer"
_ADMITTED: Document = {"status": 200, "body": {"inline_string": "admitted"}}
_BUFFER_BYTES = 16 * 1024 * 1024


def bootstrap(
    servers: Mapping[str, str], ports: Mapping[tuple[str, str], int], answer_port: int, admin_port: int = 0
) -> Document:
    """Envoy's configuration.

    Args:
        servers: addresses by name, `host:port` or `unix:/path`.
        ports: where to listen for the filter and the server of that name.
        answer_port: of the listener that answers what the rate limit filter has admitted; Envoy limits only what it
            routes to a cluster.
        admin_port: of Envoy's admin side; 0 for any.
    """
    listeners = [_listener(kind, server, port) for (kind, server), port in ports.items()]
    answering = _chain(_ANSWER, [], {"direct_response": _ADMITTED})
    listeners.append({"name": _ANSWER, "address": _address(f"127.0.0.1:{answer_port}"), "filter_chains": [answering]})
    servers = {**servers, _ANSWER: f"127.0.0.1:{answer_port}"}
    return {
        "admin": {"address": _address(f"127.0.0.1:{admin_port}")},
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    # The stream's end arrives as a half-close every time, not as a reset now and then.
                    "static_layer": {"envoy.reloadable_features.ext_proc_graceful_grpc_close": True},
                }
            ]
        },
        "static_resources": {
            "listeners": listeners,
            "clusters": [_cluster(name, address) for name, address in servers.items()],
        },
    }


def _listener(kind: str, server: str, port: int) -> Document:
    name = f"{kind}_{server}"
    if kind == EXT_PROC:
        chain = _chain(name, [_ext_proc(server)], {"direct_response": _ADMITTED})
    else:
        chain = _chain(name, [_rate_limit(server)], {"route": {"cluster": _ANSWER}})
    return {
        "name": name,
        "address": _address(f"127.0.0.1:{port}"),
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
    }


def _chain(name: str, filters: list[Document], action: Document) -> Document:
    decision = {"header": {"key": "x-decision", "value": "%DYNAMIC_METADATA(headgate:decision)%"}}
    host = {
        "name": name,
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, **action}],
        "response_headers_to_add": [decision],
    }
    manager = _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config={"virtual_hosts": [host]},
        http_filters=[*filters, _filter("router", "router.v3.Router")],
    )
    return {"filters": [{"name": "http", "typed_config": manager}]}


def _ext_proc(server: str) -> Document:
    return _filter(
        "ext_proc",
        "ext_proc.v3.ExternalProcessor",
        grpc_service=_service(server),
        message_timeout="60s",
        # The lease mode: the stream lives exactly as long as the request.
        processing_mode={
            "request_header_mode": "SEND",
            "request_body_mode": "BUFFERED",
            "response_header_mode": "SKIP",
            "response_trailer_mode": "SEND",
        },
        metadata_options={"receiving_namespaces": {"untyped": ["headgate"]}},
        mutation_rules={"allow_all_routing": True},
    )


def _rate_limit(server: str) -> Document:
    return _filter(
        "ratelimit",
        "ratelimit.v3.RateLimit",
        domain="bench",
        timeout="5s",
        failure_mode_deny=True,
        rate_limit_service={"transport_api_version": "V3", "grpc_service": _service(server)},
        rate_limits=[{"actions": [{"generic_key": {"descriptor_value": "bench"}}]}],
    )


def _service(server: str) -> Document:
    return {"envoy_grpc": {"cluster_name": server}}


def _cluster(name: str, address: str) -> Document:
    endpoint = {"endpoint": {"address": _address(address)}}
    many = 1_000_000
    threshold = {"max_requests": many, "max_pending_requests": many, "max_connections": many}
    cluster: Document = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [threshold]},
    }
    if name != _ANSWER:
        options = "extensions.upstreams.http.v3.HttpProtocolOptions"
        http2 = _typed(options, explicit_http_config={"http2_protocol_options": {}})
        cluster["typed_extension_protocol_options"] = {f"envoy.{options}": http2}
    return cluster


def _filter(name: str, kind: str, **fields: object) -> Document:
    return {"name": name, "typed_config": _typed(f"extensions.filters.http.{kind}", **fields)}


def _typed(kind: str, **fields: object) -> Document:
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def _address(address: str) -> Document:
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:")}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
