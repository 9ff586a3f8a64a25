"""One line of the demo's table: what the client saw, and what Headgate says it decided."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request; `ttft_seconds` is the client's own measure and None where no token came."""

    case: str
    tenant: str
    tier: str
    protocol: str
    prompt_tokens: int
    cluster: str
    verdict: str
    reason: str
    status: int
    ttft_seconds: float | None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)
