"""`python -m headgate_cli.trtllm_serve_standin`: parse the command line, wire the parts, serve."""

from __future__ import annotations

import argparse
import signal
import sys

from headgate_cli.trtllm_serve_standin import DISCLOSURE
from headgate_cli.trtllm_serve_standin.app import Api, Model
from headgate_cli.trtllm_serve_standin.engine import Engine, EngineLimits
from headgate_cli.trtllm_serve_standin.metrics import Metrics
from headgate_cli.trtllm_serve_standin.scheduler import Scheduler
from headgate_cli.trtllm_serve_standin.server import StandInServer


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. A wrong option or a taken port exits at once."""
    options = _parser().parse_args(argv)
    server = _server(options)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Also before and after uvicorn's own: early it must not be lost, and uvicorn raises it again at its end.
        signal.signal(number, server.handle_exit)
    server.run()
    return 0


def _server(options: argparse.Namespace) -> StandInServer:
    limits = EngineLimits(
        slots=options.slots,
        tokens_per_second=options.tokens_per_second,
        prefill_tokens_per_second=options.prefill_tokens_per_second,
        max_seq_len=options.max_seq_len,
        kv_blocks=options.kv_blocks,
    )
    engine = Engine(limits)
    metrics = Metrics(options.model, engine.stats)
    scheduler = Scheduler(engine, metrics.observe_finished)
    app = Api(Model(name=options.model, answer_tokens=options.answer_tokens), scheduler, metrics).app()
    ready_line = f"{DISCLOSURE}; model {options.model}, {options.slots} slots"
    return StandInServer(app, scheduler, host=options.host, port=options.port, ready_line=ready_line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m headgate_cli.trtllm_serve_standin",
        description=f"Run {DISCLOSURE}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    size = EngineLimits()
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="the model name to answer to")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=_port, default=8010, help="port to listen on; 0 takes a free one")
    add("--slots", type=_count, default=size.slots, help="sequences that run at once")
    add("--tokens-per-second", type=_rate, default=size.tokens_per_second, metavar="N", help="per sequence")
    add(
        "--prefill-tokens-per-second",
        type=_rate,
        default=size.prefill_tokens_per_second,
        metavar="N",
        help="prompt tokens, for all sequences together",
    )
    add("--max-seq-len", type=_count, default=size.max_seq_len, metavar="N", help="prompt and answer, in tokens")
    add("--kv-blocks", type=_count, default=size.kv_blocks, metavar="N", help="cache blocks of 32 tokens")
    add("--answer-tokens", type=_count, default=256, metavar="N", help="how long an answer is when nothing ends it")
    return parser


def _count(text: str) -> int:
    return _within(int(text), 1, 2**31)


def _port(text: str) -> int:
    return _within(int(text), 0, 65535)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0.001 <= rate <= 1e9:
        raise ValueError(text)
    return rate


def _within(number: int, lowest: int, highest: int) -> int:
    if not lowest <= number <= highest:
        raise ValueError(number)
    return number


if __name__ == "__main__":
    sys.exit(main())
