"""The live page of a running sidecar, in a real browser, while requests come in."""

from __future__ import annotations

import time
from typing import Any

import httpx

from headgate_cli.demo.cases import INTERACTIVE
from headgate_cli.demo.client import Client
from headgate_cli.stack import Stack


def test_a_request_is_on_the_page_within_moments(stack: Stack, browser: Any) -> None:
    browser.open(stack.admin_url + "/", width=390)
    browser.wait_until("document.querySelector('#state').innerText === 'live'")

    with Client(stack.url, stack.supervisor.log("headgate")) as client:
        assert client.chat(INTERACTIVE, "Hello", model="never-heard-of").status == 404
        assert client.chat(INTERACTIVE, "Hello").status == 200

    browser.wait_until("document.querySelector('#decisions').innerText.includes('unknown model (404)')")
    browser.wait_until("document.querySelector('#decisions').innerText.includes('assistant → standard')")
    browser.wait_until("document.querySelector('#tenants').innerText.includes('globex')")
    browser.wait_until("document.querySelector('#clusters').innerText.includes('0 of 16 running')")
    assert browser.errors == []


def test_its_answers_hold_no_prompt_and_no_key(stack: Stack) -> None:
    with Client(stack.url, stack.supervisor.log("headgate")) as client:
        client.chat(INTERACTIVE, "a most secret question")
        client.chat("a-most-secret-key", "Hello")

    give_up_at = time.monotonic() + 5.0
    # Who looks twice at once is shown the same.
    while "invalid_credential" not in (answer := httpx.get(f"{stack.admin_url}/live").text):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)

    assert "most secret" not in answer
    assert "most-secret" not in answer
    assert INTERACTIVE not in answer
