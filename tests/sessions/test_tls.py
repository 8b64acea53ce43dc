"""The store over TLS, and as a user with the rights that `proxy-plugin doctor` recommends and no others."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy_plugin.doctor.finding import Finding
from proxy_plugin.doctor.store import check_store
from proxy_plugin.settings import Settings, Store
from tests.binaries import require_binary
from tests.sessions import servers
from tests.sessions.essentials import ESSENTIALS, Workers, run

PASSWORD = "secret"
USER = "plugin"


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Files of a CA of its own, and of a certificate of 127.0.0.1 and its key."""

    def certificate(
        name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, is_ca: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(signer, hashes.SHA256())

    signer, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    files = folder / "ca.crt", folder / "server.crt", folder / "server.key"
    pem = serialization.Encoding.PEM
    files[0].write_bytes(certificate("test CA", signer, signer, True).public_bytes(pem))
    files[1].write_bytes(certificate("server", key, signer, False).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files[2].write_bytes(private)
    return files


def recommended(url: str) -> str:
    """The rights that doctor says to give, where a user has too few."""
    found = findings(url)["store rights"]
    assert found.level == "error"
    _, _, rights = found.cure.partition("give the store's user ")
    assert rights
    return rights


def findings(url: str) -> dict[str, Finding]:
    return {one.check: one for one in asyncio.run(check_store(Settings(store=Store(url=url)), {}))}


class Deployment:
    """`admin`: the address of a user who may do anything; `user`: of one with the recommended rights."""

    def __init__(self, admin: str) -> None:
        self.admin = admin
        self.user = admin.replace(f":{PASSWORD}@", f"{USER}:{PASSWORD}@")
        self.give("~pp:1:* +@connection +ping")
        self.rights = recommended(self.user)
        self.give(self.rights)

    def give(self, rights: str) -> None:
        async def give() -> None:
            workers = Workers(self.admin)
            said = ["ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rights.split()]

            async def everywhere(client: Any) -> None:
                nodes = {"target_nodes": client.get_nodes()} if "+cluster" in self.admin else {}
                await client.execute_command(*said, **nodes)

            try:
                await workers.connection().call(everywhere)
            finally:
                await workers.close()

        asyncio.run(give())


@pytest.fixture(scope="session", params=["single", "cluster", "TLS", "TLS cluster"])
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    tls = None
    if "TLS" in request.param:
        tls = servers.Tls(Path(require_binary("redis-server")), *certificates(folder))
    started = servers.cluster if "cluster" in request.param else servers.single
    with started(folder, PASSWORD, tls) as url:
        yield Deployment(url)


@pytest.mark.parametrize("essential", ESSENTIALS)
def test_the_recommended_rights_are_enough(deployment: Deployment, essential: str) -> None:
    run(deployment.user, ESSENTIALS[essential], empty_by=deployment.admin)


def test_doctor_is_content_with_what_it_recommended(deployment: Deployment) -> None:
    found = findings(deployment.user)
    assert {check for check, one in found.items() if one.level == "error"} == set()
    assert found["store version"].level == found["clock"].level == "ok"


def test_the_recommended_rights_end_at_the_plugins_own_keys(deployment: Deployment) -> None:
    async def scenario() -> None:
        workers = Workers(deployment.user)
        connection = workers.connection()
        try:
            for command in (("set", "other:key", "1"), ("flushall",), ("keys", "*"), ("config_get", "*")):
                with pytest.raises(Exception, match=r"(?i)no permissions|NOPERM"):
                    await connection.command(*command)
        finally:
            await workers.close()

    asyncio.run(scenario())
