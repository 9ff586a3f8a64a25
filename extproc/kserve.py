"""What KServe's gRPC clients ask about the gateway itself: whether it is up, and which models it has.

Answers from the policy; questions about one model go to the server that runs it. The only module here, with
`inspection.kserve_grpc`, that names KServe's protobuf types.
"""

from __future__ import annotations

from collections.abc import Callable

from headgate.pb import kserve_pb2 as pb
from headgate.policy.model import Policy, Protocol
from headgate.transport import Service

SERVICE_NAME = "inference.GRPCInferenceService"


def kserve_service(policy: Callable[[], Policy], is_ready: Callable[[], bool]) -> Service:
    """What a transport serves; `policy` yields the one in force."""
    return Service(
        name=SERVICE_NAME,
        functions={
            "ServerLive": lambda _: pb.ServerLiveResponse(live=True).SerializeToString(),
            "ServerReady": lambda _: pb.ServerReadyResponse(ready=is_ready()).SerializeToString(),
            "ServerMetadata": lambda _: _server(policy()),
            "RepositoryIndex": lambda _: _models(policy()),
        },
    )


def _server(policy: Policy) -> bytes:
    return pb.ServerMetadataResponse(name="headgate", version=policy.version).SerializeToString()


def _models(policy: Policy) -> bytes:
    """The models of the policy that some cluster serves over this API."""
    names = [
        name
        for name, model in policy.models.items()
        if any(Protocol.KSERVE_GRPC in policy.clusters[route.cluster].frontends for route in model.routes)
    ]
    index = [pb.RepositoryIndexResponse.ModelIndex(name=name, state="READY") for name in names]
    return pb.RepositoryIndexResponse(models=index).SerializeToString()
