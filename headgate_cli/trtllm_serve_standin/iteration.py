"""One engine iteration: what it did, and the JSON object `/metrics` of trtllm-serve makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class KvCacheStats(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Blocks now; `alloc...`, `reused_blocks` and `missed_blocks` are totals and only grow."""

    max_num_blocks: int
    free_num_blocks: int
    used_num_blocks: int
    tokens_per_block: int
    alloc_total_blocks: int
    alloc_new_blocks: int
    reused_blocks: int
    missed_blocks: int
    cache_hit_rate: float


class InflightBatchingStats(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How the batch of one iteration was made up."""

    num_scheduled_requests: int
    num_context_requests: int
    num_gen_requests: int
    num_paused_requests: int
    num_ctx_tokens: int
    micro_batch_id: int
    avg_num_decoded_tokens_per_iter: float


class IterationStats(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One element of the array. A request here is one sequence: `n` choices are `n` requests."""

    iter: int
    iter_latency_ms: float = msgspec.field(name="iterLatencyMS")
    num_active_requests: int
    num_queued_requests: int
    num_completed_requests: int
    max_num_active_requests: int
    gpu_mem_usage: int
    kv_cache_stats: KvCacheStats
    inflight_batching_stats: InflightBatchingStats


@dataclass(slots=True)
class Iteration:
    """What one iteration still may do (prompt tokens) and what it did."""

    prefill_tokens_left: float = 0.0
    context_tokens: float = 0.0
    context_requests: int = 0
    generation_requests: int = 0
    completed_requests: int = 0

    def batching(self) -> InflightBatchingStats:
        """Return what was done as the API shows it."""
        scheduled = self.context_requests + self.generation_requests
        return InflightBatchingStats(
            num_scheduled_requests=scheduled,
            num_context_requests=self.context_requests,
            num_gen_requests=self.generation_requests,
            num_paused_requests=0,
            num_ctx_tokens=round(self.context_tokens),
            micro_batch_id=0,
            avg_num_decoded_tokens_per_iter=1.0 if scheduled else 0.0,
        )
