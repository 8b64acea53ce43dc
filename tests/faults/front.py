"""A TLS front before a store, on an address that stays: closed, slow, or with a certificate nobody trusts.

A proxy that knows the store by this address meets one fault after the other without being started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
_PIECE_BYTES = 65_536


class Certificate:
    """A certificate for 127.0.0.1 that vouches for itself. `file` holds it with its key, `public` without."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file, self.public = folder / f"{name}.pem", folder / f"{name}.crt"
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.public.write_bytes(made)
        self.file.write_bytes(made + secret)

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file)
        return context


class Front:
    """Closed until it is opened. `delay`: seconds by which every piece of an answer is late."""

    def __init__(self, port: int, backend: int) -> None:
        self.port, self.backend, self.delay = port, backend, 0.0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def open(self, certificate: Certificate) -> None:
        self._run(self._open(certificate.context()))

    def close(self) -> None:
        """From now on connections are refused, and those there are break."""
        self._run(self._close())

    def end(self) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _open(self, context: ssl.SSLContext) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port, ssl=context)

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, onward = await asyncio.open_connection(LOOPBACK, self.backend)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward}
        try:
            await asyncio.gather(self._pump(reader, onward, late=False), self._pump(there, writer, late=True))
        finally:
            self._writers -= {writer, onward}

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, late: bool) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while piece := await source.read(_PIECE_BYTES):
                if late and self.delay:
                    await asyncio.sleep(self.delay)
                sink.write(piece)
                await sink.drain()
        sink.transport.abort()
