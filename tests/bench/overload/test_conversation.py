"""Clients and the simulated server, over real sockets and without a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from bench.overload.client import ClientPlan, run
from bench.overload.http_head import read_head
from bench.overload.outcome import Ending
from bench.overload.question import question
from bench.overload.response import Response
from bench.overload.simulated_engine import EngineShape
from bench.overload.simulated_replica import Replica
from bench.overload.simulated_server import Connection
from bench.overload.workload import Arrival

FACTOR = 50.0


def arrival(number: int = 0, due: float = 0.0, answer: int = 20, patience: float = 1000.0) -> Arrival:
    return Arrival(
        number=number,
        due_seconds=due,
        tier="premium",
        tenant="acme",
        prompt_tokens=100,
        answer_tokens=answer,
        max_tokens=1024,
        patience_seconds=patience,
    )


class Served:
    """A replica with one slot, and where it listens."""

    def __init__(self, replica: Replica, port: int) -> None:
        self.replica = replica
        self.port = port


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    replica = Replica(EngineShape(slots=1), FACTOR)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(replica), "127.0.0.1", 0)
    async with server:
        yield Served(replica, server.sockets[0].getsockname()[1])


async def test_an_answer_is_streamed_to_its_last_token(served: Served) -> None:
    result = await run(ClientPlan(port=served.port, time_factor=FACTOR, seconds=20.0, arrivals=[arrival(7)]))
    (outcome,) = result.outcomes
    assert (outcome.ending, outcome.status, outcome.answer_tokens) == (Ending.COMPLETED, 200, 20)
    assert outcome.ttft_seconds is not None
    (record,) = served.replica.record().sequences
    assert (record.number, record.prompt_tokens, record.is_complete) == (7, 100, True)


async def test_a_connection_is_used_again(served: Served) -> None:
    arrivals = [arrival(number, due=number * 5.0) for number in range(3)]
    result = await run(ClientPlan(port=served.port, time_factor=FACTOR, seconds=40.0, arrivals=arrivals))
    assert [outcome.ending for outcome in result.outcomes] == [Ending.COMPLETED] * 3


async def test_a_client_whose_patience_is_over_leaves_the_queue(served: Served) -> None:
    arrivals = [arrival(0, answer=1000), arrival(1, due=0.1, patience=2.0)]
    result = await run(ClientPlan(port=served.port, time_factor=FACTOR, seconds=8.0, arrivals=arrivals))
    assert [outcome.ending for outcome in result.outcomes] == [Ending.CUT, Ending.GAVE_UP]
    assert result.outcomes[0].is_served
    assert not result.outcomes[1].is_served
    waited = next(sequence for sequence in served.replica.record().sequences if sequence.number == 1)
    assert (waited.admitted_at, waited.first_token_at) == (None, None)
    assert waited.ended_at is not None


async def test_a_server_that_is_not_there_is_a_failure(served: Served, unused_tcp_port: int) -> None:
    plan = ClientPlan(port=unused_tcp_port, time_factor=FACTOR, seconds=5.0, arrivals=[arrival()])
    (outcome,) = (await run(plan)).outcomes
    assert (outcome.ending, outcome.status) == (Ending.FAILED, 0)


async def ask(port: int, request: bytes) -> Response:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    response = Response()
    while not response.is_over:
        response.receive(await reader.read(65536))
    writer.close()
    await writer.wait_closed()
    return response


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nx-simulation: 1 2 3\r\ncontent-length: 1\r\n\r\n{",
        b"POST /v1/chat/completions HTTP/1.1\r\nx-simulation: 1 999999 3\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
async def test_what_cannot_be_simulated_is_a_bad_request(served: Served, request_bytes: bytes) -> None:
    assert (await ask(served.port, request_bytes)).status == 400


async def test_the_server_says_that_it_is_a_simulation(served: Served) -> None:
    response = await ask(served.port, b"GET /health HTTP/1.1\r\n\r\n")
    assert response.head is not None
    assert b"simulation" in response.head.headers[b"server"]


async def test_an_answer_that_is_not_streamed_is_one_document(served: Served) -> None:
    body = b'{"max_tokens": 5}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nx-simulation: 1 10 30\r\ncontent-length: %d\r\n\r\n" % len(body)
    response = await ask(served.port, head + body)
    assert (response.status, response.tokens) == (200, 5)


def test_a_question_has_the_prompt_of_the_trace_and_the_lengths_for_the_simulation() -> None:
    data = question(arrival(3))
    head = read_head(data)
    assert head is not None
    assert head.headers[b"x-simulation"] == b"3 100 20"
    body = json.loads(data[head.size :])
    assert len(body["messages"][0]["content"]) == 450
    assert (body["max_tokens"], body["stream"]) == (1024, True)


def test_a_response_is_understood_however_it_is_cut() -> None:
    data = (
        b"HTTP/1.1 200 OK\r\nx-headgate-decision: admit\r\ntransfer-encoding: chunked\r\n\r\n"
        b'1e\r\ndata: {"completion_tokens":12}\n\n\r\n0\r\n\r\n'
    )
    response = Response()
    for position in range(len(data)):
        response.receive(data[position : position + 1])
    assert (response.status, response.tokens, response.is_over, response.decision) == (200, 12, True, "admit")


def test_a_refusal_gives_headgates_reason_or_else_envoys_words() -> None:
    ours, envoys = Response(), Response()
    ours.receive(b"HTTP/1.1 429 X\r\nx-headgate-decision: reject; reason=queue_full\r\ncontent-length: 2\r\n\r\n{}")
    envoys.receive(b"HTTP/1.1 503 X\r\ncontent-length: 8\r\n\r\noverflow")
    assert (ours.is_over, ours.status, ours.reason) == (True, 429, "queue_full")
    assert (envoys.is_over, envoys.status, envoys.reason) == (True, 503, "overflow")


def test_a_503_after_an_admission_is_a_failure_and_no_refusal() -> None:
    failed = Response()
    failed.receive(b"HTTP/1.1 503 X\r\nx-headgate-decision: queue; wait=5ms\r\ncontent-length: 2\r\n\r\n{}")
    refused = Response()
    refused.receive(b"HTTP/1.1 503 X\r\ncontent-length: 8\r\n\r\noverflow")
    assert (failed.is_over, failed.is_refusal) == (True, False)
    assert refused.is_refusal
