"""What an operator reads of a store that is away: what is wrong, and what to do. A table, by kind of error; and the
kinds of errors, whatever release of the server they come from."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from types import MappingProxyType

from redis import exceptions as errors
from redis.asyncio.sentinel import MasterNotFoundError

ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "connection": "cannot be reached: check that it runs, and the host and port in its address",
        "timeout": "does not answer in time: check its load and the network between",
        "auth": "refuses the credentials: check the user and the password in its address",
        "rights": "denies its user some rights: run `proxy-plugin doctor`, which says what they must be",
        "tls": "fails the TLS handshake: check its certificate and ssl_ca_certs in its address",
        "clients": "takes no more connections: raise its maxclients",
        "memory": "is full: raise its maxmemory, or lower store.session_ttl_s",
        "disk": "cannot write to its disk: make room there",
        "read_only": "is a replica: name the primary in its address, or use redis+sentinel://",
        "primary": "has no primary that the sentinels know of: check them and the service's name in its address",
        "cluster": "is a cluster that does not serve all slots: see CLUSTER INFO",
        "response": "answers with errors: see its own log",
        "internal": "meets an error of the plugin: please report it",
    }
)
"""Kind of error -> the end of a sentence that begins with "the session store"."""

_CLASSES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((errors.TimeoutError, TimeoutError), "timeout"),
    ((errors.AuthenticationError, errors.AuthorizationError), "auth"),
    ((errors.NoPermissionError,), "rights"),
    ((errors.OutOfMemoryError,), "memory"),
    ((errors.ReadOnlyError,), "read_only"),
    ((MasterNotFoundError,), "primary"),
    ((errors.ClusterError, errors.SlotNotCoveredError, errors.TryAgainError, errors.AskError), "cluster"),
    ((errors.ConnectionError, errors.RedisClusterException, OSError), "connection"),
    ((errors.RedisError,), "response"),
)

_IN_SCRIPT = re.compile(r"Error running script \(call to \w+\): (?:@user_script: ?\d+: )+-?")
_UNAUTHENTICATED = "Protocol error: unauthenticated "
_DENIED_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't ")
_BY_CODE: Mapping[str, type[errors.ResponseError]] = MappingProxyType(
    {"OOM": errors.OutOfMemoryError, "READONLY": errors.ReadOnlyError}
)


def as_of_command(error: errors.ResponseError) -> errors.RedisError:
    """The error of a command inside a script, as the command alone would have raised it; any other as it came.
    Redis 6.2 puts the place in the script in front of the code by which redis-py chooses a class, and for a right
    that a script's user lacks no release gives a code. Who has not given a password may send ten short arguments
    at most; beyond, every release says so without a code too, instead of asking for the password."""
    if type(error) is not errors.ResponseError:
        return error
    if str(error).startswith(_UNAUTHENTICATED):
        return errors.AuthenticationError(str(error))
    text = _IN_SCRIPT.sub("", str(error), count=1)
    if text.startswith(_DENIED_IN_SCRIPT):
        return errors.NoPermissionError(text)
    code, _, reason = text.partition(" ")
    if code in _BY_CODE:
        return _BY_CODE[code](reason)
    return error if text == str(error) else errors.ResponseError(text)


def kind_of(error: BaseException) -> str:
    """A key of ADVICE; also the bounded word of an error for metrics."""
    if isinstance(error.__context__, ssl.SSLError):  # redis-py raises its own in place of it
        return "tls"
    cause = error.__cause__ or error.__context__
    if isinstance(error, errors.RedisClusterException) and cause is not None:
        return kind_of(cause)  # no node of the cluster could be asked: why says its error
    text = str(error)
    if text.startswith("max number of clients"):
        return "clients"
    if text.startswith("MISCONF"):
        return "disk"
    return next((kind for classes, kind in _CLASSES if isinstance(error, classes)), "internal")
