"""What a tenant is said to have used is what the model servers themselves counted, to the token."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping

import openai

from headgate_cli.demo.cases import INTERACTIVE, PREMIUM, Demo
from headgate_cli.demo.client import Client
from headgate_cli.stack import Stack

Counts = Mapping[str, float]
KINDS = ("prompt", "output")
HELLO = [{"role": "user", "content": "Tell me what a headgate is for, in a few words."}]
ENDED = 'headgate_tenant_requests_total{{outcome="served",tenant="{tenant}"}}'


def lines(url: str) -> list[str]:
    with urllib.request.urlopen(url, timeout=5.0) as page:
        return list(page.read().decode().splitlines())


def counted(url: str, name: str, *labels: str) -> float:
    """The sum of the series of this name that have these labels."""
    found = [line for line in lines(url) if line.startswith(name) and all(label in line for label in labels)]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def accounted(metrics_url: str, tenant: str) -> Counts:
    def tokens(kind: str, source: str) -> float:
        labels = (f'tenant="{tenant}"', f'kind="{kind}"', f'source="{source}"')
        return counted(metrics_url, "headgate_tokens_total{", *labels)

    return {kind: tokens(kind, "reported") for kind in KINDS} | {
        "estimated": sum(tokens(k, "estimated") for k in KINDS)
    }


def check_growth(
    demo: Demo, tenant: str, requests: int, upstream: Callable[[], Counts], ask: Callable[[], None]
) -> None:
    """Ask; then what the tenant is said to have used has grown by what its model server has counted."""
    metrics_url = f"{demo._admin_url}/metrics"
    ended = ENDED.format(tenant=tenant)
    served = demo.metric(ended)
    before, before_upstream = accounted(metrics_url, tenant), upstream()

    ask()

    assert demo.wait_until(ended, lambda count: count == served + requests)
    used = {key: value - before[key] for key, value in accounted(metrics_url, tenant).items()}
    assert used == {key: value - before_upstream[key] for key, value in upstream().items()} | {"estimated": 0.0}
    assert used["output"] > 0


def test_tokens_of_openai_clients_are_the_stand_ins_own(client: Client, openai_url: str, stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.settings.ports.trtllm_standard}/prometheus/metrics"

    def upstream() -> Counts:
        names = {"prompt": "trtllm_prompt_tokens_total{", "output": "trtllm_generation_tokens_total{"}
        return {kind: counted(url, name) for kind, name in names.items()}

    def ask() -> None:
        with openai.OpenAI(api_key=INTERACTIVE, base_url=openai_url, max_retries=0) as sdk:
            for max_tokens in (1, 7, 20):
                sdk.chat.completions.create(model="assistant", messages=HELLO, max_tokens=max_tokens)
                # The SDK closes at [DONE], without waiting for the end of the response.
                list(
                    sdk.chat.completions.create(
                        model="assistant", messages=HELLO, max_tokens=max_tokens, stream=True,
                        stream_options={"include_usage": True},
                    )
                )  # fmt: skip

    check_growth(Demo("accounting", client, stack.admin_url), "globex", 6, upstream, ask)


def test_tokens_of_triton_clients_are_tritons_own(client: Client, stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.settings.ports.triton_metrics}/metrics"

    def upstream() -> Counts:
        names = {"prompt": "nv_llm_input_token_len_sum{", "output": "nv_llm_output_token_len_sum{"}
        return {kind: counted(url, name, 'model="best_tensorrt_llm"') for kind, name in names.items()}

    def ask() -> None:
        for max_tokens in (1, 7, 20):
            body = {"text_input": "What is a headgate?", "max_tokens": max_tokens}
            body |= {"return_num_input_tokens": True, "return_num_output_tokens": True}
            for path, stream in (("generate", False), ("generate_stream", True)):
                answer = client.post(
                    f"/v2/models/assistant/{path}", json.dumps(body | {"stream": stream}).encode(), key=PREMIUM
                )
                assert answer.status == 200

    check_growth(Demo("accounting", client, stack.admin_url), "acme", 6, upstream, ask)


def test_a_triton_stream_that_says_nothing_of_tokens_is_estimated_by_its_events(client: Client, stack: Stack) -> None:
    body = json.dumps({"text_input": "What is a headgate?", "max_tokens": 9, "stream": True}).encode()

    answer = client.post("/v2/models/assistant/generate_stream", body, key=PREMIUM)

    record = client.record(answer)
    assert (record["usage_source"], record["output_tokens"]) == ("estimated", None)
    assert record["estimated_output_tokens"] == answer.body.count(b"data:")
    assert answer.headers["server-timing"].startswith("hg-queue;dur=0.0, hg-decide;dur=")
