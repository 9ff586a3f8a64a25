"""Which requests ought to meet again on one endpoint: a name for them that says nothing of who or what they are.

The name is a keyed hash over the tenant and its session or prompt prefix: the prompts of two tenants never share one,
and nobody without the salt can tell whether two requests began alike.
"""

from __future__ import annotations

import hashlib
import secrets

from extproc.headers import Headers
from extproc.inspection.request import InferenceRequest
from headgate.policy.model import Affinity

AFFINITY_HEADER = "x-headgate-affinity"
_SESSION_HEADER = "x-session-id"
_KEY_BYTES, _NAME_BYTES = 32, 12
_OFF = Affinity.OFF


class AffinityNames:
    """Names of groups of requests, alike in every sidecar with the same salt.

    Args:
        salt: a secret; "" for one of this process alone, which ends with it.
    """

    def __init__(self, salt: str = "") -> None:
        self._key = hashlib.sha256(salt.encode()).digest() if salt else secrets.token_bytes(_KEY_BYTES)

    def name(self, affinity: Affinity, tenant: str, headers: Headers, request: InferenceRequest) -> str:
        """What to stamp on a request for a cluster of this affinity; "" where it may run anywhere."""
        if affinity is _OFF:
            return ""
        session = headers.get(_SESSION_HEADER) or request.session
        if affinity is Affinity.SESSION and session:
            return self._hash("session", tenant, session)
        prefix = request.prompt.prefix
        return self._hash("prefix", tenant, prefix) if prefix else ""

    def _hash(self, kind: str, tenant: str, value: str) -> str:
        # Lengths first, so that no two triples read alike.
        text = f"{len(tenant)}:{kind}:{tenant}:{value}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=_NAME_BYTES).hexdigest()
