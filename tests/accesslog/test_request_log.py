"""The log: one JSON line a request, fewer where many are alike, and nothing in it that is the client's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from accesslog.request_log import RequestLog
from accesslog.wire import parse_records
from headgate.logs import JsonFormatter
from headgate.pb import accesslog_pb2 as pb
from headgate.record import Outcome, RequestRecord

FINISHED = Callable[..., RequestRecord]


class Written:
    """The lines of one log, as JSON."""

    def __init__(self, caplog: pytest.LogCaptureFixture, share: float = 1.0) -> None:
        caplog.set_level(logging.INFO, "headgate.request")
        self._caplog = caplog
        self.left_out = 0
        self.log = RequestLog(share, self._leave_out)

    def _leave_out(self) -> None:
        self.left_out += 1

    @property
    def text(self) -> list[str]:
        return [JsonFormatter().format(record) for record in self._caplog.records]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text]


def test_a_request_is_one_json_line(finished: FINISHED, caplog: pytest.LogCaptureFixture) -> None:
    written = Written(caplog)
    trace = f"00-{'a' * 32}-{'b' * 16}-01"

    written.log.write(
        finished(verdict="DEGRADE", reason="queue_timeout", queue_wait_seconds=2.0, flags=("DC",), traceparent=trace)
    )

    [line] = written.lines
    assert "\n" not in written.text[0]
    expected = {
        "message": "request",
        "request_id": "r-1",
        "traceparent": trace,
        "tenant": "acme",
        "tier": "premium",
        "verdict": "DEGRADE",
        "reason": "queue_timeout",
        "outcome": "served",
        "queue_wait_seconds": 2.0,
        "first_byte_seconds": 0.25,
        "upstream_first_byte_seconds": 0.125,
        "output_token_seconds": 0.05,
        "usage_source": "reported",
        "output_tokens": 64,
        "flags": ["DC"],
        "status": 200,
    }
    assert {key: line[key] for key in expected} == expected


def test_of_many_requests_alike_a_share_is_written_and_the_rest_are_counted(
    finished: FINISHED, caplog: pytest.LogCaptureFixture
) -> None:
    written = Written(caplog, share=0.1)

    for number in range(2000):
        written.log.write(finished(request_id=f"r-{number}"))

    assert 150 < len(written.lines) < 250
    assert written.left_out == 2000 - len(written.lines)


def test_every_process_chooses_the_same_requests(finished: FINISHED, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        log = Written(caplog, share=0.5).log
        for number in range(50):
            log.write(finished(request_id=f"r-{number}"))

    ids = [line["request_id"] for line in Written(caplog).lines]
    assert ids[: len(ids) // 2] == ids[len(ids) // 2 :]


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": Outcome.REFUSED, "verdict": "REJECT", "status": 429},
        {"outcome": Outcome.MODEL_ERROR, "status": 500},
        {"outcome": Outcome.GATEWAY_ERROR, "status": 503},
        {"outcome": Outcome.CLIENT_LEFT, "status": 0},
        {"first_byte_seconds": 10.0},
        {"is_stream": False, "queue_wait_seconds": 12.0},
    ],
)
def test_what_went_wrong_or_slowly_is_always_written(
    finished: FINISHED, caplog: pytest.LogCaptureFixture, fields: dict[str, Any]
) -> None:
    written = Written(caplog, share=0.0)

    written.log.write(finished())
    written.log.write(finished(**fields))

    assert [line["outcome"] for line in written.lines] == [fields.get("outcome", "served")]
    assert written.left_out == 1


def test_a_long_answer_in_one_piece_is_not_slow(finished: FINISHED, caplog: pytest.LogCaptureFixture) -> None:
    written = Written(caplog, share=0.0)

    written.log.write(finished(is_stream=False, first_byte_seconds=30.0))

    assert written.lines == []


def test_no_header_no_path_and_no_address_is_written(
    caplog: pytest.LogCaptureFixture, logged: Callable[..., pb.HTTPAccessLogEntry], batch: Callable[..., bytes]
) -> None:
    written = Written(caplog)

    for record in parse_records(batch(logged())):
        written.log.write(record)

    [text] = written.text
    assert "acme" in text
    assert "secret" not in text
    assert "203.0.113.7" not in text
