"""Edges of the test's process, and gateways that answer as the test says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc

from edge.config import Config
from edge.server import Server
from market_inference.contract.generated.inference_pb2_grpc import (
    MarketInferenceServiceServicer,
    add_MarketInferenceServiceServicer_to_server,
)

Start = Callable[..., Awaitable[Server]]


@asynccontextmanager
async def gateway(servicer: MarketInferenceServiceServicer) -> AsyncIterator[str]:
    """The address of a gRPC server with the servicer's answers, of any size."""
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    add_MarketInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def edges(**usual: object) -> AsyncIterator[Start]:
    """Starts edges with the usual settings and those of the call; all edges end with the block."""
    servers = []

    async def start(**settings: object) -> Server:
        addresses = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"}
        servers.append(server := Server(Config(**addresses | usual | settings)))
        await server.start()
        return server

    try:
        yield start
    finally:
        for server in servers:
            await server.stop()
