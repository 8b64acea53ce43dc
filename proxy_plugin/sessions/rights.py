"""What the store's user needs to be allowed, as Redis writes it in an ACL rule: the keys below the plugin's prefix,
and the commands that it uses, each by its name. No command that looks at other keys, changes the server or reads
what other clients say is among them."""

from __future__ import annotations

from proxy_plugin.sessions import keys

_COMMANDS = (
    "auth", "del", "eval", "evalsha", "exists", "get", "getex", "hdel", "hexists", "hget", "hgetall", "hincrby", "hlen",
    "hmget", "hscan", "hset", "hsetnx", "hstrlen", "hvals", "incr", "lindex", "llen", "lpos", "lrange", "lset", "ltrim",
    "pexpire", "ping", "rename", "rpush", "sadd", "scard", "select", "set", "smembers", "srem", "sscan", "time", "type",
    "unlink", "zadd", "zcard", "zcount", "zrange", "zrangebylex", "zrangebyscore", "zrem", "zremrangebyrank",
    "zremrangebyscore", "zrevrange", "zrevrangebyscore", "zscore",
)  # fmt: skip
_OF_A_CLUSTER = ("cluster|slots", "command", "asking")
_FOR_DOCTOR = ("info",)


def rights(kind: str = "single") -> str:
    """The rule behind `user <name> on ><password>`; `kind` as in connection.Target. `info` is for `doctor` alone."""
    names = (*_COMMANDS, *(_OF_A_CLUSTER if kind == "cluster" else ()), *_FOR_DOCTOR)
    return f"~{keys.PREFIX}* resetchannels -@all " + " ".join(f"+{name}" for name in names)
