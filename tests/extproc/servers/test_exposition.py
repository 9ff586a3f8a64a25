"""Pages of the servers, by their own names. The Triton page in test_poller.py is a real one."""

from __future__ import annotations

import pytest

from extproc.servers.exposition import read_page
from extproc.servers.reading import Reading

TRITON = """\
# HELP nv_inference_pending_request_count Instantaneous number of pending requests awaiting execution per-model.
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="ensemble",version="1"} 9
nv_inference_pending_request_count{model="tensorrt_llm",version="1"} 2
nv_inference_pending_request_count{model="other",version="1"} 40
nv_inference_exec_count{model="tensorrt_llm",version="1"} 4711
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 7
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 8
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 6
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.25
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 100
nv_gpu_utilization{gpu_uuid="GPU-0"} 0.5
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.75
"""
TRTLLM_SERVE = """\
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="pytorch",model_name="m"} 16
trtllm_num_requests_waiting{engine_type="pytorch",model_name="m"} 4
trtllm_max_num_active_requests{engine_type="pytorch",model_name="m"} 32
trtllm_kv_cache_utilization{engine_type="pytorch",model_name="m"} 0.5
trtllm_kv_cache_hit_rate{engine_type="pytorch",model_name="m"} 0.9
"""
VLLM = """\
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.125
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:time_to_first_token_seconds_bucket{le="0.1"} 12
"""
NIM = "num_requests_running 5\nnum_requests_waiting 2\nnum_request_max 64\ngpu_cache_usage_perc 0.5\n"


@pytest.mark.parametrize(
    ("page", "reading"),
    [
        (
            TRITON,
            Reading(waiting=54, running=7, slots=8, kv_cache_usage=0.25, gpu_utilization=0.75, is_triton_page=True),
        ),
        (TRTLLM_SERVE, Reading(waiting=4, running=16, slots=32, kv_cache_usage=0.5)),
        (VLLM, Reading(waiting=1, running=7, kv_cache_usage=0.5)),
        (VLLM.replace("kv_cache_usage", "gpu_cache_usage"), Reading(waiting=1, running=7, kv_cache_usage=0.5)),
        (NIM, Reading(waiting=2, running=5, slots=64, kv_cache_usage=0.5)),
    ],
    ids=["triton", "trtllm-serve", "vllm", "old vllm", "nim"],
)
def test_every_server_is_read_by_the_names_it_uses(page: str, reading: Reading) -> None:
    assert read_page(page, ()) == reading


def test_on_a_server_of_many_models_only_the_clusters_own_count() -> None:
    reading = read_page(TRITON, {"tensorrt_llm", "preprocessing"})

    assert reading == Reading(
        waiting=5, running=7, slots=8, kv_cache_usage=0.25, gpu_utilization=0.75, is_triton_page=True
    )


@pytest.mark.parametrize("page", ["", "# TYPE up gauge\nup 1\n", "<html><body>hello</body></html>"])
def test_a_page_of_something_else_is_no_reading(page: str) -> None:
    assert read_page(page, ()) is None


def test_what_is_no_number_says_nothing() -> None:
    assert read_page("vllm:num_requests_waiting NaN\nvllm:num_requests_running 2\n", ()) == Reading(running=2)


@pytest.mark.parametrize("line", ["num_requests_waiting many", "num_requests_waiting{model= 3"])
def test_a_known_series_that_cannot_be_read_is_an_error(line: str) -> None:
    with pytest.raises(ValueError):
        read_page(line + "\n", ())
