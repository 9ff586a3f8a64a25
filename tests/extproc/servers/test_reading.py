"""What several servers come to."""

from __future__ import annotations

import pytest

from extproc.servers.iterations import read_iterations
from extproc.servers.reading import Reading, combine, is_unavailable, saturation


@pytest.mark.parametrize(
    ("readings", "full"),
    [
        ([Reading()], 0.0),
        ([Reading(waiting=0, kv_cache_usage=0.25)], 0.25),
        ([Reading(waiting=3, kv_cache_usage=0.25)], 0.6),
        ([Reading(waiting=500)], 1.0),
        ([Reading(waiting=500), Reading(waiting=0)], 0.5),
        ([Reading(is_ready=False), Reading(is_ready=True)], 0.5),
        ([Reading(is_ready=True), Reading(waiting=5)], 1.0),
        ([Reading(running=32, slots=32)], 0.0),
    ],
)
def test_a_cluster_is_as_full_as_its_queues_its_caches_and_its_absences(readings: list[Reading], full: float) -> None:
    assert saturation(readings) == pytest.approx(full)


READY, NOT_READY, TRITON_PAGE = Reading(is_ready=True), Reading(is_ready=False), Reading(is_triton_page=True)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], True),
        ([NOT_READY], True),
        ([NOT_READY, NOT_READY], True),
        ([NOT_READY, TRITON_PAGE], True),
        ([TRITON_PAGE], False),
        ([READY, TRITON_PAGE], False),
        ([NOT_READY, READY], False),
        ([NOT_READY, Reading(waiting=0)], False),
        ([READY], False),
        ([Reading(waiting=500)], False),
        ([Reading()], False),
        ([NOT_READY, None], False),
        ([None], False),
    ],
)
def test_a_cluster_is_unavailable_when_nobody_there_is_ready_and_nobody_is_silent(
    said: list[Reading | None], expected: bool
) -> None:
    assert is_unavailable(said) is expected


def test_requests_add_up_and_shares_are_means_over_those_who_tell() -> None:
    readings = [
        Reading(waiting=1, running=4, slots=8, kv_cache_usage=0.25, is_ready=True),
        Reading(waiting=2, running=4, slots=8, kv_cache_usage=0.75, is_ready=False, queue_seconds=0.5),
        Reading(),
    ]

    assert combine(readings) == Reading(
        waiting=3, running=8, slots=16, kv_cache_usage=0.5, is_ready=False, queue_seconds=0.5
    )


def test_the_newest_iteration_of_trtllm_serve_counts() -> None:
    body = b"""[
      {"iter": 1, "numActiveRequests": 1, "numQueuedRequests": 9},
      {"iter": 2, "iterLatencyMS": 4.2, "numActiveRequests": 3, "numQueuedRequests": 2, "maxNumActiveRequests": 8,
       "kvCacheStats": {"maxNumBlocks": 200, "freeNumBlocks": 150, "usedNumBlocks": 50}}
    ]"""

    assert read_iterations(body) == Reading(waiting=2, running=3, slots=8, kv_cache_usage=0.25)


def test_no_iteration_since_the_last_look_says_nothing() -> None:
    assert read_iterations(b"[]") == Reading()


@pytest.mark.parametrize("body", [b"[1]", b'[{"numActiveRequests": "two"}]', b"[{]", b"[\xff]"])
def test_other_json_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_iterations(body)
