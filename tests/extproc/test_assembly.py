"""The service put together: what has finished is learnt from."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.assembly import assemble
from headgate.lifecycle import Process
from headgate.record import RequestRecord
from headgate.settings import Settings
from tests import records

POLICY = """
apiVersion: headgate/v1
identity: [anonymous: {tenant: public}]
tenants: {public: {tier: standard}}
tiers: {standard: {priority: 0}}
models: {assistant: {routes: [{cluster: learnt}]}}
clusters:
  learnt: {protocol: openai, model: llama, endpoints: ["127.0.0.1:1", "127.0.0.1:2"], capacity: auto}
  told: {protocol: openai, model: llama, endpoints: ["127.0.0.1:3"], capacity: {requests: 7}}
  free: {protocol: openai, model: llama, endpoints: ["127.0.0.1:4"]}
"""


@pytest.fixture
def process(tmp_path: Path) -> Process:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return Process(Settings(policy=str(path)))


def ended(status: int) -> RequestRecord:
    nothing = dict.fromkeys(
        ("first_byte_seconds", "prompt_tokens", "output_tokens", "upstream_sent_seconds", "last_byte_seconds")
    )
    return records.finished(
        tier="standard", tenant="public", cluster="learnt", status=status, is_stream=False, **nothing
    )


def limits(process: Process) -> dict[str, float]:
    lines = process.metrics.exposition().decode().splitlines()
    shown = (line.rpartition(" ") for line in lines if line.startswith("headgate_cluster_limit{"))
    return {name.split('"')[1]: float(value) for name, _, value in shown}


def test_the_limit_of_every_cluster_is_shown_and_follows_what_has_finished(process: Process) -> None:
    assemble(process)
    assert limits(process) == {"learnt": 32.0, "told": 7.0}

    for _ in range(20):
        process.records.publish(ended(503))

    assert limits(process) == {"learnt": 16.0, "told": 7.0}
