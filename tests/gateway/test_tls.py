"""TLS on both hops, with certificates on both sides, changed while the processes run."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import grpc
import pytest

from benchmarks.fleet import LIGHT, Fleet
from benchmarks.pressure import predictions
from gateway.transport import grpcio
from market_inference.contract.generated import inference_pb2_grpc
from runtime.listen import split
from tests.authority import Authority
from tests.eventually import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("MARKET_GATEWAY_TRANSPORT") == "native", reason="native speaks no TLS"),
]


def test_mutual_tls_on_both_hops_survives_new_certificates(tmp_path):
    ours, foreign = Authority("ours"), Authority("foreign")
    (tmp_path / "ca.crt").write_bytes(ours.certificate)
    sides = {name: ours.issue(tmp_path, name) for name in ("gateway", "inference", "client")}
    inference = {
        "MARKET_INFERENCE_TLS_CERTIFICATE": sides["inference"]["certificate"],
        "MARKET_INFERENCE_TLS_KEY": sides["inference"]["key"],
        "MARKET_INFERENCE_TLS_CLIENT_CA": tmp_path / "ca.crt",
    }
    gateway = {
        "MARKET_GATEWAY_TLS_CERTIFICATE": sides["gateway"]["certificate"],
        "MARKET_GATEWAY_TLS_KEY": sides["gateway"]["key"],
        "MARKET_GATEWAY_TLS_CLIENT_CA": tmp_path / "ca.crt",
        "MARKET_GATEWAY_REPLICA_TLS_CA": tmp_path / "ca.crt",
        "MARKET_GATEWAY_REPLICA_TLS_CERTIFICATE": sides["gateway"]["certificate"],
        "MARKET_GATEWAY_REPLICA_TLS_KEY": sides["gateway"]["key"],
    }
    texts = [{name: str(value) for name, value in settings.items()} for settings in (inference, gateway)]
    with Fleet(tmp_path, replicas=1, inference={**LIGHT, **texts[0]}, gateway=texts[1]) as fleet:

        def ask(authority: Authority, side: dict[str, Path] | None) -> grpc.StatusCode:
            pair = (side["key"].read_bytes(), side["certificate"].read_bytes()) if side else (None, None)
            credentials = grpc.ssl_channel_credentials(authority.certificate, *pair)
            return _ask(fleet, grpc.secure_channel(fleet.target, credentials, _alone))

        _alone = [("grpc.use_local_subchannel_pool", 1)]
        assert ask(ours, sides["client"]) is grpc.StatusCode.OK
        assert ask(ours, None) is grpc.StatusCode.UNAVAILABLE
        (tmp_path / "foreign").mkdir()
        assert ask(ours, foreign.issue(tmp_path / "foreign", "client")) is grpc.StatusCode.UNAVAILABLE
        assert _ask(fleet, grpc.insecure_channel(fleet.target, _alone)) is grpc.StatusCode.UNAVAILABLE

        new = Authority("new")
        (tmp_path / "ca.fresh").write_bytes(new.certificate)
        for name in ("gateway", "inference", "client"):
            new.issue(tmp_path, name)
        (tmp_path / "ca.fresh").replace(tmp_path / "ca.crt")
        assert ask(new, sides["client"]) is grpc.StatusCode.OK
        assert ask(ours, None) is grpc.StatusCode.UNAVAILABLE
        eventually(lambda: "certificates read again" in fleet.log())


def _ask(fleet: Fleet, channel: grpc.Channel) -> grpc.StatusCode:
    with channel:
        stub = inference_pb2_grpc.MarketInferenceServiceStub(channel)
        try:
            stub.Predict(predictions()[0], metadata=fleet.credentials, timeout=60)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def test_a_handshake_that_does_not_go_on_is_ended(start, tmp_path, monkeypatch):
    monkeypatch.setattr(grpcio, "HANDSHAKE_SECONDS", 0.3)
    files = Authority("ours").issue(tmp_path, "gateway")
    async with start(0, tls_certificate=files["certificate"], tls_key=files["key"]) as gateway:
        host, port = split(gateway.server.address)
        for beginning in (b"", b"\x16\x03\x01\x02\x00\x01", b"\x00" * 100):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(beginning)
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionError):
                    while await reader.read(4096):
                        pass
            writer.close()


def test_handshakes_that_fail_write_nothing_past_the_log(tmp_path):
    files = Authority("ours").issue(tmp_path, "gateway")
    settings = {"MARKET_GATEWAY_TLS_CERTIFICATE": files["certificate"], "MARKET_GATEWAY_TLS_KEY": files["key"]}
    with Fleet(tmp_path, replicas=0, gateway={name: str(path) for name, path in settings.items()}) as fleet:
        for _ in range(20):
            with socket.create_connection(split(fleet.target)) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(os.urandom(500))
                while connection.recv(4096):
                    pass
        assert [line for line in fleet.log().splitlines() if not line.startswith("{")] == []
