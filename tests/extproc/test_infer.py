"""What a destination wants changed in tensors and in Triton's own parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extproc.infer import infer_changes
from extproc.inspection.infer_changes import InferChanges
from extproc.inspection.request import InferenceRequest, Prompt
from extproc.inspection.target import Operation
from extproc.routing import Destination
from headgate.policy.model import Backend, Cluster, Frontend, Protocol

OVERRIDES = {"temperature": 0.5}
NOTHING = InferChanges()


def bound_for(priority: int = 0, overrides: dict[str, float] | None = None, **cluster: object) -> Destination:
    return Destination(
        cluster=replace(Cluster(name="best", frontends={}), **cluster),  # type: ignore[arg-type]
        frontend=Frontend(protocol=Protocol.TRITON, model="m", endpoints=("h:1",), envoy_cluster="best"),
        max_output_tokens=None,
        charged_tokens=0,
        prompt_tokens=0,
        is_degraded=False,
        reason="",
        priority=priority,
        overrides=overrides or {},
    )


def asking(*limits: str, texts: int = 0) -> InferenceRequest:
    return InferenceRequest(
        protocol=Protocol.TRITON,
        model="m",
        operation=Operation.INFER,
        output_limit_fields=limits,
        prompt=Prompt(messages=texts),
    )


@pytest.mark.parametrize(
    ("request_", "changes"),
    [
        (asking("max_tokens", texts=1), InferChanges(limit=9, overrides=OVERRIDES)),
        (asking("request_output_len"), InferChanges(limit=9, overrides=OVERRIDES)),
        (asking(texts=1), InferChanges(overrides=OVERRIDES)),
        (asking(), NOTHING),
    ],
    ids=["a prompt and a limit", "token ids and a limit", "a prompt", "no language model"],
)
def test_only_what_decodes_is_told_how(request_: InferenceRequest, changes: InferChanges) -> None:
    assert infer_changes(request_, bound_for(overrides=OVERRIDES), 9) == changes


def test_without_anything_to_change_there_is_nothing() -> None:
    changes = infer_changes(asking("max_tokens", texts=1), bound_for(), None)

    assert changes.is_nothing
    assert changes == NOTHING


@pytest.mark.parametrize(
    ("priority", "levels", "sent"), [(0, 3, 1), (1, 3, 2), (2, 3, 3), (3, 3, 3), (1000, 3, 3), (4, 1, 1)]
)
def test_the_tiers_priority_is_a_level_of_tritons_scheduler(priority: int, levels: int, sent: int) -> None:
    place = bound_for(priority, backend=Backend.TRITON, sends_priority=True, priority_levels=levels)

    assert infer_changes(asking(), place, None) == InferChanges(priority=sent)


@pytest.mark.parametrize(
    "cluster",
    [
        {"backend": Backend.TRITON, "priority_levels": 3},
        {"backend": Backend.TRITON, "sends_priority": True},
        {"backend": Backend.VLLM, "sends_priority": True},
        {"backend": Backend.TRTLLM, "sends_priority": True},
        {},
    ],
)
def test_a_scheduler_without_levels_is_sent_no_priority(cluster: dict[str, object]) -> None:
    assert infer_changes(asking(), bound_for(2, **cluster), None).is_nothing
