"""The JSON of trtllm-serve's `/metrics` -> a reading: its iterations since somebody last looked.

Looking empties that list, so a server that also has a Prometheus page is asked there.
"""

from __future__ import annotations

import msgspec

from extproc.servers.reading import Reading


class _Cache(msgspec.Struct, rename="camel"):
    max_num_blocks: int = 0
    used_num_blocks: int = 0


class _Iteration(msgspec.Struct, rename="camel"):
    num_active_requests: int | None = None
    num_queued_requests: int | None = None
    max_num_active_requests: int | None = None
    kv_cache_stats: _Cache | None = None


_ITERATIONS = msgspec.json.Decoder(list[_Iteration])


def read_iterations(body: bytes) -> Reading:
    """The newest iteration; without one since the last look, a reading that says nothing.

    Raises:
        ValueError: the body is no such list.
    """
    iterations = _ITERATIONS.decode(body)
    if not iterations:
        return Reading()
    newest = iterations[-1]
    cache = newest.kv_cache_stats
    return Reading(
        waiting=newest.num_queued_requests,
        running=newest.num_active_requests,
        slots=newest.max_num_active_requests,
        kv_cache_usage=cache.used_num_blocks / cache.max_num_blocks if cache and cache.max_num_blocks else None,
    )
