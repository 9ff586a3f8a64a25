"""A million distinct keys in the memory store: what each takes, and what is left once their window has passed.

Measured in a process of its own: `python -m bench.ratelimit.keys` writes one JSON object.
"""

from __future__ import annotations

import gc
import os
import sys

import msgspec

from bench.resources import resident_bytes
from ratelimit.charges import Charge
from ratelimit.memory import MemoryStore

KEYS = 1_000_000
_STEP = 5_000


def measure(keys: int = KEYS) -> dict[str, float]:
    """Resident bytes per key, and per key once all windows have passed."""
    now = [1_000_000.0]
    store = MemoryStore(lambda: now[0])
    gc.collect()
    before = resident_bytes(os.getpid())
    for at in range(keys):
        store.charge_now([Charge(key=f"shop_remote_address_10.{at}", limit=10, window_seconds=3600, hits=1)])
    full = resident_bytes(os.getpid())
    held = len(store)
    now[0] += 3600
    while store.forget(_STEP):
        pass
    gc.collect()
    return {
        "keys": held,
        "bytes_per_key": (full - before) / keys,
        "bytes_per_key_after_the_window": (resident_bytes(os.getpid()) - before) / keys,
        "keys_after_the_window": len(store),
    }


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure()))
