"""What the rendered files say about themselves: their first lines, and a comment above each part worth one."""

from __future__ import annotations

from collections.abc import Iterable

BOOTSTRAP = """\
A complete Envoy configuration for Headgate, generated from the policy by `headgate render envoy`.
Do not edit it: change the policy or the settings and render again. Addresses are options of the command.

Timeouts, body limits, clusters and the headers removed come from the policy: after a change of queue waits,
body sizes, endpoints or identity sources, render again and restart Envoy. Envoy 1.39 and 1.40 accept this file."""

FILTER = """\
Headgate's {filter} filter for an Envoy you have already, generated from the policy by `headgate render envoy`.
Each top-level key says where its content goes; README.md explains them."""

NOTES = {
    "envoy.http.early_header_mutation.header_mutation": (
        "Removed from every request before any filter or route sees it: a client chooses neither tenant nor cluster."
    ),
    "envoy.filters.http.ext_proc": """\
Who asks, for what, and does it run now. The gRPC stream stays open until the response has ended: it is the lease.
Fails closed: without the sidecar a request is answered 503. The timeout covers the longest queue wait.""",
    "envoy.filters.http.ratelimit": (
        "Requests and tokens a minute, by the tenant ext_proc has named. After ext_proc, whose metadata it charges."
    ),
    "envoy.filters.http.json_to_metadata": "Token usage of a JSON response, for the access log.",
    "envoy.filters.http.sse_to_metadata": "Token usage of a stream, read event by event without holding any back.",
    "envoy.filters.http.lua": "Counts a stream's events and adds up what Triton says of each.",
    "envoy.access_loggers.http_grpc": "One record per finished request, with all metadata, for the accesslog service.",
    "decided": "Where ext_proc sends a request. The buffer limit here is the longest JSON response.",
    "undecided_stream": """\
The same for KServe's gRPC stream, whose client may wait for an answer before it closes its side: the sidecar gets
the messages as they come, and passes on nothing before it has decided on the first.""",
    "undecided": """\
Where a request is until ext_proc has decided; if it stays here the answer is 404. The buffer limit here is the
longest request body. It has to be a route: under a direct_response Envoy ignores the limit.""",
    "headgate_extproc": "The sidecar. Its circuit breaker has to be out of the way: every open request is one stream.",
}


def model_clusters(names: Iterable[str]) -> str:
    """What a filter's file says of the clusters it sends requests to."""
    listed = "\n".join(f"  {name}" for name in sorted(names))
    return f"Requests go to these clusters, by the header x-model-cluster; define each:\n{listed}"
