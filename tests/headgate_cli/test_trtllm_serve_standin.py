"""The stand-in as its users meet it: a process on a port, asked by the real OpenAI SDK and by a bare HTTP client."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

MODEL = "meta/llama-3.1-8b"
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Server:
    """A running stand-in."""

    process: subprocess.Popen[str]
    ready_line: str

    @property
    def url(self) -> str:
        return self.ready_line.split()[-1]


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "headgate_cli.trtllm_serve_standin", "--model", MODEL, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], PATIENCE_SECONDS)[0], "no ready line"
            yield Server(process, process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--slots", "4", "--tokens-per-second", "200") as running:
        yield running
        running.process.terminate()
        output, errors = running.process.communicate(timeout=PATIENCE_SECONDS)
    # Refusals, aborts and clients that left are everyday things: none of them is worth a line.
    assert (running.process.returncode, output, errors) == (0, "", "")


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def sdk(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client


def eventually(read: Callable[[], object], expected: object) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (seen := read()) != expected:
        assert time.monotonic() < deadline, f"still {seen}, not {expected}"
        time.sleep(0.01)


def gauge(http: httpx.Client, name: str) -> float:
    text = http.get("/prometheus/metrics").text
    found = re.search(rf'^trtllm_{name}{{engine_type="stand-in",model_name="{MODEL}"}} (.*)$', text, re.MULTILINE)
    assert found, name
    return float(found[1])


def running_and_waiting(http: httpx.Client) -> tuple[float, float]:
    return gauge(http, "num_requests_running"), gauge(http, "num_requests_waiting")


def prompt(text: str = "hello", **fields: object) -> dict[str, object]:
    return {"model": MODEL, "prompt": text, **fields}


def chat(**fields: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **fields}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    *data, done = [line.removeprefix("data: ").strip() for line in response.text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(event) for event in data]


@dataclass(frozen=True)
class Stream:
    """An open stream; httpx ends it if the iterator over its lines is dropped, so both are kept."""

    response: httpx.Response
    lines: Iterator[str]

    def next_event(self) -> dict[str, Any]:
        return json.loads(next(line for line in self.lines if line).removeprefix("data: "))

    def last_line(self) -> str:
        return [line for line in self.lines if line][-1]


@contextmanager
def endless(http: httpx.Client, **fields: object) -> Iterator[Stream]:
    body = prompt(stream=True, max_tokens=100_000, ignore_eos=True, **fields)
    with http.stream("POST", "/v1/completions", json=body) as response:
        yield Stream(response, response.iter_lines())


class TestOpenAiSdk:
    def test_a_chat_is_answered_with_its_usage(self, sdk: openai.OpenAI):
        answer = sdk.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hello"}], max_tokens=5, temperature=0
        )

        assert answer.choices[0].message.content == "quay are lit from west"
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 5, 12)
        assert answer.usage.prompt_tokens_details is not None

    def test_an_answer_without_a_limit_stops_by_itself(self, sdk: openai.OpenAI):
        answer = sdk.completions.create(model=MODEL, prompt="hello")

        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert 128 <= answer.usage.completion_tokens < 384

    def test_a_chat_stream_gives_the_role_then_one_token_a_chunk_then_usage(self, sdk: openai.OpenAI):
        with sdk.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            max_completion_tokens=3,
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            role, *tokens, last = list(stream)

        assert role.choices[0].delta.role == "assistant"
        assert [chunk.choices[0].delta.content for chunk in tokens] == ["quay", " are", " lit"]
        assert [chunk.choices[0].finish_reason for chunk in tokens] == [None, None, "length"]
        assert last.choices == []
        assert last.usage is not None
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 3)
        assert len({chunk.id for chunk in (role, *tokens, last)}) == 1

    def test_tools_and_a_response_format_are_accepted(self, sdk: openai.OpenAI):
        answer = sdk.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            tools=[{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}],
            tool_choice="auto",
            response_format={"type": "json_object"},
            max_tokens=2,
        )

        assert answer.choices[0].finish_reason == "length"

    def test_n_choices_differ_and_count_the_prompt_once(self, sdk: openai.OpenAI):
        answer = sdk.completions.create(model=MODEL, prompt="hello", n=3, max_tokens=4)

        assert len({choice.text for choice in answer.choices}) == 3
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 12)

    def test_every_prompt_of_a_list_is_answered(self, sdk: openai.OpenAI):
        texts = sdk.completions.create(model=MODEL, prompt=["one", "twotwo"], max_tokens=2)
        ids = sdk.completions.create(model=MODEL, prompt=[[1, 2, 3], [4]], max_tokens=2)

        assert [choice.index for choice in texts.choices] == [0, 1]
        assert texts.usage is not None
        assert texts.usage.prompt_tokens == 3
        assert ids.usage is not None
        assert ids.usage.prompt_tokens == 4

    def test_a_stop_string_ends_the_answer(self, sdk: openai.OpenAI):
        answer = sdk.completions.create(model=MODEL, prompt="hello", stop=["they"], max_tokens=50)

        assert answer.choices[0].text == "in which "
        assert answer.choices[0].finish_reason == "stop"

    def test_a_prompt_seen_before_is_reported_as_cached(self, sdk: openai.OpenAI):
        def cached() -> int | None:
            usage = sdk.completions.create(model=MODEL, prompt="a long story " * 100, max_tokens=1).usage
            assert usage is not None
            assert usage.prompt_tokens_details is not None
            return usage.prompt_tokens_details.cached_tokens

        assert [cached(), cached()] == [0, 320]

    def test_an_unknown_model_is_not_found(self, sdk: openai.OpenAI):
        with pytest.raises(openai.NotFoundError, match="`gpt-5` does not exist"):
            sdk.completions.create(model="gpt-5", prompt="hello")

    def test_an_unknown_field_is_a_bad_request(self, sdk: openai.OpenAI):
        with pytest.raises(openai.BadRequestError, match="unknown field `tier`") as caught:
            sdk.completions.create(model=MODEL, prompt="hello", extra_body={"tier": "premium"})

        assert caught.value.type == "BadRequestError"

    def test_a_prompt_longer_than_the_model_takes_is_a_bad_request(self, sdk: openai.OpenAI):
        with pytest.raises(openai.BadRequestError, match="leaves no room in max_seq_len 131072"):
            sdk.completions.create(model=MODEL, prompt="a" * 4 * 131_072)

    def test_the_model_is_listed(self, sdk: openai.OpenAI):
        assert [model.id for model in sdk.models.list()] == [MODEL]


class TestErrors:
    @pytest.mark.parametrize(("path", "body"), [("chat/completions", chat(x=1)), ("completions", prompt(x=1))])
    def test_an_unknown_field_is_refused_in_the_real_shape(self, http: httpx.Client, path: str, body: object):
        response = http.post(f"/v1/{path}", json=body)

        assert response.status_code == 400
        assert response.json() == {
            "object": "error",
            "message": "Object contains unknown field `x`",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        }

    @pytest.mark.parametrize("body", [b"", b"{", b"null", b"\xff\xfe", b'{"model": 1}', b"[" * 100_000])
    def test_a_body_that_is_no_request_is_refused_in_the_real_shape(self, http: httpx.Client, body: bytes):
        response = http.post("/v1/completions", content=body)

        assert response.status_code == 400
        assert response.json()["object"] == "error"

    def test_refusals_are_counted_by_status(self, http: httpx.Client):
        http.post("/v1/completions", json=prompt(model="nope"))

        assert (
            'trtllm_request_error_total{engine_type="stand-in",http_code="404"' in http.get("/prometheus/metrics").text
        )

    def test_an_unknown_path_and_a_wrong_method_are_said_to_be_so(self, http: httpx.Client):
        missing, wrong = http.get("/v2/health/ready"), http.get("/v1/completions")

        assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


class TestStreams:
    def test_tokens_come_one_by_one_while_the_answer_is_still_being_made(self, http: httpx.Client):
        with endless(http, stream_options={"continuous_usage_stats": True}) as stream:
            counts = [stream.next_event()["usage"]["completion_tokens"] for _ in range(20)]
            still_running = gauge(http, "num_requests_running")

        assert counts == list(range(1, 21))
        assert still_running == 1
        eventually(lambda: running_and_waiting(http), (0, 0))

    def test_usage_is_not_sent_unasked(self, http: httpx.Client):
        response = http.post("/v1/chat/completions", json=chat(stream=True, max_tokens=3))

        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert not any("usage" in event for event in events(response))

    def test_stream_options_alone_turn_usage_on_and_false_turns_it_off(self, http: httpx.Client):
        on = http.post("/v1/chat/completions", json=chat(stream=True, max_tokens=1, stream_options={}))
        off = http.post(
            "/v1/chat/completions", json=chat(stream=True, max_tokens=1, stream_options={"include_usage": False})
        )

        assert events(on)[-1]["choices"] == []
        assert [bool(event["choices"]) for event in events(off)] == [True, True]

    def test_each_prompt_of_a_list_gets_its_own_usage_event(self, http: httpx.Client):
        body = prompt(stream=True, max_tokens=2, n=2, stream_options={}) | {"prompt": ["one", "twotwo"]}

        told = events(http.post("/v1/completions", json=body))

        assert {event["choices"][0]["index"] for event in told if event["choices"]} == {0, 1, 2, 3}
        usages = [event["usage"] for event in told if not event["choices"]]
        assert sorted((usage["prompt_tokens"], usage["completion_tokens"]) for usage in usages) == [(1, 4), (2, 4)]

    def test_echo_puts_the_prompt_before_the_first_token(self, http: httpx.Client):
        told = events(http.post("/v1/completions", json=prompt(stream=True, max_tokens=2, echo=True)))

        assert [event["choices"][0]["text"] for event in told] == ["helloin", " which"]

    def test_without_detokenizing_only_ids_come(self, http: httpx.Client):
        body = http.post("/v1/completions", json=prompt(max_tokens=2, detokenize=False)).json()

        assert body["choices"][0]["text"] == ""
        assert len(body["choices"][0]["token_ids"]) == 2


class TestSlots:
    def test_all_slots_are_used_then_requests_wait_and_a_client_that_leaves_lets_the_next_one_in(
        self, http: httpx.Client
    ):
        with ExitStack() as open_streams:
            streams = [open_streams.enter_context(endless(http)) for _ in range(6)]
            for stream in streams[:4]:
                stream.next_event()
            assert running_and_waiting(http) == (4, 2)

            streams[0].response.close()
            streams[4].next_event()
            assert running_and_waiting(http) == (4, 1)

            streams[5].response.close()
            eventually(lambda: running_and_waiting(http), (4, 0))
        eventually(lambda: running_and_waiting(http), (0, 0))

    def test_a_client_that_leaves_before_a_whole_answer_frees_its_slot(self, server: Server, http: httpx.Client):
        body = json.dumps(prompt(max_tokens=100_000, ignore_eos=True)).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port)) as client:
            client.sendall(head.encode() + body)
            eventually(lambda: running_and_waiting(http), (1, 0))

        eventually(lambda: running_and_waiting(http), (0, 0))

    def test_a_choice_takes_a_slot_each(self, http: httpx.Client):
        with endless(http, n=5) as stream:
            stream.next_event()
            assert running_and_waiting(http) == (4, 1)
        eventually(lambda: running_and_waiting(http), (0, 0))


class TestMetrics:
    def test_iteration_stats_are_drained_by_reading_them(self, http: httpx.Client):
        http.get("/metrics")
        http.post("/v1/completions", json=prompt(max_tokens=3))

        first, again = http.get("/metrics").json(), http.get("/metrics").json()

        assert [stats["numCompletedRequests"] for stats in first] == [0, 0, 1]
        assert first[0].keys() == {
            "iter",
            "iterLatencyMS",
            "numActiveRequests",
            "numQueuedRequests",
            "numCompletedRequests",
            "maxNumActiveRequests",
            "gpuMemUsage",
            "kvCacheStats",
            "inflightBatchingStats",
        }
        assert first[0]["kvCacheStats"].keys() >= {"maxNumBlocks", "freeNumBlocks", "usedNumBlocks", "cacheHitRate"}
        assert first[0]["inflightBatchingStats"].keys() >= {
            "numScheduledRequests",
            "numContextRequests",
            "numCtxTokens",
        }
        assert again == []

    def test_prometheus_has_the_names_of_the_real_server(self, http: httpx.Client):
        http.post("/v1/completions", json=prompt(max_tokens=2))

        response = http.get("/prometheus/metrics")
        names = set(re.findall(r"^# TYPE (\S+) ", response.text, re.MULTILINE))

        assert response.headers["content-type"].startswith("text/plain; version=")
        assert names >= {
            f"trtllm_{name}"
            for name in (
                "request_success_total",
                "e2e_request_latency_seconds",
                "time_to_first_token_seconds",
                "time_per_output_token_seconds",
                "request_queue_time_seconds",
                "kv_cache_hit_rate",
                "kv_cache_utilization",
                "kv_cache_reused_blocks_total",
                "kv_cache_missed_blocks_total",
                "num_requests_running",
                "num_requests_waiting",
                "max_num_active_requests",
                "kv_cache_max_blocks",
                "kv_cache_free_blocks",
                "kv_cache_used_blocks",
                "kv_cache_tokens_per_block",
                "prompt_tokens_total",
                "generation_tokens_total",
                "num_paused_requests",
            )
        }

    def test_a_finished_request_is_counted_with_its_tokens(self, http: httpx.Client):
        before = gauge(http, "generation_tokens_total"), gauge(http, "time_to_first_token_seconds_count")
        http.post("/v1/completions", json=prompt(max_tokens=7))

        after = gauge(http, "generation_tokens_total"), gauge(http, "time_to_first_token_seconds_count")

        assert (after[0] - before[0], after[1] - before[1]) == (7, 1)


class TestProcess:
    def test_it_says_everywhere_that_it_is_a_stand_in(self, server: Server, http: httpx.Client):
        help_text = subprocess.run(
            [sys.executable, "-m", "headgate_cli.trtllm_serve_standin", "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

        assert "stand-in" in help_text
        assert "stand-in" in server.ready_line
        assert "standin" in http.get("/health").headers["server"]
        assert "standin" in http.get("/version").json()["version"]
        assert http.get("/server_info").json()["stand_in"] is True

    def test_it_is_healthy_and_can_generate(self, http: httpx.Client):
        assert (http.get("/health").status_code, http.get("/health").text) == (200, "")
        assert http.get("/health_generate").text == "Generation health check OK"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_open_streams_and_the_process_without_a_word(self, number: signal.Signals):
        with serving("--slots", "1") as server, httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as http:
            with endless(http) as running, endless(http) as waiting:
                running.next_event()
                server.process.send_signal(number)
                endings = [running.last_line(), waiting.last_line()]
            output, errors = server.process.communicate(timeout=PATIENCE_SECONDS)

        assert all('"code":503' in ending for ending in endings)
        assert (server.process.returncode, output, errors) == (0, "", "")

    def test_a_client_that_reads_nothing_does_not_keep_the_process_alive(self):
        body = json.dumps(prompt(stream=True, n=64, max_tokens=10_000, ignore_eos=True)).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        with (
            serving("--slots", "64", "--tokens-per-second", "2000") as server,
            httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as http,
            socket.create_connection(("127.0.0.1", httpx.URL(server.url).port)) as client,
        ):
            client.sendall(head.encode() + body)
            # By then there are 10 MB of events, more than the kernel buffers for a connection.
            eventually(lambda: any(stats["iter"] > 700 for stats in http.get("/metrics").json()), expected=True)
            server.process.terminate()
            output, errors = server.process.communicate(timeout=PATIENCE_SECONDS)

        assert (server.process.returncode, output, errors) == (0, "", "")

    def test_a_taken_port_is_reported_in_one_line(self, server: Server):
        port = httpx.URL(server.url).port
        command = [sys.executable, "-m", "headgate_cli.trtllm_serve_standin", "--model", MODEL, "--port", str(port)]

        failed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)

        assert failed.returncode != 0
        assert "address already in use" in failed.stderr
        assert len(failed.stderr.splitlines()) == 1

    @pytest.mark.parametrize("option", ["--slots=0", "--port=70000", "--tokens-per-second=nan", "--kv-blocks=x"])
    def test_an_impossible_option_is_refused_by_name(self, option: str):
        command = [sys.executable, "-m", "headgate_cli.trtllm_serve_standin", "--model", MODEL, option]

        failed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)

        assert failed.returncode == 2
        assert option.split("=")[0] in failed.stderr


# the endpoints besides chat and completions


def test_embeddings_are_the_same_for_the_same_text(sdk: openai.OpenAI) -> None:
    first, second = (sdk.embeddings.create(model=MODEL, input=["a", "b"]) for _ in range(2))

    assert first.data == second.data
    assert first.data[0].embedding != first.data[1].embedding
    assert first.usage.prompt_tokens == 2


def test_a_response_counts_its_tokens_and_says_why_it_ended(sdk: openai.OpenAI) -> None:
    response = sdk.responses.create(model=MODEL, input="Hello", max_output_tokens=3)

    assert response.usage is not None
    assert response.usage.output_tokens == 3
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings"])
def test_openais_newer_requests_are_strict_too(http: httpx.Client, path: str) -> None:
    body = {"model": MODEL, "input": "Hello", "max_tokens": 5}

    assert http.post(path, json=body).status_code == 400


def test_a_message_is_refused_in_anthropics_format_and_bears_unknown_fields(http: httpx.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "betas": []}

    answer, refused = http.post("/v1/messages", json=body), http.post("/v1/messages", json=body | {"max_tokens": 0})

    assert answer.json()["usage"]["output_tokens"] == 2
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
