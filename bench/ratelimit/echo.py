"""The yardstick: grpc-python's own asyncio server, which reads the same request and writes the same answer."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from bench.ratelimit.messages import METHOD, response
from headgate.pb import ratelimit_pb2 as pb


async def serve() -> None:
    """Serve until killed; the port is the first line of output."""
    answers = {count: response(count) for count in (1, 5)}

    async def answer(request: pb.RateLimitRequest, context: grpc.aio.ServicerContext) -> pb.RateLimitResponse:
        del context
        return answers[len(request.descriptors)]

    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=pb.RateLimitRequest.FromString,
        response_serializer=pb.RateLimitResponse.SerializeToString,
    )
    _, service, method = METHOD.split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
