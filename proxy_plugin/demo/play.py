"""The demo's story: one agent and one plan, without the plugin and with it.

What is shown as received is what the client sent, and what is shown as sent is what the fake provider got.
At the end the plugin's promises are held against what happened.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import openai
from prometheus_client.parser import text_string_to_metric_families

from proxy_plugin.demo import tools
from proxy_plugin.demo.agent import Agent, Exchange
from proxy_plugin.demo.provider import CALL_ID, Provider
from proxy_plugin.demo.proxy import GATEWAY_MODEL, MODEL, PREFIX, Proxy, ProxyError
from proxy_plugin.demo.screen import WIDTH, Screen, align, shorten, size

Json = dict[str, Any]
Metrics = dict[str, float]

LOST = f"Subtask 1: find the booking to Lisbon of the customer {tools.EMAIL}."
"""What the user says where the plugin is off: other words, so that it is another conversation."""
SUBTASKS = (
    f"Subtask 1: find the customer {tools.EMAIL} and the booking to Lisbon.",
    "Subtask 2: if the booking may be cancelled, cancel it and refund the payment.",
    "Subtask 3: write the report with the ids of customer, order, payment and refund.",
)
"""What the user says, each when the one before is done. They begin with the words of the provider's plan."""
STREAMED = 2
"""Number of the subtask whose replies are streamed."""

_OFF = {"x-proxy-plugin": "off"}
_SETTLE_SECONDS = 5.0
_SUMMARY_CHARACTERS = 2 * (WIDTH - 14)
_CREATED, _RESTORED = "proxy_plugin_snapshot_created_total", "proxy_plugin_snapshot_restored_total"
_SHOWN_METRICS = (
    "proxy_plugin_requests_total",
    "proxy_plugin_repairs_total",
    "proxy_plugin_subtasks_collapsed_total",
    "proxy_plugin_tool_messages_cleared_total",
    "proxy_plugin_history_bytes_total",
    _CREATED,
    _RESTORED,
    "proxy_plugin_passthrough_total",
    "proxy_plugin_store_errors_total",
)


class DemoError(Exception):
    """The plugin does not keep its word; one line that says where."""


