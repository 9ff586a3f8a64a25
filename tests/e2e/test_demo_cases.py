"""Every case of the demo holds, on both Envoy releases and both transports; afterwards nothing is held."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headgate_cli.demo.cases import CASES, Demo
from headgate_cli.demo.client import Client
from headgate_cli.stack import Stack
from tests.e2e.conftest import Sidecar

ROW_KEYS = {
    "case", "tenant", "tier", "protocol", "prompt_tokens", "cluster", "verdict", "reason", "status", "ttft_seconds",
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_case_shows_what_it_promises(case: Callable[[Demo], None], client: Client, stack: Stack) -> None:
    check(case, client, stack.admin_url)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_case_shows_it_on_the_reference_transport_too(case: Callable[[Demo], None], on_grpcio: Sidecar) -> None:
    with Client(on_grpcio.url, on_grpcio.log) as client:
        check(case, client, on_grpcio.admin_url)


def check(case: Callable[[Demo], None], client: Client, admin_url: str) -> None:
    demo = Demo(case.__name__, client, admin_url)

    case(demo)

    assert demo.failures == []
    assert demo.rows
    assert all(set(row.as_dict()) == ROW_KEYS for row in demo.rows)
    assert demo.wait_until("headgate_open_streams", lambda count: count == 0.0)
    for cluster in ("best", "standard", "fast", "long-context"):
        assert demo.metric(f'headgate_leases{{name="{cluster}",scope="cluster_concurrency"}}') == 0.0
