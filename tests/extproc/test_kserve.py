"""What the sidecar answers for itself, as NVIDIA's own messages read it."""

from __future__ import annotations

import pytest
from tritonclient.grpc import service_pb2 as triton

from extproc.kserve import SERVICE_NAME, kserve_service
from headgate.policy.load import load_policy
from headgate.policy.model import Policy
from headgate.settings import DEFAULT_POLICY
from headgate.transport import FunctionHandler

DEFAULT = load_policy(DEFAULT_POLICY.read_bytes(), "default.yaml")


def answering(method: str, policy: Policy = DEFAULT, *, is_ready: bool = True) -> FunctionHandler:
    service = kserve_service(lambda: policy, lambda: is_ready)
    assert service.name == SERVICE_NAME == triton.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    return service.functions[method]


def test_a_sidecar_that_answers_is_live() -> None:
    assert triton.ServerLiveResponse.FromString(answering("ServerLive", is_ready=False)(b"")).live


@pytest.mark.parametrize("is_ready", [True, False])
def test_it_is_ready_as_long_as_new_work_is_welcome(is_ready: bool) -> None:
    answer = answering("ServerReady", is_ready=is_ready)(b"")

    assert triton.ServerReadyResponse.FromString(answer).ready is is_ready


def test_it_calls_itself_headgate_in_the_version_of_its_policy() -> None:
    answer = triton.ServerMetadataResponse.FromString(answering("ServerMetadata")(b""))

    assert (answer.name, answer.version) == ("headgate", DEFAULT.version)


def test_its_models_are_those_that_some_cluster_serves_over_grpc(policy: Policy) -> None:
    index = triton.RepositoryIndexResponse.FromString(answering("RepositoryIndex")(b""))
    assert [(model.name, model.state) for model in index.models] == [("assistant", "READY"), ("sentiment", "READY")]

    assert answering("RepositoryIndex", policy)(b"") == b""
