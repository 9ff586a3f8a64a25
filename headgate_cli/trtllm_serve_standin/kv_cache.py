"""The books of a paged key/value cache: what is promised to running sequences, which prefixes are remembered.

Knows no time and no queue. Simpler than the real one in two ways: a prefix shared by two running sequences is
counted for both, and what is remembered takes no room from what is running.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from headgate_cli.trtllm_serve_standin.iteration import KvCacheStats
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.sequence import Sequence


class KvCache:
    """A pool of blocks. A sequence is promised all it will need, so none is evicted half-way."""

    def __init__(self, *, max_blocks: int, tokens_per_block: int) -> None:
        self.max_blocks = max_blocks
        self.tokens_per_block = tokens_per_block
        self._promised_blocks = 0
        self._reused_blocks_total = 0
        self._missed_blocks_total = 0
        self._generated_blocks_total = 0
        self._remembered: OrderedDict[int, None] = OrderedDict()

    def admit(self, sequence: Sequence) -> bool:
        """Promise the sequence its blocks and look up its prefix; False if there is no room now."""
        wanted = self._blocks(sequence.total_tokens)
        if self._promised_blocks + wanted > self.max_blocks:
            return False
        self._promised_blocks += wanted
        sequence.cached_tokens = self._reuse(sequence.prompt)
        return True

    def remember(self, prompt: Prompt) -> None:
        """Remember a computed prompt, forgetting the least recently used blocks beyond the pool's size."""
        for key in prompt.block_keys(self.tokens_per_block):
            self._remembered[key] = None
            self._remembered.move_to_end(key)
        while len(self._remembered) > self.max_blocks:
            self._remembered.popitem(last=False)

    def release(self, sequence: Sequence) -> None:
        """Take back what `admit` promised."""
        self._promised_blocks -= self._blocks(sequence.total_tokens)
        self._generated_blocks_total += self._blocks(sequence.held_tokens) - self._blocks(sequence.prompt.tokens)

    def stats(self, running: Iterable[Sequence]) -> KvCacheStats:
        """Return the books as the API shows them; used blocks are those the running sequences fill now."""
        used = sum(self._blocks(sequence.held_tokens) for sequence in running)
        new = self._missed_blocks_total + self._generated_blocks_total
        looked_up = self._reused_blocks_total + self._missed_blocks_total
        return KvCacheStats(
            max_num_blocks=self.max_blocks,
            free_num_blocks=self.max_blocks - used,
            used_num_blocks=used,
            tokens_per_block=self.tokens_per_block,
            alloc_total_blocks=self._reused_blocks_total + new,
            alloc_new_blocks=new,
            reused_blocks=self._reused_blocks_total,
            missed_blocks=self._missed_blocks_total,
            cache_hit_rate=self._reused_blocks_total / looked_up if looked_up else 0.0,
        )

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.tokens_per_block)

    def _reuse(self, prompt: Prompt) -> int:
        """Return how many of the prompt's leading tokens are remembered, and count hits and misses."""
        reused = 0
        for key in prompt.block_keys(self.tokens_per_block):
            if key not in self._remembered:
                break
            self._remembered.move_to_end(key)
            reused += 1
        self._reused_blocks_total += reused
        self._missed_blocks_total += self._blocks(prompt.tokens) - reused
        return reused * self.tokens_per_block
