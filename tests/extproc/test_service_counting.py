"""The whole service with a real tokenizer behind it: a prompt near a size that decides goes where its count says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace

import grpc
import grpc.aio
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from extproc.desk import AdmissionDesk
from extproc.events import Decision
from extproc.inspection.chat import MESSAGE_TOKENS
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from extproc.tokenizer import Tokenizers
from headgate.pb import ext_proc_pb2 as pb
from headgate.policy.model import Policy
from headgate.store.memory import MemoryStore
from headgate.transport import Server

# grpcio's poller outlives a test, so its event loop has to.
pytestmark = pytest.mark.asyncio(loop_scope="module")
METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
HEADERS = {":method": "POST", ":path": "/v1/chat/completions", "authorization": "Bearer globex-key"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One token a word."""
    tokenizer = Tokenizer(models.WordLevel({"word": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


def asked(words: int) -> list[bytes]:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "word " * words}], "max_tokens": 10}
    pairs = [pb.HeaderValue(key=name, raw_value=value.encode()) for name, value in HEADERS.items()]
    return [
        pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=pb.HeaderMap(headers=pairs))).SerializeToString(),
        pb.ProcessingRequest(
            request_body=pb.HttpBody(body=json.dumps(body).encode(), end_of_stream=True)
        ).SerializeToString(),
    ]


@pytest.mark.parametrize(("words", "cluster"), [(950, "standard"), (1050, "best")])
async def test_a_prompt_is_routed_by_its_count(
    policy: Policy, file: str, words: int, cluster: str, new_server: Callable[..., Server]
) -> None:
    model = policy.models["assistant"]
    long = replace(model.routes[0], when=policy.rules.compile("prompt_tokens > 1000"), cluster="best")
    able = replace(model, routes=(long, *model.routes[1:]), tokenizer=file)
    counting = replace(policy, models={**policy.models, "assistant": able})
    store, decisions, tokenizers = MemoryStore(time.monotonic), list[Decision](), Tokenizers()
    desk = AdmissionDesk(store)
    service = ExtProcService(
        policy=lambda: counting,
        desk=desk,
        signals=ClusterSignals(lambda: counting, store, desk.queue),
        report=lambda decision, _: decisions.append(decision),
        clock=time.perf_counter,
        count=tokenizers.count,
    )
    server = new_server("127.0.0.1:0", [service.service()], max_message_bytes=1 << 20)
    async with asyncio.timeout(30), grpc.aio.insecure_channel(await server.start()) as channel:
        call = channel.stream_stream(METHOD)()
        for message in asked(words):
            await call.write(message)
            await call.read()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    await server.drain(1.0)
    await tokenizers.stop()

    [decision] = decisions
    assert (decision.cluster, decision.prompt_tokens) == (cluster, words + MESSAGE_TOKENS)
