"""`headgate up`: the local stack in the foreground, until Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from headgate_cli.stack import Announce, Stack, StackSettings

_DEMO_KEY = "demo-globex"


def up(settings: StackSettings, console: Console) -> int:
    """Start the stack, say where it is and what to try, and stay until a signal or until a part of it ends."""
    with terminating_politely(), showing_progress(console) as announce, Stack(settings, announce) as stack:
        announce("")
        console.print(_welcome(stack), highlight=False, soft_wrap=True, markup=False)
        try:
            while (ended := stack.supervisor.first_ended()) is None:
                time.sleep(0.2)
        except KeyboardInterrupt:
            console.print("\nstopping")
            return 0
        console.print(f"{ended} has ended by itself; its log: {stack.supervisor.log(ended)}", markup=False)
        return 1


@contextmanager
def showing_progress(console: Console) -> Iterator[Announce]:
    """A line that says what is going on: spinning on a terminal, one line a step elsewhere."""
    started_at = time.monotonic()
    with console.status("starting") as status:

        def announce(text: str) -> None:
            if not text:
                status.stop()
            elif console.is_terminal:
                status.update(f"{text} ({time.monotonic() - started_at:.0f} s)")
            else:
                console.print(f"{text}", highlight=False, markup=False)

        yield announce


@contextmanager
def terminating_politely() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C does, so that nothing is left running.

    SIGINT is set as well: a shell starts background jobs with it ignored.
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _welcome(stack: Stack) -> str:
    ports = stack.settings.ports
    chat = '{"model": "assistant", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}'
    generate = '{"text_input": "Hello", "max_tokens": 20}'
    return f"""
Headgate is up; Ctrl-C stops all of it.

  Envoy            {stack.url}        clients connect here
  Envoy admin      http://127.0.0.1:{ports.envoy_admin}
  live page        {stack.admin_url}/        tiers, tenants, clusters, the last decisions and why
  sidecar admin    {stack.admin_url}         /metrics /readyz /policy
  Triton           http://127.0.0.1:{ports.triton_http}         metrics on {ports.triton_metrics}
  stand-ins for trtllm-serve (the real one needs a GPU) on ports {ports.trtllm_standard} and {ports.trtllm_fast}
  policy           {stack.policy_path}      edit it: it is reloaded
  logs             {stack.settings.run / "logs"}

Try:

  curl -i {stack.url}/v1/chat/completions -H 'authorization: Bearer {_DEMO_KEY}' -d '{chat}'

  curl -N {stack.url}/v2/models/assistant/generate_stream -H 'authorization: Bearer demo-acme' -d '{generate}'

  curl -i {stack.url}/v1/chat/completions -H 'authorization: Bearer wrong-key' -d '{chat}'
"""
