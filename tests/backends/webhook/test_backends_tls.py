"""Servers whose certificate is not trusted, is trusted, or that speak no TLS at all."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tracer.backends.base import Refused, Unreachable
from tracer.backends.posting import Address

pytest.importorskip("cryptography", reason="needs cryptography, to make a certificate")


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of this machine that only its own holder has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, none))
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def server(context: ssl.SSLContext | None) -> Iterator[int]:
    """Answer connections with 200, in TLS or not; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                asked = b""
                try:
                    spoken = context.wrap_socket(connection, server_side=True) if context else connection
                    with spoken:
                        while b"BODY" not in asked and (piece := spoken.recv(65536)):
                            asked += piece if context else b"BODY"
                        spoken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                except OSError:  # the client did not trust us
                    connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*certificate(tmp_path))
    return made


def test_a_certificate_that_nobody_signed_is_refused(context: ssl.SSLContext) -> None:
    with server(context) as port, pytest.raises(Refused, match="is not trusted: self-signed certificate"):
        Address(f"https://127.0.0.1:{port}", {}, what="url").send(b"BODY", {})


def test_a_certificate_that_this_machine_knows_is_trusted(
    context: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with server(context) as port:
        assert Address(f"https://127.0.0.1:{port}", {}, what="url").send(b"BODY", {}).status == 200


def test_a_server_without_tls_is_unreachable() -> None:
    with server(None) as port, pytest.raises(Unreachable, match="cannot be reached"):
        Address(f"https://127.0.0.1:{port}", {}, what="url").send(b"BODY", {})
