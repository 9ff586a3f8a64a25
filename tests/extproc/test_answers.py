"""Questions about the policy itself, answered without a model server."""

from __future__ import annotations

import json

import pytest

from extproc import answers
from extproc.inspection.target import parse_target
from headgate.policy.model import Policy


def answered(policy: Policy, path: str) -> bytes | None:
    return answers.metadata(policy, parse_target("GET", path))


def test_the_models_are_those_of_the_policy(policy: Policy) -> None:
    body = answered(policy, "/v1/models")

    assert body is not None
    assert json.loads(body) == {
        "object": "list",
        "data": [
            {"id": "assistant", "object": "model", "created": 0, "owned_by": "headgate"},
            {"id": "sentiment", "object": "model", "created": 0, "owned_by": "headgate"},
        ],
    }


def test_one_model_answers_for_itself(policy: Policy) -> None:
    body = answered(policy, "/v1/models/assistant")

    assert body is not None
    assert json.loads(body) == {"id": "assistant", "object": "model", "created": 0, "owned_by": "headgate"}


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_health_is_an_empty_yes(policy: Policy, path: str) -> None:
    assert answered(policy, path) == b""


def test_the_server_calls_itself_headgate_in_the_version_of_its_policy(policy: Policy) -> None:
    body = answered(policy, "/v2")

    assert body is not None
    assert json.loads(body) == {
        "name": "headgate",
        "version": policy.version,
        "extensions": ["generate", "binary_tensor_data"],
    }


@pytest.mark.parametrize("path", ["/v2/models/assistant", "/v2/models/assistant/config"])
def test_what_only_triton_knows_of_a_model_is_left_to_it(policy: Policy, path: str) -> None:
    assert answered(policy, path) is None


@pytest.mark.parametrize(
    ("path", "frontend"),
    [
        ("/v2/models/assistant/config", "best.triton"),
        ("/v2/models/sentiment/ready", "sentiment"),
        ("/v2/models/nope", None),
        ("/v2", None),
        ("/v1/models/assistant", None),
        ("/elsewhere", None),
    ],
)
def test_tritons_questions_go_to_the_first_cluster_that_serves_the_model_over_its_api(
    policy: Policy, path: str, frontend: str | None
) -> None:
    found = answers.metadata_frontend(policy, parse_target("GET", path))

    assert (found.envoy_cluster if found else None) == frontend
