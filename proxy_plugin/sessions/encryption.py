"""Encryption of what is stored: AES-256-GCM, with keys from the environment alone.

$PROXY_PLUGIN_ENCRYPTION_KEYS holds one key or several, separated by commas, each 32 random bytes in base64
(`openssl rand -base64 32`). The first one encrypts, all of them decrypt. So a new key is put in front, and the old
one leaves once nothing is kept any more that it encrypted. Nothing is rewritten in place.

    0..3     id of the key: the first bytes of its SHA-256
    4..15    nonce, random
    16..     ciphertext and tag

Whatever is encrypted is bound to the place it lies at: bytes that are moved to another one do not decrypt there,
so that whoever can write to the store, but has no key, cannot have one tenant's text read out to another.
"""

from __future__ import annotations

import logging
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from os import urandom
from typing import TYPE_CHECKING

from proxy_plugin.events import Emit, ValueLocked
from proxy_plugin.settings import ENCRYPTION_KEYS, SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

EXTRA = "pip install 'litellm-session-plugin[encryption]'"
"""What brings the package `cryptography`."""
KEY_BYTES = 32
ID_BYTES = 4
_NONCE_BYTES = 12  # the length GCM is made for; random ones are good for 2**32 values of a key (NIST SP 800-38D)
_log = logging.getLogger("proxy_plugin")


class Locked(ValueError):
    """Encrypted by a key that is not here. `key_id`: hexadecimal."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"encrypted by the key {key_id}, which is not here")
        self.key_id = key_id


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of this process. `ids`: hexadecimal, in the order of the variable. Nothing of a key is ever shown but
    its id."""

    ids: tuple[str, ...]
    _ciphers: Mapping[str, AESGCM] = field(repr=False)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Keyring | None:
        """None where the variable is not set. Raises SettingsError, which names the variable and the position of
        the key: a variable that is there and empty is a mistake too, since it would keep texts as they are."""
        text = environ.get(ENCRYPTION_KEYS)
        if text is None:
            return None
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise SettingsError(f"{ENCRYPTION_KEYS}: needs the package cryptography: {EXTRA}") from None
        keys = [_key(one, position) for position, one in enumerate(text.split(","), 1)]
        ciphers = {_id(key): AESGCM(key) for key in keys}
        return cls(tuple(ciphers), ciphers)

    def seal(self, plain: bytes, bound: bytes) -> bytes:
        """`bound`: what it is bound to; the same bytes open it."""
        first, nonce = self.ids[0], urandom(_NONCE_BYTES)
        return bytes.fromhex(first) + nonce + self._ciphers[first].encrypt(nonce, plain, bound)

    def open(self, sealed: bytes, bound: bytes) -> bytes:
        """Raises Locked, and ValueError for what was not sealed so by its key."""
        from cryptography.exceptions import InvalidTag

        key_id = sealed[:ID_BYTES].hex()
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Locked(key_id)
        begin = ID_BYTES + _NONCE_BYTES
        try:
            return cipher.decrypt(sealed[ID_BYTES:begin], sealed[begin:], bound)
        except InvalidTag:
            raise ValueError("damaged: does not decrypt") from None


class LockedValues:
    """Counts what cannot be decrypted here, and says what to do once for each key."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._said: set[str] = set()

    def __call__(self, key_id: str) -> None:
        self._emit(ValueLocked())
        if key_id not in self._said and len(self._said) < 100:
            self._said.add(key_id)
            _log.warning(
                "what was stored under the encryption key %s cannot be read: put that key behind the first one in %s; "
                "until then it counts as missing, and nothing is overwritten",
                key_id,
                ENCRYPTION_KEYS,
            )


def _key(text: str, position: int) -> bytes:
    """Standard or URL-safe base64."""
    fault = f"{ENCRYPTION_KEYS}: key {position} is no base64 of {KEY_BYTES} bytes (openssl rand -base64 {KEY_BYTES})"
    try:
        key = b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        raise SettingsError(fault) from None
    if len(key) != KEY_BYTES:
        raise SettingsError(fault)
    return key


def _id(key: bytes) -> str:
    return sha256(key).hexdigest()[: 2 * ID_BYTES]
