"""The token charges of requests that have not ended, each pinned to the window it was made in.

Says what correction a finished request makes due: never more than was charged, never twice, never to another window.
Knows no clock and no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headgate.policy.model import OnStoreFailure
from headgate.record import RequestRecord
from ratelimit.charges import Charge, Role, Tally
from ratelimit.limiter import Plan
from ratelimit.limits import Entry, RateLimitRequest
from ratelimit.tenants import LIMIT_KEY, REQUEST_ID_KEY, TENANT_KEY, Budget

MAX_OPEN = 100_000
"""Requests whose charge is remembered at once; beyond it the oldest keep their estimate."""
MAX_USED_TOKENS = 1_000_000_000
"""What a model server may say one request used."""
_WITHOUT_OUTPUT = "embeddings"
_TOKENS = Entry(LIMIT_KEY, Budget.TOKENS)


@dataclass(frozen=True, slots=True)
class OpenCharge:
    """What one request that still runs was charged.

    Attributes:
        charge: pinned to its window.
        is_ambiguous: several requests gave this id, so nobody can tell which one has ended.
    """

    request_id: str
    tenant: str
    charge: Charge
    is_ambiguous: bool = False

    @property
    def window_end(self) -> int:
        """Unix seconds."""
        return (self.charge.window_start or 0) + self.charge.window_seconds

    def belongs_to(self, record: RequestRecord) -> bool:
        """Whether the finished request is the one that was charged."""
        made = (self.tenant, self.charge.hits)
        return not self.is_ambiguous and made == (record.tenant, record.charged_tokens)

    def correction(self, used: int) -> Charge | None:
        """What makes the charge equal what was used; None when it does already."""
        hits = min(used, MAX_USED_TOKENS) - self.charge.hits
        if not hits:
            return None
        # While the store is away its count cannot be put right, and no other count may pay for it.
        return replace(self.charge, hits=hits, role=Role.ADVISORY, on_store_failure=OnStoreFailure.OPEN)


def open_charge(
    request: RateLimitRequest, plan: Plan, charges: Sequence[Charge], tallies: Sequence[Tally], now: float
) -> OpenCharge | None:
    """The token charge that an admitted request stands for until it ends; None when it gave no id or was charged none.

    Args:
        charges: of the plan; `tallies` are the answers to them.
    """
    values = dict(entry for descriptor in request.descriptors for entry in descriptor.entries)
    request_id = values.get(REQUEST_ID_KEY)
    if not request_id:
        return None
    counted = [at for at, item in enumerate(plan.items) if item.is_counted]
    for at, charge, tally in zip(counted, charges, tallies, strict=True):
        entries = request.descriptors[at].entries
        if _TOKENS in entries and charge.hits > 0 and _is_kept(tally) and tally.reset_seconds is not None:
            # The store's clock may be a little off this one; a window is long enough to tell which one it was.
            ends = round((now + tally.reset_seconds) / charge.window_seconds) * charge.window_seconds
            pinned = replace(charge, window_start=ends - charge.window_seconds)
            return OpenCharge(request_id, values.get(TENANT_KEY, ""), pinned)
    return None


class OpenCharges:
    """By request id, in the order of their windows. `now` is in unix seconds."""

    def __init__(self, max_open: int = MAX_OPEN) -> None:
        self._max_open = max_open
        self._open: dict[str, OpenCharge] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, made: OpenCharge, now: float) -> None:
        """Remember a charge until its window has passed."""
        self._forget_ended(now)
        if self._open.pop(made.request_id, None) is not None:
            made = replace(made, is_ambiguous=True)
        self._open[made.request_id] = made

    def take(self, record: RequestRecord, used: int | None, now: float) -> Charge | None:
        """The correction that a finished request makes due, once; None for none.

        Args:
            used: tokens; None when nobody knows, so that the estimate stays.
        """
        made = self._open.get(record.request_id)
        if made is None or not made.belongs_to(record):
            return None
        del self._open[record.request_id]
        return made.correction(used) if used is not None and now < made.window_end else None

    def _forget_ended(self, now: float) -> None:
        while self._open:
            oldest = next(iter(self._open.values()))
            if len(self._open) < self._max_open and now < oldest.window_end:
                return
            del self._open[oldest.request_id]


def used_tokens(record: RequestRecord, cached_token_weight: float) -> int | None:
    """What a finished request costs its tenant; None when a model worked on it and its server did not say how much.

    Args:
        cached_token_weight: how much of a prompt token counts that the model server found in its cache.
    """
    if record.verdict == "REJECT" or not record.has_run:
        return 0
    output = 0 if record.operation == _WITHOUT_OUTPUT else record.output_tokens
    if record.prompt_tokens is None or output is None:
        return None
    cached = min(record.cached_tokens or 0, record.prompt_tokens)
    fresh = record.prompt_tokens - cached
    return fresh + round(cached * cached_token_weight) + output


def _is_kept(tally: Tally) -> bool:
    return not (tally.is_over or tally.is_substitute)
