"""The HTTP API: which path does what. Constructs nothing but answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from headgate import __version__
from headgate_cli.trtllm_serve_standin import DISCLOSURE
from headgate_cli.trtllm_serve_standin.chat import ChatDialect
from headgate_cli.trtllm_serve_standin.completion import CompletionDialect
from headgate_cli.trtllm_serve_standin.dialect import Dialect, Identity, plan
from headgate_cli.trtllm_serve_standin.embeddings import embed
from headgate_cli.trtllm_serve_standin.generation import EngineStopped
from headgate_cli.trtllm_serve_standin.messages import MessagesDialect, error_body
from headgate_cli.trtllm_serve_standin.metrics import Metrics
from headgate_cli.trtllm_serve_standin.refusal import Refusal
from headgate_cli.trtllm_serve_standin.reply import JsonReply, StreamedReply, WholeReply
from headgate_cli.trtllm_serve_standin.request import (
    CompletionRequest,
    parse_chat,
    parse_completion,
    parse_embeddings,
    parse_messages,
    parse_responses,
)
from headgate_cli.trtllm_serve_standin.response import ModelCard, ModelList
from headgate_cli.trtllm_serve_standin.responses import ResponsesDialect
from headgate_cli.trtllm_serve_standin.scheduler import Job, Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The one model served: its name and how long its answers are when nothing ends them early."""

    name: str
    answer_tokens: int = 256


class Api:
    """One method per endpoint."""

    def __init__(self, model: Model, scheduler: Scheduler, metrics: Metrics) -> None:
        self._model = model
        self._scheduler = scheduler
        self._metrics = metrics
        self._created = int(time.time())

    def app(self) -> Starlette:
        """Return the ASGI application; its lifespan is that of the engine."""
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completion, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/responses", self.responses, methods=["POST"]),
            Route("/v1/messages", self.messages, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
            Route("/health_generate", self.health_generate),
            Route("/version", self.version),
            Route("/server_info", self.server_info),
            Route("/metrics", self.iterations),
            Route("/prometheus/metrics", self.prometheus),
        ]
        handlers = dict.fromkeys((Refusal, HTTPException, ClientDisconnect), self._refuse)
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        return self._generate(ChatDialect(parse_chat(await request.body()), _identity("chatcmpl")))

    async def completion(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        return self._generate(CompletionDialect(parse_completion(await request.body()), _identity("cmpl")))

    async def embeddings(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        embeddings = parse_embeddings(await request.body())
        self._check_model(embeddings.model)
        return JsonReply(embed(embeddings))

    async def responses(self, request: Request) -> Response:
        """`POST /v1/responses`."""
        chat = parse_responses(await request.body()).as_chat()
        return self._generate(ResponsesDialect(chat, _identity("resp")))

    async def messages(self, request: Request) -> Response:
        """`POST /v1/messages`, Anthropic's API."""
        try:
            chat = parse_messages(await request.body()).as_chat()
            return self._generate(MessagesDialect(chat, _identity("msg")))
        except Refusal as refusal:
            self._metrics.observe_refused(refusal.status)
            return JsonReply(error_body(refusal), refusal.status)

    async def models(self, _: Request) -> Response:
        """`GET /v1/models`."""
        return JsonReply(ModelList(data=[ModelCard(id=self._model.name, created=self._created)]))

    async def health(self, _: Request) -> Response:
        """`GET /health`: an empty 200, or 503 once the engine is gone."""
        if self._scheduler.is_running:
            return Response()
        return Response("LLM is unavailable.", HTTPStatus.SERVICE_UNAVAILABLE, media_type="text/plain")

    async def health_generate(self, _: Request) -> Response:
        """`GET /health_generate`: one token through the engine, behind whoever is waiting."""
        request = CompletionRequest(model=self._model.name, prompt="hi", max_tokens=1)
        dialect = CompletionDialect(request, _identity("cmpl"))
        try:
            await self._scheduler.run_to_end(self._plan(dialect))
        except EngineStopped:
            return Response("Generation health check failed", HTTPStatus.INTERNAL_SERVER_ERROR)
        return Response("Generation health check OK", media_type="text/plain")

    async def version(self, _: Request) -> Response:
        """`GET /version`."""
        return JsonReply({"version": f"{__version__}+standin"})

    async def server_info(self, _: Request) -> Response:
        """`GET /server_info`: says that this is a stand-in, and of what size."""
        limits = asdict(self._scheduler.engine.limits)
        return JsonReply({"stand_in": True, "description": DISCLOSURE, "model": self._model.name, "limits": limits})

    async def iterations(self, _: Request) -> Response:
        """`GET /metrics`: the iterations since the last reading, as a JSON array. Reading drains."""
        return JsonReply(self._scheduler.engine.drain_stats())

    async def prometheus(self, _: Request) -> Response:
        """`GET /prometheus/metrics`."""
        return Response(self._metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    def _generate(self, dialect: Dialect) -> Response:
        self._check_model(dialect.request.model)
        reply = StreamedReply if dialect.request.stream else WholeReply
        return reply(dialect, self._plan(dialect), self._scheduler)

    def _check_model(self, name: str) -> None:
        if name != self._model.name:
            # The real one answers whatever name it is asked for; a proxy's routing mistakes would go unseen.
            raise Refusal(HTTPStatus.NOT_FOUND, f"The model `{name}` does not exist.")

    def _plan(self, dialect: Dialect) -> list[Job]:
        return plan(dialect, self._scheduler.engine.limits, self._model.answer_tokens)

    async def _refuse(self, _: Request, error: Exception) -> Response:
        match error:
            case Refusal():
                reply = JsonReply(error.body, error.status)
            case HTTPException():  # no such path, or not by this method
                reply = JsonReply({"detail": error.detail}, error.status_code, error.headers)
            case ClientDisconnect():  # it left while it was still sending: nobody reads this
                return Response(status_code=HTTPStatus.BAD_REQUEST)
            case _:
                raise error
        self._metrics.observe_refused(reply.status_code)
        return reply

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        self._scheduler.start()
        yield
        self._scheduler.stop()


def _identity(prefix: str) -> Identity:
    return Identity(f"{prefix}-{uuid.uuid4().hex}", int(time.time()))
