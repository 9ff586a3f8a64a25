"""The names under which Redis keeps what a charge counts.

A fixed window's key is the reference's, so that both services can share a Redis:
`<prefix><domain>_<key>_<value>..._<window start>`. All others begin with `<prefix>headgate:`.
"""

from __future__ import annotations

from hashlib import blake2b

from ratelimit.charges import Charge
from ratelimit.limits import Algorithm

_LONGEST_KEY = 512
"""Longer keys are kept as digests, unlike the reference's: a client's header must not fill Redis."""


def redis_key(charge: Charge, prefix: str, now: int | None) -> str:
    """The key; a fixed window's start is left for the script to add when `now` (microseconds) is None."""
    stem = charge.key
    if len(stem) > _LONGEST_KEY:
        stem = blake2b(stem.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()
    if charge.algorithm is not Algorithm.FIXED_WINDOW:
        return f"{prefix}headgate:{charge.algorithm}:{charge.window_seconds}:{stem}"
    if now is None:
        return prefix + stem
    return f"{prefix}{stem}_{now // 1_000_000 // charge.window_seconds * charge.window_seconds}"
