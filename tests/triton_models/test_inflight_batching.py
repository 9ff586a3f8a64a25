"""The engines of the model repository under many requests at once, and what their metrics say of it."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

PROMPT = "One boat waits for its turn."
ENGINES = ("best_tensorrt_llm", "fast_tensorrt_llm")
GAUGES = {
    "nv_trt_llm_request_metrics": ("request_type", {"active", "max", "scheduled", "context", "waiting"}),
    "nv_trt_llm_kv_cache_block_metrics": (
        "kv_cache_block_type",
        {"max", "free", "used", "tokens_per", "reused", "fraction"},
    ),
    "nv_trt_llm_inflight_batcher_metrics": (
        "inflight_batcher_specific_metric",
        {"total_context_tokens", "generation_requests", "micro_batch_id", "paused_requests"},
    ),
    "nv_trt_llm_general_metrics": ("general_type", {"timestamp", "iteration_counter"}),
}


async def stream_all(triton, model, *, requests, tokens, meanwhile):
    """Run streams at once, asking `meanwhile` until the last has ended; return each one's events, and the answers."""
    limits = httpx.Limits(max_connections=requests)
    async with httpx.AsyncClient(base_url=triton.http.base_url, timeout=30, limits=limits) as client:
        streams = asyncio.gather(*(count_events(client, model, tokens) for _ in range(requests)))
        answers = []
        while not streams.done():
            answers.append(await asyncio.to_thread(meanwhile))
        return await streams, answers


async def count_events(client, model, tokens):
    body = {"text_input": PROMPT, "max_tokens": tokens, "stream": True}
    async with client.stream("POST", f"/v2/models/{model}/generate_stream", json=body) as response:
        return len([line async for line in response.aiter_lines() if "text_output" in line])


async def test_requests_beyond_the_slots_wait_and_all_are_served(triton):
    slots = triton.requests("best_tensorrt_llm", "max")
    events, seen = await stream_all(
        triton,
        "best",
        requests=int(slots) + 6,
        tokens=30,
        meanwhile=lambda: [triton.requests("best_tensorrt_llm", state) for state in ("active", "waiting")],
    )
    assert events == [30] * (int(slots) + 6)
    assert max(active for active, _ in seen) == slots
    assert max(waiting for _, waiting in seen) == 6
    triton.wait_until_idle("best_tensorrt_llm")


async def test_sixty_four_streams_run_side_by_side(triton):
    events, active = await stream_all(
        triton, "fast", requests=64, tokens=60, meanwhile=lambda: triton.requests("fast_tensorrt_llm", "active")
    )
    assert events == [60] * 64
    assert max(active) == 64
    triton.wait_until_idle("fast_tensorrt_llm")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_series_of_the_real_backend_are_there(triton, engine):
    lines = [line for line in triton.metrics().splitlines() if f'model="{engine}"' in line]
    for name, (label, values) in GAUGES.items():
        for value in values:
            assert any(line.startswith(name) and f'{label}="{value}"' in line for line in lines), (name, value)


def test_the_series_move_with_the_requests(triton):
    def read():
        labels = 'model="fast_tensorrt_llm"'
        return (
            triton.sample(f'nv_trt_llm_general_metrics{{general_type="iteration_counter",{labels},version="1"}}'),
            triton.sample(
                f'nv_llm_input_token_len_sum{{{labels},response_metric_type="total_input_tokens",version="1"}}'
            ),
            triton.sample(
                f'nv_llm_output_token_len_sum{{{labels},response_metric_type="total_output_tokens",version="1"}}'
            ),
        )

    triton.wait_until_idle("fast_tensorrt_llm")
    before = read()
    triton.http.post("/v2/models/fast/generate", json={"text_input": PROMPT, "max_tokens": 9})
    triton.wait_until(lambda: read()[2] == before[2] + 9, "nine output tokens are counted")
    after = read()
    assert after[0] >= before[0] + 9
    assert after[1] == before[1] + 7


def test_the_kv_cache_holds_a_request_while_it_runs(triton):
    series = 'nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="{}",model="best_tensorrt_llm",version="1"}}'
    body = {"id": "kv", "text_input": PROMPT, "max_tokens": 633, "stream": True}
    with triton.http.stream("POST", "/v2/models/best/generate_stream", json=body):
        triton.wait_until(lambda: triton.sample(series.format("used")) == 20, "640 tokens hold 20 blocks of 32")
        assert triton.sample(series.format("used")) + triton.sample(series.format("free")) == triton.sample(
            series.format("max")
        )
    stop(triton, "kv")
    triton.wait_until(lambda: triton.sample(series.format("used")) == 0, "the blocks are free again")


def test_a_client_that_leaves_the_engine_frees_its_slot(triton):
    body = {"input_ids": [1, 2, 3], "input_lengths": 3, "request_output_len": 1000, "streaming": True}
    with triton.http.stream("POST", "/v2/models/best_tensorrt_llm/generate_stream", json=body) as response:
        next(response.iter_lines())
        triton.wait_until(lambda: triton.requests("best_tensorrt_llm", "active") == 1, "the stream runs")
    triton.wait_until_idle("best_tensorrt_llm")


def test_a_client_that_leaves_an_ensemble_frees_its_slot_once_its_id_is_stopped(triton):
    body = {"id": "job-7", "text_input": PROMPT, "max_tokens": 1000, "stream": True}
    with triton.http.stream("POST", "/v2/models/best/generate_stream", json=body) as response:
        next(response.iter_lines())
    assert stop(triton, "another-job").status_code == 200
    triton.wait_until(lambda: triton.requests("best_tensorrt_llm", "active") == 1, "the engine writes on")
    assert stop(triton, "job-7").status_code == 200
    triton.wait_until_idle("best_tensorrt_llm")


def test_a_stopped_request_ends_with_what_it_has_written(triton):
    body = {"id": "job-8", "text_input": PROMPT, "max_tokens": 1000, "stream": True}
    with triton.http.stream("POST", "/v2/models/best/generate_stream", json=body) as response:
        lines = response.iter_lines()
        first = json.loads(next(lines).removeprefix("data: "))
        stop(triton, "job-8")
        rest = [line for line in lines if line]
    assert first["text_output"]
    assert len(rest) < 100
    assert "error" not in "".join(rest)


def test_a_stop_without_an_id_is_refused(triton):
    assert "stop needs the id" in stop(triton, "").json()["error"]


def stop(triton, request_id):
    body = {"id": request_id, "input_ids": [0], "input_lengths": 1, "request_output_len": 1, "stop": True}
    return triton.http.post("/v2/models/best_tensorrt_llm/generate", json=body)
