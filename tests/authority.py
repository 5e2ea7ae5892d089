"""A certificate authority for 127.0.0.1."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_HOUR = datetime.timedelta(hours=1)
PEM, PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()


class Authority:
    """Signs certificates for 127.0.0.1 into a folder."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.certificate = self._sign(self._key, self._name, ca=True).public_bytes(PEM)

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        *,
        ca: bool,
        valid: datetime.timedelta = _HOUR,
        usage: Sequence[x509.ObjectIdentifier] = (),
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - _HOUR).not_valid_after(now + valid)
        builder = builder.add_extension(local, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(
        self,
        folder: Path,
        name: str,
        valid: datetime.timedelta = _HOUR,
        usage: Sequence[x509.ObjectIdentifier] = (),
    ) -> dict[str, Path]:
        """Write name.crt and name.key, in place of those that were there."""
        key = ec.generate_private_key(ec.SECP256R1())
        files = {"certificate": folder / f"{name}.crt", "key": folder / f"{name}.key"}
        pem = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, PLAIN)
        for kind, content in (
            ("key", pem),
            ("certificate", self._sign(key, _name(name), ca=False, valid=valid, usage=usage).public_bytes(PEM)),
        ):
            fresh = files[kind].with_suffix(".fresh")
            fresh.write_bytes(content)
            fresh.replace(files[kind])
        return files


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