def run(out: TextIO, err: TextIO, *, keep: bool = False) -> int:
    """Plays the demo and gives the exit code: 0, 1 for a failure, 130 if it was interrupted. With `keep`
    everything runs on until Ctrl-C, which is then the usual end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: both end what was started
    screen = Screen(out)
    folder = Path(tempfile.mkdtemp(prefix="proxy-plugin-demo-"))
    proxy: Proxy | None = None
    played = False
    try:
        with ExitStack() as stack:
            provider = Provider()
            stack.callback(provider.close)
            proxy = Proxy(folder, provider.address)
            stack.callback(proxy.stop)
            _start(screen, proxy, provider)
            story = stack.enter_context(Story(screen, proxy, provider))
            story.tell()
            played = True
            if keep:
                _keep(screen, proxy, story.session)
    except KeyboardInterrupt:
        screen.say("\n\nStopped; nothing is left running.")
    except BrokenPipeError:  # nobody reads on: nothing to explain
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:
        _explain(Screen(err), error, proxy)  # the folder stays, for its log
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0 if played else 130


def _start(screen: Screen, proxy: Proxy, provider: Provider) -> None:
    screen.say(screen.paint("bold", "The plugin at work on this machine alone: no key, no network, no Redis.") + "\n")
    screen.pair("provider", f"{provider.address}  a fake one; refuses every history that OpenAI would refuse")
    screen.pair("proxy", f"{proxy.address}  LiteLLM {version('litellm')}, a process of its own")
    screen.pair("plugin", 'callbacks: ["proxy_plugin.handler"] in the proxy\'s configuration, nothing else')
    screen.pair("client", f"the official openai package {openai.__version__}; its base_url is the proxy")
    screen.say("\n    Starting the proxy; importing LiteLLM takes some ten seconds ", end="")
    began = shown = time.monotonic()
    for _ in proxy.ready():
        if time.monotonic() - shown >= 1:
            shown = time.monotonic()
            screen.say(".", end="")
    screen.say(f" ready after {time.monotonic() - began:.0f} s")


def _keep(screen: Screen, proxy: Proxy, session: str) -> None:
    """Shows how to use what runs, and waits. Raises ProxyError if the proxy ends."""
    api = f"{proxy.address}{PREFIX}"
    screen.title("Everything runs on until Ctrl-C")
    screen.pair("base_url", f"{proxy.address}/v1")
    screen.pair("api_key", proxy.key)
    screen.pair("model", f"{MODEL} or {GATEWAY_MODEL}: the fake model, which knows only its plan")
    screen.pair("off", "for one call: header x-proxy-plugin: off")
    screen.pair("sessions", f"{api}/sessions")
    screen.pair("history", f"{api}/sessions/{session}/history")
    screen.pair("metrics", f"{api}/metrics")
    screen.pair("log", str(proxy.log))
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": SUBTASKS[0]}]})
    key = f"-H 'Authorization: Bearer {proxy.key}'"
    # Not indented and not wrapped, to be copied.
    screen.say(f"\ncurl -i {proxy.address}/v1/chat/completions \\\n  {key} \\")
    screen.say(f"  -H 'Content-Type: application/json' \\\n  -d '{body}'")
    screen.say(f"\ncurl {key} \\\n  {api}/sessions/{session}/history")
    raise ProxyError(f"the proxy ended by itself (exit code {proxy.wait()})")


def _explain(screen: Screen, error: Exception, proxy: Proxy | None) -> None:
    known = isinstance(error, (ProxyError, DemoError))
    reason = str(error) if known else f"{type(error).__name__}: {error}"
    screen.say(f"\n\n{screen.paint('red', 'The demo failed:')} {shorten(reason, 500)}")
    if proxy is None:
        return
    screen.say(f"\nThe end of the proxy's log, {proxy.log}:\n")
    for line in proxy.log_tail():
        screen.say(f"    {line}")
    screen.say(
        "\nWhat to do: on a busy machine run it again when there is less to do. If the log names a package that\n"
        "is missing, install the plugin again; if it names the embedded store, install valkey-server or\n"
        "redis-server. For anything else, please report it with the log."
    )


class Story:
    """Plays the plan and tells what happens. Its methods raise DemoError where a promise is broken."""

    def __init__(self, screen: Screen, proxy: Proxy, provider: Provider) -> None:
        self._screen = screen
        self._proxy = proxy
        self._provider = provider
        self._lost = Agent(proxy, provider, _OFF)
        self._agent = Agent(proxy, provider, {})
        self._recovered: Exchange | None = None  # the lost conversation's call, with the plugin
        self._exchanges: list[Exchange] = []  # the plan's calls, with the plugin
        self._refusals: list[int] = []

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *exception: object) -> None:
        self._lost.close()
        self._agent.close()

    @property
    def session(self) -> str:
        """The plan's session, as the response headers name it."""
        return self._exchanges[0].headers["x-proxy-plugin-session"]

    def tell(self) -> None:
        self._without_plugin()
        self._lost_session_again()
        self._with_plugin()
        self._watch()
        self._tally()

    def _without_plugin(self) -> None:
        self._screen.title("1. Without the plugin (header x-proxy-plugin: off)")
        self._screen.say(f"    An agent works through three subtasks. Its model calls every tool call {CALL_ID}.\n")
        agent = self._lost
        agent.say(LOST)
        number = 1
        while not self._attempt(f"call {number}", MODEL):
            number += 1
        agent.say("Please go on.")
        self._attempt(f"call {number + 1}", MODEL)
        self._screen.pair("", "Every call carries the whole history: each later one fails too, the session is lost.")
        agent.messages.pop()
        self._attempt("gateway", GATEWAY_MODEL)
        if self._refusals != [400, 400, 403]:
            raise DemoError(f"the provider should have refused with 400, 400 and 403, not with {self._refusals}")

    def _attempt(self, name: str, model: str) -> bool:
        """One call of the agent without the plugin; whether it was refused."""
        count = f"{len(self._lost.messages)} messages"
        try:
            reply = self._lost.call(model=model).reply
        except openai.APIStatusError as error:
            self._refusals.append(error.status_code)
            self._screen.pair(name, f"{count:<12} {error.status_code} openai.{type(error).__name__}", "red")
            self._screen.pair("", str(self._provider.received[-1].refusal))
            return True
        calls = [f"{call['function']['name']} as {call['id']}" for call in reply.get("tool_calls", [])]
        if not calls:
            raise DemoError("the provider took a history that it should have refused")
        self._screen.pair(name, f"{count:<12} {', '.join(calls)}")
        return False

    def _lost_session_again(self) -> None:
        self._screen.title("2. With the plugin: the lost session comes back")
        self._screen.say("    The refused request once more, without that header.\n")
        agent = Agent(self._proxy, self._provider, {})
        agent.messages = self._lost.messages
        try:
            self._recovered = agent.call()
            self._show_call("the refused call", self._recovered, None)
        finally:
            agent.close()

    def _with_plugin(self) -> None:
        self._screen.title("3. With the plugin: the same plan from its beginning")
        for number, text in enumerate(SUBTASKS, start=1):
            streamed = number == STREAMED
            self._screen.say(self._screen.paint("bold", f"    {text}{' (streamed)' if streamed else ''}") + "\n")
            before = self._metrics()
            self._agent.say(text)
            earlier: Exchange | None = None
            while earlier is None or not earlier.final:
                call = self._agent.call(stream=streamed)
                self._exchanges.append(call)
                self._show_call(f"call {len(self._exchanges)}", call, earlier)
                earlier = call
            self._show_snapshots(before)

    def _show_call(self, name: str, call: Exchange, earlier: Exchange | None) -> None:
        """A call, whole or as what it has over the one before it in its subtask."""
        asked, sent = call.asked, call.received.messages
        skipped = (0, 0)
        screen = self._screen
        screen.beside(f"{name}: received {size(asked):,} bytes", f"sent to the provider {size(sent):,} bytes", "bold")
        if earlier is not None:
            skipped = len(earlier.asked), len(earlier.received.messages)
            if sent[: skipped[1]] != earlier.received.messages:
                raise DemoError(f"{name} does not begin with what the call before it sent: the prompt cache is lost")
            as_before = [f"{count} messages as before" for count in skipped]
            screen.beside(f"{as_before[0]}, and", f"{as_before[1]}, byte for byte, and")
        rows = align(asked[skipped[0] :], sent[skipped[1] :])
        screen.table(rows)
        if added := [row.sent for row in rows if row.added and row.sent]:
            self._show_summary(str(added[-1]["content"]))
        self._show_reply(call)
        self._show_headers(call)
        screen.say()

    def _show_summary(self, text: str) -> None:
        """The newest summary, each of its calls on two lines at most."""
        for index, entry in enumerate(text.replace("\n ", " ").splitlines()):
            self._screen.pair("" if index else "summary", shorten(entry, _SUMMARY_CHARACTERS), "cyan")

    def _show_reply(self, call: Exchange) -> None:
        said = (call.received.reply or {}).get("tool_calls", [])
        seen = call.reply.get("tool_calls", [])
        if len(said) != len(seen):
            raise DemoError(f"the model made {len(said)} tool calls and the client saw {len(seen)}")
        for index, (theirs, ours) in enumerate(zip(said, seen, strict=True)):
            kept = theirs["id"] == ours["id"]
            saw = "saw the same" if kept else f"saw {ours['id']}"
            text = f"{theirs['function']['name']} as {theirs['id']}; the client {saw}"
            self._screen.pair("" if index else "reply", text, "" if kept else "green")
        if not seen:
            self._screen.pair("reply", str(call.reply["content"]))

    def _show_headers(self, call: Exchange) -> None:
        headers = {name: call.headers.get(f"x-proxy-plugin-{name}") for name in ("collapsed", "repaired", "bytes")}
        session = call.headers.get("x-proxy-plugin-session")
        if session is None or None in headers.values():
            raise DemoError("the plugin's response headers are missing: it did not handle the request")
        first = call.asked[-1]["role"] == "user" and len(call.asked) == 2
        if first:
            self._screen.pair("headers", f"x-proxy-plugin-session: {session}  (found; none was sent)")
        values = ", -".join(f"{name}: {value}" for name, value in headers.items())
        self._screen.pair("" if first else "headers", f"x-proxy-plugin-{values}")

    def _show_snapshots(self, before: Metrics) -> None:
        """Waits a moment: the end of a streamed reply is stored after the client has it."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (now := self._metrics())[_RESTORED] == before[_RESTORED] and time.monotonic() < deadline:
            time.sleep(0.05)
        made, restored = now[_CREATED] - before[_CREATED], now[_RESTORED] - before[_RESTORED]
        text = f"{made:.0f} made as the subtask began, {restored:.0f} restored with its result"
        self._screen.pair("snapshots", text)
        self._screen.say()

    def _metrics(self) -> Metrics:
        found: Metrics = {}
        for family in text_string_to_metric_families(self._proxy.get(f"{PREFIX}/metrics").text):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def _watch(self) -> None:
        screen = self._screen
        screen.title("4. What can be watched and read back")
        screen.say(f"    GET {self._proxy.address}{PREFIX}/metrics\n")
        for name, value in self._metrics().items():
            if value and name.startswith(_SHOWN_METRICS):
                screen.say(f"    {name:<72} {value:>12,.0f}")
        path = f"{PREFIX}/sessions/{self.session}/history"
        history = self._proxy.get(path).json()
        screen.say(f"\n    GET {self._proxy.address}{path}\n")
        screen.say(f"    {history['message_count']} messages, with every tool result, as the client saw them:\n")
        for message in history["messages"]:
            text = shorten(str(message.get("content") or ""), 32)
            ids = ", ".join([call["id"] for call in message.get("tool_calls") or []])
            shown = message.get("tool_call_id") or ids
            screen.say(f"    {message['role']:<9} {text:<32} {size(message):>6,}  {shown}".rstrip())

    def _tally(self) -> None:
        screen, calls, mine = self._screen, self._exchanges, self._agent.messages
        came = sum(size(call.asked) for call in calls)
        sent = sum(size(call.received.messages) for call in calls)
        summaries = sum(int(call.headers["x-proxy-plugin-collapsed"]) for call in calls)
        metrics = self._metrics()
        made, restored = metrics[_CREATED], metrics[_RESTORED]
        ids = [call["id"] for message in mine for call in message.get("tool_calls", [])]
        history = self._proxy.get(f"{PREFIX}/sessions/{self.session}/history").json()["messages"]
        same = [_gist(message) for message in history] == [_gist(message) for message in mine]
        report = str(mine[-1]["content"])
        screen.title("Tally")
        for name, text in (
            ("refused", f"{len(self._refusals)} calls without the plugin, none of {len(calls) + 1} with it"),
            ("bytes", f"{came:,} of the plan's history received, {sent:,} sent ({(sent - came) / came:+.0%})"),
            ("summaries", f"{summaries} sent in the place of finished subtasks"),
            ("ids", f"{len(ids)} calls, {CALL_ID} to the model, {len(set(ids))} different ids to the client"),
            ("snapshots", f"{made:.0f} made, {restored:.0f} restored (one of them in the session that was lost)"),
        ):
            screen.pair(name, text)
        screen.say()
        promises = {
            "the session that was lost goes on": self._recovered is not None and self._recovered.final,
            "finished subtasks were sent as summaries, in fewer bytes": summaries > 0 and sent < came,
            "the ids that the first subtasks found reached the last in their summaries": all(
                known in report for known in (tools.CUSTOMER, tools.ORDER, tools.PAYMENT, tools.REFUND)
            ),
            "no id stands twice in what the client holds": len(ids) == len(set(ids)),
            "every subtask had its snapshot": made == restored == len(SUBTASKS) + 1,
            "the stored history is the client's, message by message": same,
        }
        for text, holds in promises.items():
            screen.pair("yes" if holds else "NO", text, "green" if holds else "red")
        if broken := [text for text, holds in promises.items() if not holds]:
            raise DemoError(f"not so: {'; '.join(broken)}")


def _gist(message: Json) -> Any:
    calls = [(call["id"], call["function"]) for call in message.get("tool_calls") or []]
    return message["role"], message.get("content") or "", message.get("tool_call_id"), calls
