"""The live page in a real headless Chromium, served as a process serves it."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from headgate.admin import admin_application
from headgate.health import Health
from headgate.http import HttpServer
from headgate.live.board import LiveBoard
from headgate.metrics import Metrics
from headgate.policy.load import load_policy
from headgate.settings import DEFAULT_POLICY

POLICY = load_policy(DEFAULT_POLICY.read_bytes(), "default.yaml")
DECISION = {
    "id": "r-1", "at": 999.0, "verdict": "ADMIT", "reason": "", "status": 200, "tenant": "acme", "tier": "premium",
    "model": "assistant", "cluster": "best", "prompt_tokens": 120, "max_output_tokens": 400, "queue_wait_seconds": 0.0,
}  # fmt: skip
SHOWN: dict[str, Any] = {
    "process": {
        "version": "9.9.9", "policy": "0123456789ab", "policy_is_refused": False, "is_serving": True,
        "uptime_seconds": 7200.0, "now": 1000.0,
    },
    "clusters": [
        {
            "name": "best", "saturation": 0.44, "requests": 14, "max_requests": 32, "tokens": 3500,
            "max_tokens": 400_000, "waiting": 2,
            "servers": {
                "is_ready": True, "waiting": 3, "running": 14, "slots": 36, "kv_cache_usage": 0.25,
                "gpu_utilization": None, "queue_seconds": None, "is_stale": False, "age_seconds": 0.2,
            },
        },
        {
            "name": "dark", "saturation": 0.0, "requests": 0, "max_requests": None, "tokens": 0, "max_tokens": None,
            "waiting": 0, "servers": {"is_stale": True, "age_seconds": 42.0},
        },
    ],
    "tiers": [
        {
            "name": "premium", "in_flight": 14, "limit": 64, "waiting": 2, "verdicts": {"ADMIT": 100, "REJECT": 5},
            "first_token_p95_seconds": 0.75, "first_token_slo_seconds": 0.5,
        },
        {"name": "", "verdicts": {"REJECT": 1}},
    ],
    "tenants": [
        {
            "name": "acme", "tier": "premium", "in_flight": 14, "requests": 90, "tokens": 80_000, "share": 0.8,
            "cost_dollars": 1.25,
        }
    ],
    "decisions": [
        {**DECISION, "verdict": "REJECT", "reason": "queue_full", "status": 429, "tenant": "globex", "cluster": ""},
        DECISION | {"verdict": "QUEUE", "queue_wait_seconds": 1.5},
        DECISION,
        DECISION,
    ],
}  # fmt: skip


class Admin:
    """An admin side on its own thread whose sections a test sets."""

    def __init__(self, *shown: str) -> None:
        self.sections = copy.deepcopy(SHOWN)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        # A clock that jumps: every look reads anew.
        board = LiveBoard(iter(range(10**9)).__next__)
        for name in shown:
            board.show(name, lambda name=name: self.sections[name])
        application = admin_application(Metrics(), Health(), lambda: POLICY, board)
        self._server = HttpServer("127.0.0.1:0", application)
        self.url = f"http://{self._run(self._server.start())}"

    def stop(self) -> None:
        if self._loop.is_running():
            self._run(self._server.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


@pytest.fixture
def admin() -> Iterator[Admin]:
    running = Admin(*SHOWN)
    yield running
    running.stop()


@pytest.fixture
def bare_admin() -> Iterator[Admin]:
    running = Admin("process")
    yield running
    running.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_shows_everything_and_fits(width: int, scheme: str, admin: Admin, browser: Any) -> None:
    browser.open(admin.url + "/", width=width, scheme=scheme)
    browser.wait_until("document.querySelector('#state').innerText === 'live'")

    assert browser.text("#about") == "9.9.9, policy 0123456789ab, up 2 h"
    assert (browser.text("#running"), browser.text("#waiting")) == ("14", "2")
    clusters = browser.text("#clusters")
    for words in ("best", "44 %", "14 of 32 in flight", "2 waiting", "14 of 36 running", "3 queued", "KV cache 25 %"):
        assert words in clusters
    assert "servers silent for 42 s" in clusters
    assert "first token 750 ms, owed 500 ms" in browser.text("#tiers")
    assert "unknown callers" in browser.text("#tiers")
    for words in ("acme", "80 %", "90 requests", "80 k tokens", "$1.25"):
        assert words in browser.text("#tenants")
    decisions = browser.text("#decisions")
    for words in (
        "refused",
        "globex",
        "queue full (429)",
        "waited",
        "1.5 s wait",
        "assistant → best",
        "\N{MULTIPLICATION SIGN} 2",
    ):
        assert words in decisions
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "nothing has to be scrolled sideways"
    assert browser.run("matchMedia('(prefers-color-scheme: dark)').matches") is (scheme == "dark")
    light = browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(245, 246, 248)"
    assert light is (scheme == "light")
    assert browser.errors == []


def test_it_updates_by_itself(admin: Admin, browser: Any) -> None:
    browser.open(admin.url + "/", width=1280)
    browser.wait_until("document.querySelector('#running').innerText === '14'")

    admin.sections["tiers"][0] |= {"in_flight": 20, "verdicts": {"ADMIT": 150, "REJECT": 25}}
    admin.sections["process"] |= {"now": 1010.0, "uptime_seconds": 7210.0}

    browser.wait_until("document.querySelector('#running').innerText === '20'")
    assert (browser.text("#rate"), browser.text("#refused")) == ("7.0", "2.0")
    assert "70 in a minute" in browser.text("#tiers")


def test_a_reader_can_look_at_one_verdict(admin: Admin, browser: Any) -> None:
    browser.open(admin.url + "/", width=390)
    browser.wait_until("document.querySelectorAll('#decisions li').length === 3")

    browser.run("document.querySelector('[data-verdict=REJECT]').click()")

    assert browser.run("document.querySelectorAll('#decisions li').length") == 1
    assert "globex" in browser.text("#decisions")
    assert browser.run("document.querySelector('[data-verdict=REJECT]').getAttribute('aria-pressed')") == "true"


def test_a_name_with_markup_in_it_stays_text(admin: Admin, browser: Any) -> None:
    evil = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"
    admin.sections["decisions"] = [DECISION | {"model": evil, "tenant": evil, "reason": evil}]
    admin.sections["tenants"][0]["name"] = evil
    browser.open(admin.url + "/", width=1280)

    browser.wait_until("document.querySelectorAll('#decisions li').length === 1")

    assert evil in browser.text("#tenants")
    assert browser.run("document.title") == "Headgate"
    assert browser.run("document.querySelectorAll('#decisions img, main script').length") == 0


@pytest.mark.parametrize(
    ("process", "state"),
    [({"policy_is_refused": True}, "the new policy file is refused"), ({"is_serving": False}, "draining")],
)
def test_what_is_wrong_is_said_at_the_top(process: dict[str, bool], state: str, admin: Admin, browser: Any) -> None:
    admin.sections["process"] |= process
    browser.open(admin.url + "/", width=390)

    browser.wait_until(f"document.querySelector('#state').innerText === '{state}'")


def test_a_sidecar_that_is_gone_is_said_too(admin: Admin, browser: Any) -> None:
    browser.open(admin.url + "/", width=390)
    browser.wait_until("document.querySelector('#state').innerText === 'live'")

    admin.stop()

    browser.wait_until("document.querySelector('#state').innerText === 'no answer from the sidecar'")
    assert "best" in browser.text("#clusters"), "what was known stays"


def test_a_process_that_only_limits_rates_shows_what_it_has(bare_admin: Admin, browser: Any) -> None:
    browser.open(bare_admin.url + "/", width=390)

    browser.wait_until("document.querySelector('#state').innerText === 'live'")
    assert browser.text("#about") == "9.9.9, policy 0123456789ab, up 2 h"
    assert browser.errors == []


def test_everything_comes_from_the_process_itself(admin: Admin) -> None:
    for path in ("/", "/live.css", "/live.js"):
        page = httpx.get(admin.url + path)
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "://" not in page.text.replace("http://www.w3.org/2000/svg", "")
    assert httpx.get(admin.url + "/live").json() == SHOWN
