"""A Prometheus page of Triton, trtllm-serve, vLLM or NIM -> a reading; which one it is, its series tell.

Only lines of known series are parsed: a page has thousands of others, and this runs beside requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from extproc.servers.reading import Reading

_TRITON_PENDING = "nv_inference_pending_request_count"
_TRT_LLM_REQUESTS = "nv_trt_llm_request_metrics"
_TRT_LLM_CACHE = "nv_trt_llm_kv_cache_block_metrics"
_GPU = "nv_gpu_utilization"
# The first name of a row that a page has is taken; newer names first.
_WAITING = ("trtllm_num_requests_waiting", "vllm:num_requests_waiting", "num_requests_waiting")
_RUNNING = ("trtllm_num_requests_running", "vllm:num_requests_running", "num_requests_running")
_SLOTS = ("trtllm_max_num_active_requests", "num_request_max")
_CACHE = (
    "trtllm_kv_cache_utilization",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "gpu_cache_usage_perc",
)
_KNOWN = (_TRITON_PENDING, _TRT_LLM_REQUESTS, _TRT_LLM_CACHE, _GPU, *_WAITING, *_RUNNING, *_SLOTS, *_CACHE)

Series = Mapping[str, list[Sample]]


def read_page(text: str, models: Collection[str]) -> Reading | None:
    """The reading; None when the page has none of the known series.

    Args:
        models: whose series count on a server of several; none named: all.

    Raises:
        ValueError: a line of a known series cannot be read.
    """
    series = _known_series(text)
    if not series:
        return None
    if any(name.startswith("nv_") for name in series):
        return _triton({name: _of_models(samples, models) for name, samples in series.items()})
    return Reading(
        waiting=_whole(_first(series, _WAITING, sum)),
        running=_whole(_first(series, _RUNNING, sum)),
        slots=_whole(_first(series, _SLOTS, sum)),
        kv_cache_usage=_first(series, _CACHE, max),
    )


def _triton(series: Series) -> Reading:
    requests = series.get(_TRT_LLM_REQUESTS, [])
    # What waits inside the engine has left Triton's queue.
    waiting = [*series.get(_TRITON_PENDING, []), *_typed(requests, "request_type", "waiting")]
    active = _typed(requests, "request_type", "active")
    slots = _typed(requests, "request_type", "max")
    cache = _typed(series.get(_TRT_LLM_CACHE, []), "kv_cache_block_type", "fraction")
    return Reading(
        waiting=_whole(_over(sum, waiting)),
        running=_whole(_over(sum, active)),
        slots=_whole(_over(sum, slots)),
        kv_cache_usage=_over(max, cache),
        gpu_utilization=_over(max, series.get(_GPU, [])),
        is_triton_page=True,
    )


def _known_series(text: str) -> dict[str, list[Sample]]:
    series: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families("".join(_known_lines(text))):
        for sample in family.samples:
            if sample.name in _KNOWN:
                series.setdefault(sample.name, []).append(sample)
    return series


def _known_lines(text: str) -> Iterator[str]:
    return (line + "\n" for line in text.splitlines() if line.startswith(_KNOWN))


def _of_models(samples: list[Sample], models: Collection[str]) -> list[Sample]:
    return [s for s in samples if not models or "model" not in s.labels or s.labels["model"] in models]


def _typed(samples: list[Sample], label: str, value: str) -> list[Sample]:
    return [sample for sample in samples if sample.labels.get(label) == value]


def _first(series: Series, names: Iterable[str], over: Callable[[list[float]], float]) -> float | None:
    return next((_over(over, series[name]) for name in names if name in series), None)


def _over(function: Callable[[list[float]], float], samples: list[Sample]) -> float | None:
    values = [sample.value for sample in samples if math.isfinite(sample.value)]
    return function(values) if values else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
