"""The poller against servers on real sockets: scripted ones, our trtllm-serve stand-in, and a real Triton."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from extproc.servers.gauges import show_servers
from extproc.servers.poller import ServerPoller
from extproc.servers.watch import Timing
from headgate.metrics import Metrics
from headgate.policy.model import MetricsAddress, Policy

TIMING = Timing(interval_seconds=0.05, timeout_seconds=0.2, stale_seconds=60.0)
VLLM = "vllm:num_requests_waiting 3\nvllm:num_requests_running 8\nvllm:kv_cache_usage_perc 0.25\n"


class Clock:
    """Real time, and as much more as a test adds."""

    def __init__(self) -> None:
        self.added_seconds = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.added_seconds


@asynccontextmanager
async def polling(
    policy: Policy, timing: Timing = TIMING, clock: Callable[[], float] | None = None, **options: Any
) -> AsyncIterator[ServerPoller]:
    poller = ServerPoller(timing, clock or Clock(), **options)
    poller.follow(policy)
    await poller.start()
    try:
        yield poller
    finally:
        await poller.stop()


async def test_what_a_server_says_becomes_the_clusters_load(start_server: Any, serving: Any, until: Any) -> None:
    server = await start_server(metrics=VLLM)

    async with polling(serving(gpu=[server.place])) as poller:
        await until(lambda: poller.load("gpu"))
        load = poller.load("gpu")

    assert (load.saturation, load.queue_depth) == (0.6, 3)
    assert 0.0 <= load.age_seconds < 60.0


async def test_a_change_is_seen_and_the_page_once_found_is_asked_alone(
    start_server: Any, serving: Any, until: Any
) -> None:
    server = await start_server(metrics=VLLM)

    async with polling(serving(gpu=[server.place])) as poller:
        await until(lambda: poller.load("gpu"))
        server.pages["/metrics"] = VLLM.replace("waiting 3", "waiting 1")
        await until(lambda: poller.load("gpu").queue_depth == 1)

    assert server.asked[:2] == ["/prometheus/metrics", "/metrics"]
    assert set(server.asked[2:]) == {"/metrics"}


async def test_trtllm_serves_list_is_left_alone_where_there_is_a_page(
    start_server: Any, serving: Any, until: Any
) -> None:
    both = await start_server(
        prometheus__metrics="trtllm_num_requests_waiting 2\n", metrics='[{"numQueuedRequests":9}]'
    )
    only = await start_server(metrics='[{"numQueuedRequests":4}]')

    async with polling(serving(both=[both.place], only=[only.place])) as poller:
        await until(lambda: poller.load("both") and poller.load("only"))
        depths = [poller.load(name).queue_depth for name in ("both", "only")]

    assert depths == [2, 4]
    assert set(both.asked) == {"/prometheus/metrics"}


async def test_a_path_the_policy_names_is_the_only_one_asked(start_server: Any, serving: Any, until: Any) -> None:
    server = await start_server(v1__metrics="num_requests_waiting 1\n", metrics=VLLM)

    async with polling(serving(gpu=[MetricsAddress(server.address, "/v1/metrics")])) as poller:
        await until(lambda: poller.load("gpu"))

    assert set(server.asked) == {"/v1/metrics"}


async def test_replicas_of_a_cluster_count_together(start_server: Any, serving: Any, until: Any) -> None:
    servers = [await start_server(metrics=f"vllm:num_requests_waiting {waiting}\n") for waiting in (0, 2)]

    async with polling(serving(gpu=[server.place for server in servers])) as poller:
        await until(lambda: poller.load("gpu") and poller.load("gpu").queue_depth == 2)
        assert poller.load("gpu").saturation == pytest.approx(0.2)


async def test_a_server_that_hangs_delays_no_other(start_server: Any, serving: Any, until: Any) -> None:
    quick, slow = await start_server(metrics=VLLM), await start_server(metrics=VLLM)
    slow.silence = True
    failures: Counter[str] = Counter()

    def failed(cluster: str) -> None:
        failures[cluster] += 1

    policy = serving(quick=[quick.place], slow=[slow.place])
    async with polling(policy, Timing(interval_seconds=0.01, timeout_seconds=0.3), failed=failed) as poller:
        await until(lambda: failures["slow"] >= 1)
        assert poller.load("slow") is None
        assert poller.load("quick").queue_depth == 3

    assert len(quick.asked) > 3 * len(slow.asked)
    assert failures["quick"] == 0


@pytest.mark.parametrize(
    ("status", "page"),
    [
        (200, "vllm:num_requests_waiting many\n"),
        (200, "<html>404</html>"),
        (200, "[1]"),
        (200, "x" * (9 * 1024 * 1024)),
        (500, VLLM),
        (302, VLLM),
    ],
    ids=["not a number", "another page", "other json", "too long", "an error", "a redirect"],
)
async def test_an_answer_that_tells_nothing_is_counted_and_harms_nothing(
    status: int, page: str, start_server: Any, serving: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start_server(metrics=page)
    server.status = status
    failures: list[str] = []
    with caplog.at_level(logging.WARNING, "headgate.servers"):
        async with polling(serving(gpu=[server.place]), failed=failures.append) as poller:
            await until(lambda: len(failures) >= 2)
            assert poller.load("gpu") is None
            server.status, server.pages["/metrics"] = 200, VLLM
            await until(lambda: poller.load("gpu"))

    assert set(failures) == {"gpu"}
    # Not a line for every failure: one when it begins and one when it ends.
    assert len(caplog.records) == 2


async def test_nobody_there_is_an_error_too(serving: Any, until: Any) -> None:
    failures: list[str] = []

    async with polling(serving(gpu=[MetricsAddress("127.0.0.1:1")]), failed=failures.append) as poller:
        await until(lambda: failures)
        assert poller.load("gpu").is_unavailable


async def test_a_cluster_whose_servers_are_all_gone_is_unavailable_until_one_answers_again(
    start_server: Any, serving: Any, until: Any
) -> None:
    servers = [await start_server(metrics=VLLM) for _ in range(2)]
    metrics = Metrics()

    async with polling(serving(gpu=[server.place for server in servers])) as poller:
        show_servers(metrics, poller, TIMING)
        await until(lambda: poller.load("gpu") and poller.load("gpu").queue_depth == 6)
        assert _ready(metrics) is None
        servers[0].close()
        await until(lambda: poller.load("gpu").queue_depth == 3)
        half = poller.load("gpu")
        servers[1].close()
        await until(lambda: poller.load("gpu").is_unavailable)
        gone = (poller.load("gpu").saturation, poller.load("gpu").queue_depth, _ready(metrics))
        await servers[0].listen()
        await until(lambda: not poller.load("gpu").is_unavailable)
        back = poller.load("gpu")

    assert (half.is_unavailable, half.saturation) == (False, 0.6)
    assert gone == (1.0, 0, 0.0)
    assert (back.saturation, back.queue_depth) == (0.6, 3)


async def test_that_a_server_is_gone_counts_at_once_whatever_was_asked_just_before(
    start_server: Any, serving: Any, until: Any
) -> None:
    server = await start_server(metrics=VLLM)

    async with polling(serving(gpu=[server.place])) as poller:
        await until(lambda: poller.load("gpu"))
        server.close()
        async with asyncio.timeout(5):
            while (reading := poller.reading("gpu")) is None or reading.is_ready is not False:
                assert poller.load("gpu") is not None
                await asyncio.sleep(0.001)

        assert poller.load("gpu").is_unavailable


async def test_a_server_that_falls_silent_is_not_gone_however_long_it_is(
    start_server: Any, serving: Any, until: Any
) -> None:
    gone, slow, clock, failures = await start_server(), await start_server(), Clock(), Counter[str]()
    gone.close()
    slow.silence = True

    policy = serving(gpu=[gone.place, slow.place], dead=[gone.place])
    async with polling(policy, clock=clock, failed=lambda cluster: failures.update([cluster])) as poller:
        await until(lambda: failures["gpu"] > 4 and poller.load("dead"))
        assert poller.load("gpu") is None
        assert poller.load("dead").is_unavailable


@pytest.mark.parametrize("is_grpc", [False, True], ids=["a page", "gRPC"])
async def test_a_server_that_is_gone_and_then_silent_is_not_known_to_be_gone(
    start_server: Any, serving: Any, until: Any, is_grpc: bool
) -> None:
    server = await start_server()
    server.close()

    async with polling(serving(gpu=[MetricsAddress(server.address, is_grpc=is_grpc)])) as poller:
        await until(lambda: poller.load("gpu"))
        assert poller.load("gpu").is_unavailable
        server.silence = True
        await server.listen()
        await until(lambda: poller.load("gpu") is None)


async def test_that_a_server_is_gone_counts_until_it_is_stale(serving: Any, until: Any) -> None:
    clock = Clock()
    timing = replace(TIMING, interval_seconds=60.0)

    async with polling(serving(gpu=[MetricsAddress("127.0.0.1:1")]), timing, clock) as poller:
        await until(lambda: poller.load("gpu"))
        clock.added_seconds = 61.0
        assert poller.load("gpu") is None


async def test_a_server_that_answers_nonsense_is_there(start_server: Any, serving: Any, until: Any) -> None:
    server, failures = await start_server(), list[str]()

    async with polling(serving(gpu=[server.place]), failed=failures.append) as poller:
        await until(lambda: len(failures) > 1)
        assert poller.load("gpu") is None


async def test_an_answer_counts_until_it_is_stale(start_server: Any, serving: Any, until: Any) -> None:
    server, clock = await start_server(metrics=VLLM), Clock()

    async with polling(serving(gpu=[server.place]), clock=clock) as poller:
        await until(lambda: poller.load("gpu"))
        server.silence = True
        await until(lambda: poller.age_seconds("gpu") > 0.1)
        assert poller.load("gpu").queue_depth == 3
        clock.added_seconds = 61.0
        assert poller.load("gpu") is None
        assert poller.age_seconds("gpu") > 61.0


async def test_a_new_policy_changes_who_is_asked(start_server: Any, serving: Any, until: Any) -> None:
    old, kept, new = [await start_server(metrics=VLLM) for _ in range(3)]

    async with polling(serving(gpu=[old.place], kept=[kept.place])) as poller:
        await until(lambda: poller.load("gpu") and poller.load("kept"))
        poller.follow(serving(kept=[kept.place], other=[new.place]))
        assert poller.load("gpu") is None
        assert poller.load("kept").queue_depth == 3, "what stays is not forgotten"
        await until(lambda: poller.load("other"))
        asked = len(old.asked)
        await until(lambda: len(new.asked) > 4)

    assert len(old.asked) <= asked + 1


async def test_what_was_said_is_shown_as_metrics(start_server: Any, serving: Any, until: Any) -> None:
    server, metrics = await start_server(metrics=VLLM), Metrics()

    async with polling(serving(gpu=[server.place], dark=[MetricsAddress("127.0.0.1:1")])) as poller:
        show_servers(metrics, poller, TIMING)
        await until(lambda: poller.load("gpu"))
        shown = {
            name: metrics.registry.get_sample_value(f"headgate_{name}", {"cluster": "gpu"})
            for name in ("server_queue_depth", "server_running_requests", "server_kv_cache_usage", "server_ready")
        }
        ages = [
            metrics.registry.get_sample_value("headgate_signal_age_seconds", {"cluster": c}) for c in ("gpu", "dark")
        ]

    assert shown == {
        "server_queue_depth": 3.0,
        "server_running_requests": 8.0,
        "server_kv_cache_usage": 0.25,
        "server_ready": None,
    }
    assert None not in ages
    assert metrics.registry.get_sample_value("headgate_server_queue_depth", {"cluster": "dark"}) is None
    assert metrics.registry.get_sample_value("headgate_signal_stale_seconds") == 60.0


async def test_a_real_triton_is_asked_about_the_models_of_the_ensemble(triton: Any, serving: Any, until: Any) -> None:
    page = MetricsAddress(triton.metrics_url.removeprefix("http://").removesuffix("/metrics"))
    grpc = MetricsAddress(triton.grpc_address, is_grpc=True)
    policy = serving(best=[page, grpc]).clusters | serving("sentiment", sentiment=[page, grpc]).clusters
    slots = int(triton.requests("best_tensorrt_llm", "max"))

    async with polling(_with(serving(), policy), Timing(interval_seconds=0.05, timeout_seconds=5.0)) as poller:
        await until(lambda: poller.reading("best") and poller.reading("best").slots and poller.reading("best").is_ready)
        async with httpx.AsyncClient(base_url=str(triton.http.base_url), timeout=60.0) as client:
            streams = [asyncio.create_task(_generate(client)) for _ in range(slots + 5)]
            await until(lambda: poller.reading("best").running == slots and poller.load("best").queue_depth == 5)
            busy, other = poller.reading("best"), poller.reading("sentiment")
            full = poller.load("best").saturation
            await asyncio.gather(*streams)
        await until(lambda: poller.load("best").queue_depth == 0 and poller.reading("best").running == 0)

    assert (busy.slots, full) == (slots, 1.0)
    assert 0.0 < busy.kv_cache_usage <= 1.0
    assert (other.waiting, other.running, other.is_ready) == (0, None, True), "another model of the server is idle"


async def test_a_real_triton_without_the_model_is_not_ready(triton: Any, serving: Any, until: Any) -> None:
    grpc = MetricsAddress(triton.grpc_address, is_grpc=True)

    async with polling(serving("nope", gpu=[grpc]), Timing(timeout_seconds=5.0)) as poller:
        await until(lambda: poller.reading("gpu"))
        assert poller.reading("gpu").is_ready is False
        assert (poller.load("gpu").saturation, poller.load("gpu").is_unavailable) == (1.0, True)


async def test_a_triton_that_is_gone_is_an_error(serving: Any, until: Any) -> None:
    failures: list[str] = []
    grpc = MetricsAddress("127.0.0.1:1", is_grpc=True)

    async with polling(serving(gpu=[grpc]), Timing(timeout_seconds=5.0), failed=failures.append) as poller:
        await until(lambda: failures)
        assert poller.load("gpu").is_unavailable


async def test_a_triton_that_is_not_there_yet_is_called_again_and_again(serving: Any, until: Any) -> None:
    calls: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.read(3))
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, polling(serving(gpu=[MetricsAddress(f"127.0.0.1:{port}", is_grpc=True)])):
        # With gRPC's own patience the seventh call would come after half a minute.
        await until(lambda: calls.count(b"PRI") >= 7)


def _ready(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("headgate_server_ready", {"cluster": "gpu"})


async def _generate(client: httpx.AsyncClient) -> None:
    body = {"text_input": "A long tale.", "max_tokens": 60, "stream": True}
    async with client.stream("POST", "/v2/models/best/generate_stream", content=json.dumps(body)) as answer:
        async for _ in answer.aiter_raw():
            pass


def _with(policy: Policy, clusters: Any) -> Policy:
    return replace(policy, clusters=clusters)
