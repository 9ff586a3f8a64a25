"""The leases of this sidecar, and what Redis has to be told about them: given back, still held, held unbeknown to it.

Knows no Redis and no clock: `now` in seconds, monotonic.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Sequence

from headgate.store import Lease, LeaseRequest, Refused
from headgate.store.ledger import Ledger
from headgate.store.redis.call import Question, held
from headgate.store.redis.share import share_of
from headgate.store.redis.view import View

_AT_ONCE = 1000
_ID_BITS = 64


class Holdings:
    """Leases held here, whoever granted them.

    Args:
        lease_seconds: how long Redis keeps a lease that is not renewed.
    """

    def __init__(self, lease_seconds: float) -> None:
        number = secrets.randbits(63)
        self.sidecar = f"{number:016x}"
        self._ids = itertools.count((number << _ID_BITS) + 1)
        self._lease_seconds = lease_seconds
        self._own = Ledger()
        self.view = View(self._own, stale_seconds=lease_seconds)
        # What Redis may count among ours, also while it is being given back.
        self._known: dict[int, LeaseRequest] = {}
        self._untold: dict[int, Lease] = {}
        self._to_release: dict[int, float] = {}
        self._to_renew: list[int] = []

    def __len__(self) -> int:
        return len(self._own)

    def new_id(self) -> int:
        """Of a lease to be asked for; no other sidecar makes the same."""
        return next(self._ids)

    def granted(self, lease_id: int, request: LeaseRequest, now: float) -> Lease:
        """Redis said yes."""
        self._know(lease_id, request)
        return self._hold(Lease(lease_id, request, now))

    def grant_share(self, request: LeaseRequest, sidecars: int, now: float) -> Lease | Refused:
        """Say yes without Redis, while this sidecar's share of every limit has room."""
        refused = self._own.refusal(share_of(request, sidecars))
        if refused is not None:
            return refused
        lease = self._hold(Lease(self.new_id(), request, now))
        self._untold[lease.id] = lease
        return lease

    def release(self, lease: Lease, now: float) -> bool:
        """Give a lease back; False when it was before."""
        if not self._own.release(lease, now):
            return False
        if lease.id in self._known:
            self._to_release[lease.id] = now + self._lease_seconds
        self._untold.pop(lease.id, None)
        return True

    def doubt(self, lease_id: int, request: LeaseRequest, now: float) -> None:
        """Redis may have said yes, and nobody uses the lease."""
        self._know(lease_id, request)
        self._to_release[lease_id] = now + self._lease_seconds

    # what to tell

    @property
    def has_news(self) -> bool:
        """Whether Redis has to be told something."""
        return bool(self._to_release or self._untold or self._to_renew)

    def renew_all(self) -> None:
        """Tell Redis of every lease it knows that it is still held."""
        self._to_renew = [lease_id for lease_id in self._known if self._own.get(lease_id) is not None]

    def take_renewals(self) -> list[int]:
        """Some of them."""
        taken, self._to_renew = self._to_renew[:_AT_ONCE], self._to_renew[_AT_ONCE:]
        return [lease_id for lease_id in taken if self._own.get(lease_id) is not None]

    def releases(self, now: float) -> list[int]:
        """Some that were given back; one that expired since is not spoken of any more."""
        for lease_id in [lease_id for lease_id, until in self._to_release.items() if until <= now]:
            self.released([lease_id])
        return list(itertools.islice(self._to_release, _AT_ONCE))

    def take_untold(self, now: float) -> list[Question]:
        """Some that Redis knows nothing about; from now on it may."""
        taken = list(itertools.islice(self._untold.values(), _AT_ONCE))
        for lease in taken:
            del self._untold[lease.id]
            self._know(lease.id, lease.request)
        return [held(lease.request, as_text(lease.id), now - lease.granted_at) for lease in taken]

    # what it answered

    def released(self, lease_ids: Iterable[int]) -> None:
        """Redis heard of these releases."""
        for lease_id in lease_ids:
            self._to_release.pop(lease_id, None)
            request = self._known.pop(lease_id, None)
            if request is not None:
                self.view.told(request, -1)

    def missed(self, lease_ids: Sequence[str]) -> None:
        """Redis does not know these any more."""
        for text in lease_ids:
            self._unknow(int(text, 16))

    def lost(self) -> None:
        """Redis knows nothing any more."""
        self._to_release.clear()
        self._to_renew.clear()
        for lease_id in list(self._known):
            self._unknow(lease_id)

    def _hold(self, lease: Lease) -> Lease:
        self._own.adopt(lease)
        return lease

    def _know(self, lease_id: int, request: LeaseRequest) -> None:
        self._known[lease_id] = request
        self.view.told(request, 1)

    def _unknow(self, lease_id: int) -> None:
        request = self._known.pop(lease_id, None)
        if request is not None:
            self.view.told(request, -1)
        lease = self._own.get(lease_id)
        if lease is not None:
            self._untold[lease_id] = lease


def as_text(lease_id: int) -> str:
    """As Redis keeps it."""
    return f"{lease_id:x}"
