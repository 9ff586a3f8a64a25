"""The demo's client: real HTTP requests through Envoy, and the sidecar's own log line for each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

_LOG_WAIT_SECONDS = 10.0


@dataclass(slots=True)
class Answer:
    """What a client saw.

    Attributes:
        ttft_seconds: from sending to the first byte of a successful body.
        event_seconds: when each server-sent event came, from sending.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    ttft_seconds: float | None = None
    event_seconds: list[float] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        """Envoy's id of the request."""
        return self.headers.get("x-request-id", "")


class Client:
    """Sends requests to one Envoy; safe to use from several threads.

    Attributes:
        address: the Envoy's `host:port`.
    """

    def __init__(self, url: str, log: Path) -> None:
        self.address = url.partition("//")[2]
        self._http = httpx.Client(base_url=url, timeout=60.0, limits=httpx.Limits(max_connections=200), trust_env=False)
        self._log = log

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.close()

    def chat(self, key: str | None, prompt: str, *, max_tokens: int = 8, model: str = "assistant") -> Answer:
        """One OpenAI chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
        return self.post("/v1/chat/completions", json.dumps(body).encode(), key=key)

    def generate(self, key: str | None, prompt: str, *, max_tokens: int = 8, model: str = "assistant") -> Answer:
        """One Triton generate."""
        body = {"text_input": prompt, "max_tokens": max_tokens}
        return self.post(f"/v2/models/{model}/generate", json.dumps(body).encode(), key=key)

    def post(self, path: str, body: bytes, *, key: str | None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send and read to the end."""
        with self.streaming(path, body, key=key, headers=headers) as (answer, chunks):
            answer.body = b"".join(chunks)
        return answer

    @contextmanager
    def streaming(
        self, path: str, body: bytes, *, key: str | None, headers: Mapping[str, str] | None = None
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Send and read as long as the block likes; leaving it early closes the connection."""
        sent = {"content-type": "application/json", **(headers or {})}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        sent_at = time.monotonic()
        with self._http.stream("POST", path, content=body, headers=sent) as response:
            answer = Answer(status=response.status_code, headers=response.headers)
            yield answer, self._chunks(response, answer, sent_at)

    @staticmethod
    def _chunks(response: httpx.Response, answer: Answer, sent_at: float) -> Iterator[bytes]:
        for chunk in response.iter_raw():
            now = time.monotonic() - sent_at
            if answer.ttft_seconds is None and answer.status == 200:
                answer.ttft_seconds = now
            answer.event_seconds += [now] * chunk.count(b"data:")
            yield chunk

    def record(self, answer: Answer) -> Mapping[str, object]:
        """The sidecar's log line about a request; Envoy sends access logs in batches, so it may take a moment."""
        give_up_at = time.monotonic() + _LOG_WAIT_SECONDS
        while time.monotonic() < give_up_at:
            for line in self._log.read_text().splitlines():
                if answer.request_id in line and '"message":"request"' in line:
                    return dict(json.loads(line))
            time.sleep(0.05)
        return {}
