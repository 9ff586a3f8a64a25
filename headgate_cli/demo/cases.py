"""The demo's cases, by name. Each sends real requests, records what came of them, and checks it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from headgate_cli.demo.client import Answer, Client
from headgate_cli.demo.kserve import KserveClient
from headgate_cli.demo.row import Row

PREMIUM, INTERACTIVE, BEST_EFFORT = "demo-acme", "demo-globex", "demo-hobby"
_BEST_EFFORT_SLOTS = 8
_FREE_AGAIN_SECONDS = 0.1
_REQUESTS_PER_MINUTE = 30
_LONG_PROMPT = "The quick brown fox jumps over the lazy dog while the river runs to the sea. " * 600


class Demo:
    """One case under way: its client, the rows it leaves and what it found wrong."""

    def __init__(self, case: str, client: Client, admin_url: str) -> None:
        self.case = case
        self.client = client
        self.rows: list[Row] = []
        self.failures: list[str] = []
        self._admin_url = admin_url

    def note(self, answer: Answer, **expected: object) -> Row:
        """Keep a request's row; every field given has to be as expected."""
        record = self.client.record(answer)
        prompt_tokens = record.get("estimated_prompt_tokens", 0)
        row = Row(
            case=self.case,
            tenant=str(record.get("tenant", "")),
            tier=str(record.get("tier", "")),
            protocol=str(record.get("protocol", "")),
            prompt_tokens=prompt_tokens if isinstance(prompt_tokens, int) else 0,
            cluster=str(record.get("cluster", "")),
            verdict=str(record.get("verdict", "")),
            reason=str(record.get("reason", "")),
            status=answer.status,
            ttft_seconds=answer.ttft_seconds,
        )
        self.rows.append(row)
        for name, value in expected.items():
            seen = getattr(row, name)
            self.check(seen == value, f"{name} is {seen!r}, not {value!r}")
        return row

    def check(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001  (reads as an assertion)
        """Note a failure unless it holds."""
        if not holds:
            self.failures.append(f"{self.case}: {otherwise}")

    def wait_until(self, metric: str, reached: Callable[[float], bool], within_seconds: float = 5.0) -> bool:
        """Wait until a metric line of the sidecar has such a value; False if that takes longer."""
        give_up_at = time.monotonic() + within_seconds
        while time.monotonic() < give_up_at:
            if reached(self.metric(metric)):
                return True
            time.sleep(0.02)
        return False

    def metric(self, name: str) -> float:
        """The present value of a metric of the sidecar; 0.0 where it has none."""
        with urllib.request.urlopen(f"{self._admin_url}/metrics", timeout=5.0) as page:  # noqa: S310  (our own)
            lines = page.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)


def premium_short(demo: Demo) -> None:
    """A short prompt of a premium tenant runs on the best cluster."""
    demo.note(demo.client.generate(PREMIUM, "What is a headgate?"), status=200, cluster="best", verdict="ADMIT")


def premium_long(demo: Demo) -> None:
    """A prompt of over 8,000 tokens goes to the cluster with room for it."""
    answer = demo.client.generate(PREMIUM, _LONG_PROMPT)
    row = demo.note(answer, status=200, cluster="long-context", verdict="ADMIT")
    demo.check(row.prompt_tokens > 8000, f"the prompt counts {row.prompt_tokens} tokens, not over 8,000")


def interactive(demo: Demo) -> None:
    """An interactive tenant's chat runs on the standard cluster."""
    demo.note(
        demo.client.chat(INTERACTIVE, "Hello"), status=200, cluster="standard", verdict="ADMIT", tier="interactive"
    )


def best_effort_over_limit(demo: Demo) -> None:
    """Of a burst, exactly as many run as the tier has slots; the rest are told when to come back."""
    burst = _BEST_EFFORT_SLOTS + 4
    with ThreadPoolExecutor(burst) as pool:
        calls = [pool.submit(demo.client.chat, BEST_EFFORT, "Tell me a story.", max_tokens=90) for _ in range(burst)]
        answers = [call.result() for call in calls]
    admitted = sum(answer.status == 200 for answer in answers)
    demo.check(admitted == _BEST_EFFORT_SLOTS, f"{admitted} of {burst} were admitted, not {_BEST_EFFORT_SLOTS}")
    for answer in answers:
        row = demo.note(answer, tier="best_effort")
        if answer.status != 200:
            demo.check(answer.status == 429 and row.verdict == "REJECT", f"refused with {answer.status}, not 429")
            demo.check("retry-after" in answer.headers, "a refusal has no retry-after")


def standard_saturated(demo: Demo) -> None:
    """While the standard cluster is nearly full, the next request runs on the fast one and is told so."""
    with _filled(demo, PREMIUM, streams=14):
        is_full = demo.wait_until('headgate_saturation{cluster="standard"}', lambda share: share > 0.8)
        demo.check(is_full, "the standard cluster did not fill")
        answer = demo.client.chat(INTERACTIVE, "Hello")
    demo.note(answer, status=200, cluster="fast", verdict="DEGRADE", reason="standard_saturated")
    told = answer.headers.get("x-headgate-decision", "")
    demo.check(told == "degrade; reason=standard_saturated", f"x-headgate-decision is {told!r}")


def spoofed_headers(demo: Demo) -> None:
    """A client cannot choose its own tenant, tier or cluster."""
    body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})
    spoofed = {"x-model-cluster": "best", "x-headgate-tier": "premium", "x-headgate-tenant": "acme"}
    answer = demo.client.post("/v1/chat/completions", body.encode(), key=BEST_EFFORT, headers=spoofed)
    demo.note(answer, status=200, tenant="hobby", tier="best_effort", cluster="standard")


