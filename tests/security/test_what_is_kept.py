"""What is kept, said and shown, and what is left after a deletion: no secrets anywhere, texts in the store alone, and
nothing of what was erased. On one proxy whose store allows it the least rights, and which logs all it has to say."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import redis
import zstandard

from proxy_plugin.sessions import keys, rights
from proxy_plugin.sessions.identity import address, tenant_of
from tests.agent import Agent
from tests.fake_provider import FakeProvider, Reply
from tests.proxy import Proxy, eventually, free_port
from tests.security.walls import HTTP, call
from tests.sessions.servers import running

PACKAGE = Path(rights.__file__).parent
REDIS_PASSWORD = "Redis-pa55word-SECRET"
PROVIDER_KEY = "sk-provider-key-SECRET"
ALICE, BOB, WRONG = "sk-alice", "sk-bob", "sk-wrong-key-SECRET"
COOKIE, OTHER_KEY = "session=cookie-SECRET", "sk-other-header-SECRET"
TEXT = "a-text-of-the-conversation-5c1e"
AWAY, BACK = "what is not stored waits", "the session store answers again"
NO_COMMANDS = frozenset({"aclose", "execute", "execute_command", "initialize", "pipeline"})
"""Other methods of redis-py's clients and pipelines."""
ZSTD_FRAME = b"\x28\xb5\x2f\xfd"

SPY = '''
"""Loaded beside the plugin: hears all that its logger says, and breaks it where a request asks for that."""

import logging
import os

from litellm.integrations.custom_logger import CustomLogger

from proxy_plugin.gateway.pipeline import Pipeline

log = logging.getLogger("proxy_plugin")
log.setLevel(logging.DEBUG)
log.addHandler(logging.FileHandler(os.environ["SPY_LOG"], encoding="utf-8"))
before, after = Pipeline.before, Pipeline.after


def secrets(incoming):
    return ValueError(f"{incoming} {dict(os.environ)}")


async def broken_before(self, incoming):
    if incoming.headers.get("x-break") == "before":
        raise secrets(incoming)
    turn = await before(self, incoming)
    if turn is not None and incoming.headers.get("x-break") == "after":
        turn.tag = "break"
    return turn


async def broken_after(self, turn, reply, **more):
    await after(self, turn, reply, **more)
    if turn.tag == "break":
        raise secrets(reply)


Pipeline.before, Pipeline.after = broken_before, broken_after
handler = CustomLogger()
'''


@dataclass
class Stage:
    proxy: Proxy
    admin: redis.Redis  # of the store, with all rights
    server: subprocess.Popen[bytes]
    log: Path

    @property
    def secrets(self) -> list[str]:
        known = [REDIS_PASSWORD, PROVIDER_KEY, WRONG, COOKIE, OTHER_KEY, self.proxy.key]
        return [*known, f"Bearer {ALICE}", f"Bearer {BOB}", '"sk-alice"', "sk-alice\\", "'sk-alice'"]

    def said(self) -> str:
        """All lines of the plugin's own logger."""
        return self.log.read_text() if self.log.exists() else ""

    def stored(self) -> Iterator[tuple[str, bytes]]:
        """Each key of the store, with all that it holds, decompressed."""
        for key in self.admin.scan_iter(count=1_000):
            yield key.decode(), b"\n".join([key, *map(_opened, self._values(key))])

    def _values(self, key: bytes) -> list[bytes]:
        kind = self.admin.type(key)
        if kind == b"hash":
            return [part for pair in self.admin.hgetall(key).items() for part in pair]
        if kind == b"zset":
            return list(self.admin.zrange(key, 0, -1))
        if kind == b"set":
            return list(self.admin.smembers(key))
        if kind == b"list":
            return list(self.admin.lrange(key, 0, -1))
        return [self.admin.get(key) or b""]

    def tenant(self, key: str) -> str:
        found = call(self.proxy, "GET", "/sessions", key=key).json()["sessions"]
        return str(found[0]["tenant"])


