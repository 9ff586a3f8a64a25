"""The engine model: TensorRT-LLM's `tensorrt_llm` interface in front of the stand-in scheduler.

Owns what Triton calls and what config.pbtxt says. Knows nothing of text: prompts and answers are token ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from stand_in.batcher import Batcher, Limits, RequestRefused
from stand_in.call import Call
from stand_in.metrics import EngineMetrics
from stand_in.scheduler import Scheduler
from stand_in.tensors import parameter, scalar

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_TOKENS_PER_BLOCK = 32


class TritonPythonModel:
    """Triton's entry points. Every answer is sent by the scheduler, also after `execute` has returned."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read config.pbtxt and start the scheduler."""
        config = json.loads(args["model_config"])
        tokens_per_second = float(parameter(config, "tokens_per_second", "20"))
        limits = _limits_from(config, tokens_per_second)
        self._echoes_prompt = parameter(config, "exclude_input_in_output", "false").lower() != "true"
        self._scheduler = Scheduler(
            batcher=Batcher(limits),
            metrics=EngineMetrics(model=args["model_name"], version=args["model_version"], limits=limits),
            iteration_seconds=1 / tokens_per_second,
            stats_seconds=int(parameter(config, "stats_check_period_ms", "100")) / 1000,
            cancellation_seconds=int(parameter(config, "cancellation_check_period_ms", "100")) / 1000,
        )

    def execute(self, requests: list[Any]) -> None:
        """Hand requests to the scheduler, or refuse them."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._take(request, sender)
            except (RequestRefused, pb_utils.TritonModelException) as refusal:
                error = pb_utils.TritonError(f"Cannot process new request: {refusal}")
                sender.send(pb_utils.InferenceResponse(error=error), flags=_FINAL)

    def finalize(self) -> None:
        """Stop the scheduler; Triton calls this when no request is left."""
        self._scheduler.close()

    def _take(self, request: Any, sender: Any) -> None:
        if scalar(request, "stop", default=False):
            if not request.request_id():
                raise RequestRefused("stop needs the id of the request to stop")
            self._scheduler.stop(request.request_id())
            sender.send(pb_utils.InferenceResponse([]), flags=_FINAL)
        else:
            self._scheduler.submit(Call.from_request(request, sender, echoes_prompt=self._echoes_prompt))


def _limits_from(config: Mapping[str, Any], tokens_per_second: float) -> Limits:
    prefill_tokens_per_second = float(parameter(config, "prefill_tokens_per_second", "20000"))
    kv_cache_tokens = int(parameter(config, "max_tokens_in_paged_kv_cache", "262144"))
    return Limits(
        slots=int(parameter(config, "slots", "64")),
        prefill_tokens_per_iteration=max(1, round(prefill_tokens_per_second / tokens_per_second)),
        max_input_tokens=int(parameter(config, "max_input_len", "32768")),
        kv_cache_blocks=kv_cache_tokens // _TOKENS_PER_BLOCK,
        tokens_per_block=_TOKENS_PER_BLOCK,
    )