def unknown_key(demo: Demo) -> None:
    """A wrong key is refused, not taken for anonymous."""
    demo.note(demo.client.chat("wrong-key", "Hello"), status=401, verdict="REJECT", reason="invalid_credential")


def unknown_model(demo: Demo) -> None:
    """A model the policy does not name."""
    answer = demo.client.chat(INTERACTIVE, "Hello", model="no-such-model")
    demo.note(answer, status=404, verdict="REJECT", reason="unknown_model")
    demo.check(b'"model_not_found"' in answer.body, f"the body is {answer.body!r}")


def bad_json(demo: Demo) -> None:
    """A body that is not JSON."""
    answer = demo.client.post("/v1/chat/completions", b'{"model": "assistant", "messages": [', key=INTERACTIVE)
    demo.note(answer, status=400, verdict="REJECT", reason="bad_request")


def too_large(demo: Demo) -> None:
    """A body above the tier's limit is refused before it is read."""
    answer = demo.client.chat(BEST_EFFORT, "x" * (2 * 1024 * 1024))
    demo.note(answer, status=413, verdict="REJECT", reason="body_too_large")


def triton_stream(demo: Demo) -> None:
    """Tokens of a Triton stream arrive one by one."""
    body = json.dumps({"text_input": "Count with me.", "max_tokens": 12, "stream": True}).encode()
    answer = demo.client.post("/v2/models/assistant/generate_stream", body, key=PREMIUM)
    demo.note(answer, status=200, cluster="best", verdict="ADMIT", protocol="triton")
    moments = answer.event_seconds
    demo.check(len(moments) >= 12, f"{len(moments)} events came, not 12")
    demo.check(len(set(moments)) > len(moments) // 2, "the tokens came in one piece")


def kserve_infer(demo: Demo) -> None:
    """NVIDIA's gRPC client runs a model that is no language model."""
    with KserveClient(demo.client.address) as kserve:
        answer = kserve.infer(PREMIUM, "sentiment", "What a wonderful day!")
    demo.note(answer, status=200, cluster="sentiment", verdict="ADMIT", protocol="kserve_grpc")
    demo.check(answer.body == b"positive", f"the answer is {answer.body!r}")


def kserve_stream(demo: Demo) -> None:
    """Tokens of a gRPC stream arrive one by one, while the client's side is still open."""
    with KserveClient(demo.client.address) as kserve:
        answer = kserve.stream(PREMIUM, "assistant", "Count with me.", max_tokens=12)
    demo.note(answer, status=200, cluster="best", verdict="ADMIT", protocol="kserve_grpc")
    moments = answer.event_seconds
    demo.check(len(moments) == 12, f"{len(moments)} tokens came, not 12")
    demo.check(len(set(moments)) > len(moments) // 2, "the tokens came in one piece")


def kserve_refused(demo: Demo) -> None:
    """A gRPC client is refused with a status of its own protocol."""
    with KserveClient(demo.client.address) as kserve:
        answer = kserve.infer(PREMIUM, "no-such-model", "Hello")
    demo.note(answer, status=404, verdict="REJECT", reason="unknown_model", protocol="kserve_grpc")


def after_abort(demo: Demo) -> None:
    """A client that leaves in the middle of a stream gives its slot back at once."""
    body = json.dumps({"text_input": "A long tale.", "max_tokens": 400, "stream": True}).encode()
    leases = 'headgate_leases{name="fast",scope="cluster_concurrency"}'
    with demo.client.streaming("/v2/models/assistant/generate_stream", body, key=INTERACTIVE) as (answer, chunks):
        next(chunks)
        held = demo.metric(leases)
    left_at = time.monotonic()
    is_free = demo.wait_until(leases, lambda count: count == 0.0)
    took = time.monotonic() - left_at
    demo.check(held == 1.0, f"{held:.0f} slots were held while the stream ran, not 1")
    demo.check(is_free and took <= _FREE_AGAIN_SECONDS, f"the slot was free only after {took * 1000:.0f} ms")
    demo.note(answer, status=200, cluster="fast", verdict="ADMIT")


def rate_limited(demo: Demo) -> None:
    """A tenant over its requests per minute."""
    # The window may turn over once in between.
    for _ in range(2 * _REQUESTS_PER_MINUTE + 1):
        answer = demo.client.chat(None, "Hello", max_tokens=1)
        if answer.status != 200:
            break
    demo.note(answer, status=429, tenant="public", verdict="REJECT", reason="requests_per_minute")
    demo.check("retry-after" in answer.headers, "the refusal has no retry-after")


@contextmanager
def _filled(demo: Demo, key: str, *, streams: int) -> Iterator[None]:
    """That many chats running on the standard cluster for the time of the block."""
    body = {
        "model": "assistant",
        "messages": [{"role": "user", "content": "Go on."}],
        "max_tokens": 600,
        "stream": True,
    }
    done = Event()

    def run() -> None:
        with demo.client.streaming("/v1/chat/completions", json.dumps(body).encode(), key=key) as (_, chunks):
            for _ in chunks:
                if done.is_set():
                    return

    with ThreadPoolExecutor(streams) as pool:
        for _ in range(streams):
            pool.submit(run)
        try:
            yield
        finally:
            done.set()


CASES: list[Callable[[Demo], None]] = [
    premium_short,
    premium_long,
    interactive,
    best_effort_over_limit,
    standard_saturated,
    spoofed_headers,
    unknown_key,
    unknown_model,
    bad_json,
    too_large,
    triton_stream,
    kserve_infer,
    kserve_stream,
    kserve_refused,
    after_abort,
    rate_limited,
]
