"""A client's budgets through the real Envoy: told with every answer, and put right when the answer has ended."""

from __future__ import annotations

import re
import time

import httpx
import openai

from headgate_cli.demo.cases import INTERACTIVE, PREMIUM
from headgate_cli.stack import Stack

HELLO = [{"role": "user", "content": "Hello"}]
PATIENCE_SECONDS = 60.0
DURATION = re.compile(r"(?:[0-9]+h)?(?:[0-9]+m)?[0-9]+(?:\.[0-9]+)?(?:ms|s)")


def given_back(stack: Stack) -> float:
    """Tokens, as the sidecar's metrics tell."""
    text = httpx.get(f"http://127.0.0.1:{stack.settings.ports.admin}/metrics").text
    found = re.search(r'^headgate_settled_tokens\{direction="given_back"\} (\S+)$', text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_the_openai_sdk_sees_its_limits_in_openais_own_headers(openai_url: str) -> None:
    with openai.OpenAI(api_key=INTERACTIVE, base_url=openai_url, max_retries=0) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(model="assistant", messages=HELLO, max_tokens=5)

    told = {name: value for name, value in raw.headers.items() if re.match("x-ratelimit-.*-(requests|tokens)", name)}
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-limit-tokens"]) == ("300", "500000")
    assert 0 <= int(told["x-ratelimit-remaining-requests"]) < 300
    assert 0 < int(told["x-ratelimit-remaining-tokens"]) < 500_000
    assert DURATION.fullmatch(told["x-ratelimit-reset-requests"])
    assert DURATION.fullmatch(told["x-ratelimit-reset-tokens"])


def test_tokens_charged_for_output_that_never_came_are_given_back(openai_url: str, stack: Stack) -> None:
    # The request asks for 600 tokens and the model stops long before: a charge of the minute that runs is settled.
    before = given_back(stack)
    deadline = time.monotonic() + PATIENCE_SECONDS
    with openai.OpenAI(api_key=PREMIUM, base_url=openai_url, max_retries=0) as sdk:
        while given_back(stack) <= before:
            assert time.monotonic() < deadline
            completion = sdk.chat.completions.create(
                model="assistant", messages=HELLO, max_tokens=600, stop=["a", "e", "i", "o", "u"]
            )
            assert completion.usage.completion_tokens < 600
            time.sleep(1.0)


def test_a_request_larger_than_its_budget_is_told_not_to_try_again(openai_url: str) -> None:
    with openai.OpenAI(api_key=INTERACTIVE, base_url=openai_url) as sdk:
        try:
            sdk.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "word " * 600_000}])
        except openai.RateLimitError as error:
            refused = error.response
        else:
            raise AssertionError("admitted")

    assert refused.headers["x-should-retry"] == "false"
    assert 0 < int(refused.headers["retry-after"]) <= 120
    assert refused.headers["x-ratelimit-limit-tokens"] == "500000"
    assert refused.headers["x-headgate-decision"] == "reject; reason=tokens_per_minute"
