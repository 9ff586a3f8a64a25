"""The whole stack under the demo's traffic, watched by a real Prometheus with the configuration that is shipped."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from headgate_cli.demo.cases import BEST_EFFORT, CASES, INTERACTIVE, PREMIUM, Demo
from headgate_cli.demo.client import Client
from headgate_cli.ports import Ports
from headgate_cli.stack import Stack, StackSettings

WAIT_SECONDS = 30.0
SCRAPE = "500ms"

Sample = tuple[dict[str, str], float]


@dataclass(slots=True)
class Prometheus:
    """Asks one running Prometheus."""

    url: str

    def ask(self, query: str) -> list[Sample]:
        """An instant query; the samples by their labels."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", (query, answer)
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in data["result"]]

    def values(self, query: str, label: str) -> dict[str, float]:
        """The samples by one label."""
        return {labels.get(label, ""): value for labels, value in self.ask(query)}

    def total(self, query: str) -> float:
        """The sum of all samples."""
        return sum(value for _, value in self.ask(query))

    def wait_until(self, holds: Callable[[], object], what: str) -> None:
        give_up_at = time.monotonic() + WAIT_SECONDS
        while not holds():
            assert time.monotonic() < give_up_at, f"never so: {what}"
            time.sleep(0.2)

    def has_scraped_since(self, moment: float) -> bool:
        """Whether every target has been read since then (seconds since the epoch)."""
        # A scrape of its own after `moment`: the sample's own time says when it was taken.
        ages = self.ask("timestamp(up)")
        return bool(ages) and all(at > moment for _, at in ages)


@dataclass(slots=True)
class Observed:
    """What was sent, and who watched.

    Attributes:
        whole: tokens by (who counted, kind), after requests that all ran to their end.
        failures: what the demo's cases found wrong.
    """

    prometheus: Prometheus
    stack: Stack
    whole: dict[tuple[str, str], float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def promtool(debian: Callable[..., Path]) -> Path:
    return debian("prometheus", "prometheus", with_dependencies=False) / "usr/bin/promtool"


@pytest.fixture(scope="session")
def observed(
    debian: Callable[..., Path], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    binary = debian("prometheus", "prometheus", with_dependencies=False) / "usr/bin/prometheus"
    ports, prometheus_port = Ports.free(), Ports.free().admin
    with Stack(StackSettings(ports=ports, run=folder / "stack"), print) as stack:
        configuration = folder / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(_local(repository / "deploy/prometheus", ports)))
        options = [f"--web.listen-address=127.0.0.1:{prometheus_port}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(
                [str(binary), f"--config.file={configuration}", *options], stdout=log, stderr=log, cwd=folder
            )
        try:
            prometheus = Prometheus(f"http://127.0.0.1:{prometheus_port}")
            prometheus.wait_until(lambda: _is_ready(prometheus, process, folder), "Prometheus is ready")
            prometheus.wait_until(lambda: len(prometheus.ask("up == 1")) == 5, "everything is scraped")
            seen = Observed(prometheus, stack)
            _send(seen)
            yield seen
        finally:
            process.terminate()
            process.wait()


def _local(folder: Path, ports: Ports) -> dict[str, Any]:
    """The shipped configuration with this machine's addresses and a test's patience."""
    document: dict[str, Any] = yaml.safe_load((folder / "prometheus.yml").read_text())
    addresses = {
        "headgate:9090": ports.admin,
        "envoy:9901": ports.envoy_admin,
        "triton:8002": ports.triton_metrics,
        "trtllm-standard:8010": ports.trtllm_standard,
        "trtllm-fast:8011": ports.trtllm_fast,
    }
    document["global"] = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
    document["rule_files"] = [str(folder / pattern) for pattern in document["rule_files"]]
    for job in document["scrape_configs"]:
        for group in job["static_configs"]:
            group["targets"] = [f"127.0.0.1:{addresses[target]}" for target in group["targets"]]
    return document


def _is_ready(prometheus: Prometheus, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]
    try:
        return httpx.get(f"{prometheus.url}/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def _send(seen: Observed) -> None:
    with Client(seen.stack.url, seen.stack.supervisor.log("headgate")) as client:
        _run_to_the_end(client)
        _settle(seen, client)
        _run_to_the_end(client)
        _settle(seen, client)
        seen.whole = {
            (who, kind): seen.prometheus.total(query) for who, kinds in _TOKENS.items() for kind, query in kinds.items()
        }
        for case in CASES:
            demo = Demo(case.__name__, client, seen.stack.admin_url)
            case(demo)
            seen.failures += demo.failures
        _settle(seen, client)


_TOKENS = {
    "headgate": {
        "prompt": 'headgate_tokens_total{kind="prompt", source="reported"}',
        "output": 'headgate_tokens_total{kind="output", source="reported"}',
        "estimated": 'headgate_tokens_total{source="estimated"}',
    },
    "servers": {
        "prompt": '{__name__=~"trtllm_prompt_tokens_total|nv_llm_input_token_len_sum"}',
        "output": '{__name__=~"trtllm_generation_tokens_total|nv_llm_output_token_len_sum"}',
    },
}


def _run_to_the_end(client: Client) -> None:
    """Every tier, streams and whole answers, some who wait (32 run at once on the best cluster), none who leaves."""
    told = {"max_tokens": 20, "return_num_input_tokens": True, "return_num_output_tokens": True}
    texts = [f"Question {n}?" for n in range(38)]
    with ThreadPoolExecutor(48) as pool:
        calls = [
            pool.submit(client.post, "/v2/models/assistant/generate", _json(text_input=text, **told), key=PREMIUM)
            for text in texts
        ]
        for key in (PREMIUM, INTERACTIVE, BEST_EFFORT):
            hello = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12}
            streamed = hello | {"stream": True, "stream_options": {"include_usage": True}}
            calls += [
                pool.submit(client.post, "/v1/chat/completions", _json(**body), key=key) for body in (hello, streamed)
            ]
        assert {call.result().status for call in calls} == {200}


def _json(**body: object) -> bytes:
    return json.dumps(body).encode()


def _settle(seen: Observed, client: Client) -> None:
    """Wait until the last request has been accounted for, and everything scraped after that."""
    client.record(client.chat(INTERACTIVE, "Done?", max_tokens=1))
    moment = time.time()
    seen.prometheus.wait_until(lambda: seen.prometheus.has_scraped_since(moment), "all is scraped again")
