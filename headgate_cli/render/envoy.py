"""Policy + settings -> a complete Envoy configuration, and the two filters alone for an Envoy that is there already.

Built from envoy-data-plane's typed messages, so that a misspelt field fails here and not in Envoy. Importing them
takes half a second: import this module only where it is used.
"""

from __future__ import annotations

from typing import Any

import betterproto2
from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapStaticResources,
    LayeredRuntime,
    RuntimeLayer,
)
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.google.protobuf import Struct

from headgate.policy.model import Policy
from headgate_cli.render import clusters, filters, notes
from headgate_cli.render.listener import listener
from headgate_cli.render.routes import routes
from headgate_cli.render.settings import Address, EnvoySettings
from headgate_cli.render.timeouts import derive
from headgate_cli.render.yaml_text import comment, dump

Document = dict[str, Any]

# Without it Envoy ends each ext_proc stream with a reset, which the sidecar cannot tell from a failure.
_RUNTIME = {"envoy.reloadable_features.ext_proc_graceful_grpc_close": True}


def render_all(policy: Policy, settings: EnvoySettings) -> dict[str, str]:
    """Every file of the folder `envoy/` that is generated: path in it -> text.

    Raises:
        SettingsError: an address cannot be used.
    """
    return {
        "envoy.yaml": f"{comment(notes.BOOTSTRAP)}\n{dump(bootstrap(policy, settings), notes.NOTES)}",
        "filters/ext_proc.yaml": _filter_text("ext_proc", ext_proc_parts(policy, settings), policy),
        "filters/ratelimit.yaml": _filter_text("ratelimit", ratelimit_parts(policy, settings)),
    }


def bootstrap(policy: Policy, settings: EnvoySettings) -> Document:
    """The configuration as plain values, field names as in Envoy's protos.

    Raises:
        SettingsError: an address cannot be used.
    """
    typed = Bootstrap(
        node=Node(id="headgate", cluster="headgate"),
        admin=Admin(address=clusters.envoy_address(Address.parse(settings.admin))),
        layered_runtime=_layered_runtime(),
        static_resources=BootstrapStaticResources(
            listeners=[listener(policy, settings)],
            clusters=[*clusters.model_clusters(policy), *clusters.service_clusters(settings)],
        ),
    )
    document = _plain(typed)
    return {key: document[key] for key in ("node", "admin", "layered_runtime", "static_resources")}


def ext_proc_parts(policy: Policy, settings: EnvoySettings) -> Document:
    """The ext_proc filter and all that has to be true around it, by the place where each part belongs."""
    timeouts = derive(policy, settings)
    return {
        "http_connection_manager": {
            "early_header_mutation_extensions": [_plain(filters.spoofable_headers(policy))],
            "request_timeout": f"{timeouts.request.total_seconds():g}s",
            "stream_idle_timeout": f"{timeouts.stream_idle.total_seconds():g}s",
            "http_filters": [_plain(filters.ext_proc(policy, settings))],
        },
        "virtual_host": {"routes": [_plain(route) for route in routes(policy, timeouts)]},
        "clusters": [_plain(clusters.service_cluster(clusters.EXTPROC, settings.extproc))],
        "layered_runtime": _plain(_layered_runtime()),
    }


def ratelimit_parts(policy: Policy, settings: EnvoySettings) -> Document:
    """The ratelimit filter and its cluster."""
    return {
        "http_connection_manager": {"http_filters": [_plain(filters.ratelimit(policy, settings))]},
        "clusters": [_plain(clusters.service_cluster(clusters.RATELIMIT, settings.ratelimit))],
    }


def _filter_text(name: str, parts: Document, policy: Policy | None = None) -> str:
    head = comment(notes.FILTER.format(filter=name))
    if policy:
        names = (f.envoy_cluster for cluster in policy.clusters.values() for f in cluster.frontends.values())
        head += comment(notes.model_clusters(names))
    return f"{head}\n{dump(parts, notes.NOTES)}"


def _layered_runtime() -> LayeredRuntime:
    return LayeredRuntime(layers=[RuntimeLayer(name="headgate", static_layer=Struct.from_dict(_RUNTIME))])


def _plain(message: betterproto2.Message) -> Document:
    # The library's snake case makes consecutive_5_xx of consecutive_5xx; its field names are right as they are.
    return message.to_dict(casing=str)  # type: ignore[arg-type]
