"""A replica without models: every request is answered at once with the same bytes.

With an echo as replica, a benchmark measures only the gateway. `python -m benchmarks.echo` prints the ready line of
runtime/listen.py and serves until terminated.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from market_inference.contract.generated import exchange_pb2, exchange_pb2_grpc, inference_pb2
from runtime import listen
from runtime import loop as event_loop

ANSWER = inference_pb2.ComputeIndicatorsResponse(
    panels=[
        inference_pb2.PanelIndicators(
            indicators=inference_pb2.IndicatorSet(
                indicators=[
                    inference_pb2.Indicator(
                        name="RSI", outputs=[inference_pb2.IndicatorOutput(name="real", values=[50.0])]
                    )
                ]
            )
        )
    ],
    model="echo",
).SerializeToString()


class Echo(exchange_pb2_grpc.ExchangeServiceServicer):
    """Answers frame by frame."""

    async def Exchange(  # noqa: N802 -- the contract's name
        self, request_iterator: AsyncIterator[exchange_pb2.ExchangeRequest], context: Any
    ) -> AsyncIterator[exchange_pb2.ExchangeResponse]:
        yield exchange_pb2.ExchangeResponse(load=exchange_pb2.Load())
        async for frame in request_iterator:
            replies = [exchange_pb2.Reply(id=envelope.id, response=ANSWER) for envelope in frame.envelopes]
            yield exchange_pb2.ExchangeResponse(replies=replies)


async def serve() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    exchange_pb2_grpc.add_ExchangeServiceServicer_to_server(Echo(), server)
    health = health_aio.HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port(os.environ["MARKET_INFERENCE_LISTEN"])
    await server.start()
    listen.announce(listen=f"127.0.0.1:{port}", metrics="")
    await server.wait_for_termination()


if __name__ == "__main__":
    event_loop.run(serve())