def _opened(value: bytes) -> bytes:
    """With what a compressed part of it says."""
    begin = value.find(ZSTD_FRAME)
    return value if begin < 0 else value + zstandard.ZstdDecompressor().decompress(value[begin:])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[Stage]:
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    users = f"user default off\nuser plugin on >{REDIS_PASSWORD} {rights.rights()}\nuser looker on >look ~* &* +@all"
    found = shutil.which("redis-server")
    (folder / "spy.py").write_text(SPY)
    models = {
        name: {**target, "api_key": PROVIDER_KEY}
        for name, target in {
            "gpt": {"model": "openai/gpt-4o", "api_base": provider.base_url},
            "claude": {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": provider.url},
        }.items()
    }
    with running(folder, f'port {port}\nsave ""\n{users}', binary=Path(found) if found else None) as (server,):
        admin = redis.Redis(host="127.0.0.1", port=port, username="looker", password="look")
        eventually(lambda: _answers(admin))
        environ = {"SPY_LOG": str(folder / "spy.log"), "LITELLM_LOG": "DEBUG", "PROXY_PLUGIN_RECOVERY__LEASE_S": "3"}
        url = f"redis://plugin:{REDIS_PASSWORD}@127.0.0.1:{port}/0"
        more: Any = {"litellm_settings": {"callbacks": ["spy.handler"]}, "router_settings": {"disable_cooldowns": True}}
        with Proxy(folder, models, redis_url=url, environ=environ, custom_auth=True, **more) as proxy:
            yield Stage(proxy, admin, server, folder / "spy.log")


def _answers(admin: redis.Redis) -> bool:
    try:
        return bool(admin.ping())
    except redis.ConnectionError:
        return False


def client(stage: Stage, key: str = ALICE, **headers: str) -> openai.OpenAI:
    sent = {"cookie": COOKIE, "x-custom": "x", "api-key": OTHER_KEY, **headers}
    return openai.OpenAI(base_url=stage.proxy.base_url, api_key=key, max_retries=0, default_headers=sent)


def settled(stage: Stage, session: str, count: int, key: str = ALICE) -> None:
    eventually(lambda: call(stage.proxy, "GET", f"/sessions/{session}", key=key).json().get("message_count") == count)


def traffic(stage: Stage, provider: FakeProvider) -> list[str]:
    """Everything that may happen; returns what clients got to see."""
    seen: list[str] = []
    proxy, alice = stage.proxy, client(stage)
    agent = Agent(alice, extra_headers={"x-litellm-session-id": "kept"}, stream=True)
    for task in (f"hello {TEXT}", 'call find {"q": "x"}', "thanks"):
        agent.run(task)
    agent.stream = False
    agent.run("and again")
    settled(stage, "kept", len(agent.messages))
    Agent(client(stage, BOB)).run("no session")
    spoken = anthropic.Anthropic(base_url=proxy.root, api_key=ALICE, max_retries=0)
    ask: Any = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": f"hello {TEXT}"}]}
    seen.append(spoken.messages.create(**ask, extra_headers={"x-session-id": "kept-m"}).model_dump_json())
    seen.append(
        alice.responses.create(model="gpt", input="hello", extra_headers={"x-session-id": "kept-r"}).model_dump_json()
    )

    body = {"model": "gpt", "messages": [{"role": "user", "content": f"refuse me {TEXT}"}]}
    bearer = {"authorization": f"Bearer {ALICE}", "cookie": COOKIE, "x-litellm-session-id": "kept"}
    for status in (400, 401, 403, 500):
        provider.next(
            Reply(text=f"Incorrect API key provided: {PROVIDER_KEY} (Authorization: Bearer {ALICE})", status=status)
        )
        HTTP.post(
            proxy.base_url + "/chat/completions", json=body, headers=bearer
        )  # its body is LiteLLM's and the provider's
    provider.requests.clear()
    for at in ("before", "after"):
        answer = HTTP.post(proxy.base_url + "/chat/completions", json=body, headers={**bearer, "x-break": at})
        assert answer.status_code == 200
        seen += [answer.text, str(dict(answer.headers))]
    HTTP.post(proxy.base_url + "/chat/completions", json=body, headers={"authorization": f"Bearer {WRONG}"})

    for method, path, sent in (
        ("GET", "/sessions?cursor=x", None), ("GET", "/sessions/kept/history?format=x", None),
        ("PATCH", "/sessions/kept", {"title": 7}), ("PATCH", "/sessions/kept", b"{"),
        ("POST", "/sessions/import", b"x\n"),
        ("POST", "/sessions/kept/snapshots", {"name": "a snapshot"}), ("GET", "/sessions/kept/export", None),
        ("GET", "/sessions/kept/requests", None), ("GET", "/sessions/kept/requests/1", None),
        ("GET", "/recovery", None),
        ("GET", "/sessions/kept/tree", None), ("GET", "/sessions/kept/search?q=hello", None), ("GET", "/metrics", None),
        ("POST", "/sessions/kept/subtasks", {"id": "s", "description": "d"}), ("GET", "/sessions/kept/subtasks", None),
        ("GET", "/health", None), ("GET", "/sessions/kept/nothing", None), ("DELETE", "/tenants/x", None),
        ("GET", "/sessions?tenant=x%0d%0ay", None), ("GET", "/sessions/a%0d%0ab%00c", None), ("GET", "/sessions", None),
    ):  # fmt: skip
        for key in (ALICE, WRONG, stage.proxy.key):
            answer = call(proxy, method, path, sent, key=key)
            assert answer.status_code < 500, (method, path, answer.text)
            seen += [answer.text, str(dict(answer.headers))]
    return seen


@contextmanager
def away(stage: Stage) -> Iterator[None]:
    """The store refuses the plugin's password."""
    stage.admin.execute_command("ACL", "SETUSER", "plugin", "off")
    stage.admin.execute_command("CLIENT", "KILL", "USER", "plugin")
    try:
        yield
    finally:
        stage.admin.execute_command("ACL", "SETUSER", "plugin", "on")
    eventually(lambda: call(stage.proxy, "GET", "/health", key="").json() == {"status": "ok"})


def back(stage: Stage) -> bool:
    """Whether the log says so: what had waited is being stored."""
    return stage.said().count(AWAY) == stage.said().count(BACK)


def noticed(stage: Stage, agent: Agent, text: str) -> None:
    """Speaks until the log says that the store is away: not at the first failure."""
    before = stage.said().count(AWAY)
    while stage.said().count(AWAY) == before:
        assert agent.run(text)


def test_no_secret_is_kept_said_or_shown(stage: Stage, provider: FakeProvider) -> None:
    seen = traffic(stage, provider)
    eventually(lambda: len(call(stage.proxy, "GET", "/sessions/kept/requests").json()["requests"]) >= 5)
    stored = dict(stage.stored())
    assert any(TEXT.encode() in value for value in stored.values())  # it can be read here, so a secret could be, too
    metrics = call(stage.proxy, "GET", "/metrics", key=stage.proxy.key).text
    assert "proxy_plugin_requests_total" in metrics

    with away(stage):
        agent = Agent(client(stage), extra_headers={"x-litellm-session-id": "kept"})
        noticed(stage, agent, f"the store is away {TEXT}")
        down = call(stage.proxy, "GET", "/sessions/kept")
        assert down.status_code == 503 and call(stage.proxy, "GET", "/health", key="").json() == {"status": "degraded"}
        seen += [down.text, str(agent.headers)]
    eventually(lambda: back(stage))

    said = stage.said()
    assert "ValueError at spy.py" in said and AWAY in said and BACK in said
    for secret in stage.secrets:
        assert not [key for key, value in stored.items() if secret.encode() in value], secret
        assert secret not in said and secret not in metrics, secret
        assert not [text for text in seen if secret in text], secret
    assert TEXT not in said and TEXT not in metrics


def test_a_line_of_the_log_is_one_line_whatever_a_client_is_called(stage: Stage) -> None:
    """No text of a client's is in the log at all, so that none can pose as a line of it."""
    forged = "x\r\nWARNING proxy_plugin: all is well FORGED"
    body = {
        "model": "gpt",
        "messages": [{"role": "user", "content": forged}],
        "metadata": {"session_id": forged, "subtask_id": forged, "agent": forged},
        "litellm_session_id": forged,
    }
    for at in ("before", "after", ""):
        headers = {"authorization": f"Bearer {BOB}", "x-break": at}
        answer = HTTP.post(stage.proxy.base_url + "/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200
        assert re.fullmatch(r"h_[0-9a-f]{32}", answer.headers.get("x-proxy-plugin-session", "h_" + "0" * 32))
    assert "FORGED" not in stage.said()
    named = {"authorization": f"Bearer {BOB}", "x-litellm-call-id": 'x" outcome=passed session=FORGED'}
    HTTP.post(stage.proxy.base_url + "/chat/completions", json={**body, "model": "gpt"}, headers=named)
    own = [re.sub(r'"(?:[^"\\]|\\.)*"', "", line) for line in stage.said().splitlines()]
    assert not [line for line in own if "FORGED" in line]  # what a client chose itself is quoted
    assert not [key for key, _ in stage.stored() if "FORGED" in key or "\n" in key]


def test_the_shell_and_the_doctor_say_nothing_secret(stage: Stage) -> None:
    environ = {**stage.proxy.environ, "PROXY_PLUGIN_ENCRYPTION_KEYS": "bad-encryption-key-SECRET"}
    port = free_port()
    addresses = (
        f"redis://plugin:{REDIS_PASSWORD}@127.0.0.1:{stage.admin.get_connection_kwargs()['port']}/0",
        f"redis://plugin:{WRONG}@127.0.0.1:{stage.admin.get_connection_kwargs()['port']}/0",
        f"rediss://plugin:{REDIS_PASSWORD}@127.0.0.1:{stage.admin.get_connection_kwargs()['port']}/0",
        f"redis://plugin:{REDIS_PASSWORD}@127.0.0.1:{port}/0",
        f"http://plugin:{REDIS_PASSWORD}@127.0.0.1", f"redis://plugin:{REDIS_PASSWORD}@:x/", f"redis+cluster://:{REDIS_PASSWORD}@",
        f"redis+sentinel://:{REDIS_PASSWORD}@127.0.0.1", f"redis://:{REDIS_PASSWORD}@[::1/0",
    )  # fmt: skip
    script = """
import contextlib, io, json, sys
from pathlib import Path
from proxy_plugin.cli import main
for arguments in json.loads(sys.argv[1]):
    for address in json.loads(sys.argv[2]):
        import os
        os.environ["PROXY_PLUGIN_REDIS_URL"] = address
        with contextlib.suppress(SystemExit):
            print(main(arguments))
os.environ["PROXY_PLUGIN_ENCRYPTION_KEYS"] = "bad-encryption-key-SECRET"
with contextlib.suppress(SystemExit):
    print(main(["sessions", "list"]))
"""
    environ.pop("PROXY_PLUGIN_ENCRYPTION_KEYS")
    doctor = ["doctor", str(stage.proxy.config_file)]
    runs = json.dumps([doctor, ["sessions", "list"]]), json.dumps(addresses)
    done = subprocess.run(
        [sys.executable, "-c", script, *runs],
        cwd=stage.proxy.folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    out = done.stdout + done.stderr
    assert "kept" in out and "store rights: scripts, reads and writes below pp:1:" in out, out
    for secret in (*stage.secrets, "bad-encryption-key-SECRET"):
        assert secret not in out, secret


# Least rights


def test_the_rights_are_those_of_the_commands_that_are_used() -> None:
    """No more than the code names, and no fewer."""
    used = {"auth", "ping", "select", "unlink"}  # the connection's own, and one that is sent by its name
    for script in (PACKAGE / "scripts").glob("*.lua"):
        for named in re.findall(r"redis\.p?call\(([^,)]*)", script.read_text()):
            used |= {name.lower() for name in re.findall(r"'([A-Z]+)'", named)}
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            used |= set(_commands_of(node))
    allowed = {word[1:] for word in rights.rights().split() if word.startswith("+")}
    assert used == allowed - {"info"}


def _commands_of(node: ast.AST) -> Iterator[str]:
    """What a call of `….command("x")` or of a pipeline's method names."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return
    of = node.func.value
    if node.func.attr == "command" and node.args and isinstance(node.args[0], ast.Constant):
        name = str(node.args[0].value)
        yield {"delete": "del"}.get(name, name)
    elif isinstance(of, ast.Name) and of.id in ("pipeline", "client") and node.func.attr not in NO_COMMANDS:
        yield node.func.attr


def test_all_of_it_ran_with_the_least_rights(stage: Stage) -> None:
    """Everything above: whatever was denied would stand in the server's log of that."""
    denied = {(entry["reason"], entry["object"]) for entry in stage.admin.acl_log()}
    assert {(reason, what) for reason, what in denied if reason != "auth"} <= {("command", "client|setinfo")}
    plugin = redis.Redis(
        host="127.0.0.1", port=stage.admin.get_connection_kwargs()["port"], username="plugin", password=REDIS_PASSWORD
    )
    with plugin:
        for command in (
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("GET", "other"),
            ("SCRIPT", "FLUSH"),
            ("PUBLISH", "a", "b"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                plugin.execute_command(*command)
        with pytest.raises(redis.exceptions.ResponseError, match="access"):
            plugin.eval("return redis.call('GET', 'other')", 0)


# Erasure


def left(stage: Stage, *names: str) -> dict[str, int]:
    """Keys that name or hold any of it, and for how long they stay (ms)."""
    wanted = [name.encode() for name in names]
    return {key: stage.admin.pttl(key) for key, value in stage.stored() if any(name in value for name in wanted)}


def filled(stage: Stage, key: str, name: str, text: str) -> None:
    """A session with everything."""
    user = client(stage, key)
    agent = Agent(user, extra_headers={"x-litellm-session-id": name}, extra_body={"metadata": {"agent": text}})
    for task in (text, 'call find {"q": "x"}', "thanks"):
        agent.run(task)
    settled(stage, name, len(agent.messages), key)
    base = f"/sessions/{name}"
    node = call(stage.proxy, "GET", f"{base}/tree", key=key).json()["nodes"][0]["id"]
    for path, body in (
        ("/branches", {"name": text, "node": node}), ("/snapshots", {"name": text, "pin": True}),
        ("/subtasks", {"id": text, "description": text}),
    ):  # fmt: skip
        assert call(stage.proxy, "POST", base + path, body, key=key).status_code == 201
    edit = {"title": text, "description": text, "metadata": {"m": text}, "aliases": [f"{text}-alias"]}
    assert call(stage.proxy, "PATCH", base, edit, key=key).status_code == 200
    user.responses.create(model="gpt", input=f"{text} kept", extra_headers={"x-session-id": f"{name}-r"})
    settled(stage, f"{name}-r", 2, key)
    eventually(lambda: call(stage.proxy, "GET", f"{base}/requests", key=key).json()["total"] >= 4)


def tags_of(stage: Stage, tenant: str, *sessions: str) -> list[str]:
    return [address(tenant, session).tag for session in sessions]


def test_a_deleted_session_leaves_its_tombstone_alone(stage: Stage, provider: FakeProvider) -> None:
    """With a call under way that ends afterwards, and a reply that was to be stored in a moment."""
    name, text = "doomed", "doomed-text-91d2"
    filled(stage, ALICE, name, text)
    tenant = stage.tenant(ALICE)
    tags = tags_of(stage, tenant, name, f"{name}-r")
    assert len(left(stage, *tags)) > 20 and len(left(stage, text)) > 5
    stage.admin.zadd(keys.interrupted(tenant), {name: 1})  # as if a worker had been lost over it

    gate = provider.hold(event=1)
    ask: Any = {"model": "gpt", "messages": [{"role": "user", "content": text}], "stream": True}
    stream = client(stage).chat.completions.create(**ask, extra_headers={"x-litellm-session-id": name})
    assert gate.reached.wait(20)
    calling = {**ask, "stream": False, "messages": [{"role": "user", "content": f'call find {{"q": "{text}"}}'}]}
    named = {"authorization": f"Bearer {ALICE}", "x-litellm-session-id": name}
    assert "tool_calls" in HTTP.post(stage.proxy.base_url + "/chat/completions", json=calling, headers=named).text
    calling = {**ask, "stream": False, "messages": [{"role": "user", "content": f'call find {{"q": "{text}"}}'}]}
    named = {"authorization": f"Bearer {ALICE}", "x-litellm-session-id": name}
    assert "tool_calls" in HTTP.post(stage.proxy.base_url + "/chat/completions", json=calling, headers=named).text
    for session in (name, f"{name}-r"):
        assert call(stage.proxy, "DELETE", f"/sessions/{session}").status_code == 200
    gate.release()
    assert list(stream)
    assert HTTP.post(stage.proxy.base_url + "/chat/completions", json=calling, headers=named).status_code == 200

    def gone() -> bool:
        found = left(stage, *tags, text, f'"{name}', f" {name}") | left(stage, f"\n{name}")
        return bool(found) and all(key.endswith(":tomb") and 0 < ms <= 60_000 for key, ms in found.items())

    eventually(gone)
    assert call(stage.proxy, "GET", f"/sessions/{text}-alias").status_code == 404


def test_what_waited_for_the_store_does_not_come_back(stage: Stage) -> None:
    """A request that came while the store was away, of a session that is deleted as soon as it answers."""
    name, text = "waited", "waited-text-33e0"
    agent = Agent(client(stage), extra_headers={"x-litellm-session-id": name})
    agent.run("hello")
    settled(stage, name, 2)
    with away(stage):
        noticed(stage, agent, text)
    eventually(lambda: call(stage.proxy, "DELETE", f"/sessions/{name}").status_code == 200)
    eventually(lambda: back(stage))
    (tag,) = tags_of(stage, stage.tenant(ALICE), name)

    def gone() -> bool:
        found = left(stage, tag, text, f"\n{name}", f" {name}")
        return bool(found) and all(key.endswith(":tomb") for key in found)

    eventually(gone)


def test_a_conversation_without_an_id_does_not_come_back_with_a_late_reply(
    stage: Stage, provider: FakeProvider
) -> None:
    text = "opening-of-a-doomed-one-22"
    gate = provider.hold(event=1)
    ask: Any = {"model": "gpt", "messages": [{"role": "user", "content": text}], "stream": True}
    raw = client(stage).chat.completions.with_raw_response.create(**ask)
    session = raw.headers["x-proxy-plugin-session"]
    assert gate.reached.wait(20)
    assert call(stage.proxy, "DELETE", f"/sessions/{session}").status_code == 200
    gate.release()
    assert list(raw.parse())
    eventually(lambda: not left(stage, text))
    (tag,) = tags_of(stage, stage.tenant(ALICE), session)
    kept = left(stage, tag)
    assert all(key.endswith(":count") or 0 < ms <= 60_000 for key, ms in kept.items()), kept


def test_an_erased_tenant_leaves_tombstones_alone(stage: Stage) -> None:
    text = "bobs-erased-text-7a7a"
    filled(stage, BOB, "erased", text)
    Agent(client(stage, BOB)).run(f"opening {text}")
    Agent(client(stage, BOB)).run(f"opening {text}")
    tenant = stage.tenant(BOB)
    sessions = [
        one["session_id"] for one in call(stage.proxy, "GET", "/sessions", key=BOB, limit=500).json()["sessions"]
    ]
    tags = tags_of(stage, tenant, *sessions)
    stage.admin.zadd(keys.interrupted(tenant), {"erased": 1})
    stage.admin.set(keys.fence(tenant), 1)
    stage.admin.zrem(keys.index(tenant), "erased-r")  # another worker's, which has not indexed it yet …
    before = stage.admin.zcard(keys.TENANTS)
    late = threading.Timer(0.5, stage.admin.zadd, (keys.index(tenant), {"erased-r": 2_000_000_000_000}))
    late.start()  # … and does so in a moment
    answer = call(stage.proxy, "DELETE", f"/tenants/{tenant}", key=stage.proxy.key)
    late.join()
    assert answer.status_code == 200 and answer.json()["deleted"] == len(sessions)
    assert stage.admin.zcard(keys.TENANTS) == before - 1

    def gone() -> bool:
        found = left(stage, *tags, text, tenant)
        return all(0 < ms <= 60_000 for ms in found.values()) and not left(stage, text, tenant)

    eventually(gone)
    assert call(stage.proxy, "GET", "/sessions", key=ALICE).json()["total"] > 0


def test_only_an_admin_erases_a_tenant(stage: Stage) -> None:
    tenant = tenant_of("key", key_hash="somebody")
    assert call(stage.proxy, "DELETE", f"/tenants/{tenant}").status_code == 403
    assert call(stage.proxy, "GET", "/sessions", tenant=tenant).status_code == 403
    for path in ("/sessions", "/recovery", "/sessions/x", "/agents/x/current"):
        answer = call(stage.proxy, "GET", path, key=stage.proxy.key, tenant="x}:meta\r\n*")
        assert answer.status_code == 400, path
