"""The client over TLS, against a server with a certificate made for the test."""

import ipaddress
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from market_inference import TLS, Client, Retries, errors
from market_inference.contract.generated.inference_pb2_grpc import add_MarketInferenceServiceServicer_to_server
from tests.runtime.remote.answers import answering


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and gateway.example, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway.example")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("gateway.example")]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem, private = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return pem, private


@pytest.fixture
def target(service: Any, certificate: tuple[Path, Path]) -> Iterator[str]:
    """The same service behind mutual TLS: it asks for a certificate, too."""
    pem, private = (path.read_bytes() for path in certificate)
    server = grpc.server(ThreadPoolExecutor(2))
    add_MarketInferenceServiceServicer_to_server(service, server)
    credentials = grpc.ssl_server_credentials([(private, pem)], root_certificates=pem, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait(60)


def test_files_make_a_mutually_trusted_connection(target: str, certificate: tuple[Path, Path]) -> None:
    pem, private = certificate
    for tls in (TLS(pem, pem, private), TLS(str(pem), str(pem), str(private), server_name="gateway.example")):
        with Client(target, tls=tls) as client:
            assert client.status().version == "0.1.0"


def refusal(target: str, tls: TLS | bool | None) -> str:
    with Client(target, tls=tls, api_key="k", retries=Retries(attempts=0)) as client:
        with pytest.raises(errors.UnavailableError) as raised:
            client.status()
        return raised.value.message


def test_a_connection_that_is_not_made_tells_cause_and_remedy(target: str, certificate: tuple[Path, Path]) -> None:
    pem, private = certificate
    assert "expect TLS, tls=True (--tls, or --tls-ca FILE)?" in refusal(target, None)
    assert refusal(target, True).startswith(f"the certificate of {target} is not trusted")
    assert "TLS(certificate=..., private_key=...)?" in refusal(target, TLS(pem))
    named = refusal(target, TLS(pem, pem, private, server_name="other.example"))
    assert named.startswith(f"the certificate of {target} is not for 127.0.0.1: ")


def test_a_port_without_tls_or_without_grpc_is_told() -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert refusal(f"127.0.0.1:{port}", True).startswith(f"127.0.0.1:{port} answers without TLS: leave tls= out")
    finally:
        server.stop(None).wait(60)
    with answering(b"{}") as edge:
        address = edge.url.removeprefix("http://").partition("/")[0]
        assert refusal(address, None).startswith(f"{address} does not speak gRPC: the gateway's port is 8470")
