"""Reading one response piece by piece: its head, how many tokens have come, whether it is over. No clock, no socket."""

from __future__ import annotations

import re

from bench.overload.http_head import Head, read_head

_TOKENS = re.compile(rb'"completion_tokens":(\d+)[,}]')
_REFUSALS = (429, 503)
_LAST_CHUNK = b"0\r\n\r\n"
_TAIL_BYTES = 256
_REASON = re.compile(rb"reason=([a-z_]+)")


class Response:
    """What has come so far."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.tokens = 0
        self.is_over = False
        self._data = b""
        self._body_bytes = 0

    def receive(self, data: bytes) -> None:
        """Take the next bytes."""
        self._data += data
        if self.head is None:
            self.head = read_head(self._data)
            if self.head is None:
                return
            data = self._data = self._data[self.head.size :]
        self._body_bytes += len(data)
        for found in _TOKENS.findall(self._data):
            self.tokens = max(self.tokens, int(found))
        if self.head.is_chunked:
            self.is_over = self._data.endswith(_LAST_CHUNK)
        else:
            self.is_over = self._body_bytes >= self.head.content_length
        if self.status == 200:
            self._data = self._data[-_TAIL_BYTES:]

    @property
    def status(self) -> int:
        """0 until the head has come."""
        return self.head.status if self.head else 0

    @property
    def is_refusal(self) -> bool:
        """Told no, as opposed to let through by Headgate and then failed by what lies behind."""
        return self.status in _REFUSALS and (not self.decision or self.decision.startswith("reject"))

    @property
    def decision(self) -> str:
        """Headgate's word on it; "" from anybody else."""
        return self.head.headers.get(b"x-headgate-decision", b"").decode() if self.head else ""

    @property
    def reason(self) -> str:
        """Why it was refused: Headgate's reason, or what Envoy says in the body."""
        if found := _REASON.search(self.decision.encode()):
            return found[1].decode()
        return self._data.decode(errors="replace").strip()[-80:]
