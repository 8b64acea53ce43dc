"""What each provider tolerates in a history with tool calls: one row a dialect.

Only rules that the rewriting acts upon stand here. A rule's source is named in its row; wordings and
status codes vary over time, the rules less so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256

_ALNUM = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SIGNATURE = "__thought__"  # Gemini ids carry the thought signature behind this mark (LiteLLM's form)


def stem(call_id: str) -> str:
    """What of an id reaches a provider and has to be unique there: LiteLLM takes the signature off on the way
    (back to Gemini it travels in a field of its own)."""
    return call_id.partition(_SIGNATURE)[0] or call_id


@dataclass(frozen=True, slots=True)
class IdRule:
    """Which tool call ids a provider takes. `exactly` wins over `at_most`; None = any length.

    signed  True: a signature may stand behind an id, and survives; the rule is about what is in front of it.
            False: ids reach the provider as they are. None: it has no use for signatures; beside a provider
            that has (in one model group) they stay, because LiteLLM takes them off for the others."""

    alphabet: str = ""  # characters of a regular expression class; "" = any
    at_most: int | None = None
    exactly: int | None = None
    signed: bool | None = None

    def accepts(self, call_id: str) -> bool:
        if self.signed:
            call_id = stem(call_id)
        if not self.alphabet and self.exactly is None:
            return self.at_most is None or len(call_id) <= self.at_most
        return _pattern(self).fullmatch(call_id) is not None

    def fit(self, call_id: str, use: int) -> str:
        """A legal id for the `use`-th repeated use of `call_id` (0: it is only illegal). Deterministic."""
        digest = sha256(f"{use}\0{call_id}".encode("utf-8", "surrogatepass"))
        name = stem(call_id)
        signature = call_id[len(name) :] if self.signed else ""
        if self.exactly is not None:
            number = int.from_bytes(digest.digest()[:16], "big")
            characters = []
            for _ in range(self.exactly):
                number, rest = divmod(number, len(_ALNUM))
                characters.append(_ALNUM[rest])
            return "".join(characters) + signature
        if self.alphabet:
            name = re.sub(f"[^{self.alphabet}]", "_", name)
        suffix = "_" + digest.hexdigest()[:8]
        room = (self.at_most or 64) - len(suffix)
        return (name[:room] or "call") + suffix + signature


@lru_cache(maxsize=64)
def _pattern(rule: IdRule) -> re.Pattern[str]:
    length = f"{{{rule.exactly}}}" if rule.exactly else f"{{1,{rule.at_most or ''}}}"
    return re.compile(f"[{rule.alphabet}]{length}" if rule.alphabet else f"(?s:.{length})")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One provider's row.

    ids              which tool call ids it takes
    system_anywhere  a system message in the middle of the conversation stays in its place
    user_after_tool  a user message may stand directly behind a tool result
    alternates       two user messages may not follow one another
    system_role      the list may hold a system message of ours at all
    late_results     a result may stand anywhere behind its call
    empty_results    a result that says nothing reaches the provider
    on_responses     the row of the provider's own /responses endpoint; None: the same rules as for chat
    """

    ids: IdRule = IdRule()
    system_anywhere: bool = False
    user_after_tool: bool = True
    alternates: bool = False
    system_role: bool = True
    late_results: bool = False
    empty_results: bool = True
    on_responses: Dialect | None = None


_OPENAI_CHAT = Dialect(ids=IdRule(at_most=40), system_anywhere=True)
_OPENAI = replace(
    _OPENAI_CHAT,
    # Call and item ids "with maximum length 64"; "No tool output found for function call" only if there is none.
    on_responses=Dialect(ids=IdRule(at_most=64, signed=False), system_anywhere=True, late_results=True),
)
_ANTHROPIC = Dialect(ids=IdRule(alphabet="a-zA-Z0-9_-", at_most=64))

DIALECTS: dict[str, Dialect] = {
    # "string too long. Expected a string with maximum length 40"; system messages stay in place.
    "openai": _OPENAI,
    "azure": _OPENAI,
    "xai": _OPENAI,
    # LiteLLM turns their /responses into chat completions. DeepSeek's own wants an output behind its call, too.
    "custom_openai": _OPENAI_CHAT,
    "deepseek": _OPENAI_CHAT,
    # tool_use ids "should match pattern '^[a-zA-Z0-9_-]+$'"; LiteLLM hoists or rewords a late system message.
    "anthropic": _ANTHROPIC,
    # Converse API reference, ToolUseBlock.toolUseId: 1-64 of [a-zA-Z0-9_.:-].
    "bedrock": Dialect(ids=IdRule(alphabet="a-zA-Z0-9_.:-", at_most=64)),
    # System text is hoisted into system_instruction; ids are LiteLLM's own and may carry a signature.
    "gemini": Dialect(ids=IdRule(signed=True)),
    "vertex_ai": Dialect(ids=IdRule(signed=True)),
    # "must be a-z, A-Z, 0-9, with a length of 9"; "Unexpected role 'user' after role 'tool'". LiteLLM drops every
    # message whose content is empty on the way there, results included (MistralConfig._is_empty_assistant_message).
    "mistral": Dialect(ids=IdRule(alphabet="a-zA-Z0-9", exactly=9), user_after_tool=False, empty_results=False),
    # The chat template decides: Qwen's refuses a late system message, Gemma's wants user/assistant in turn. Its
    # /responses renders the same template; lengths of ids there are those of the Responses API itself.
    "hosted_vllm": Dialect(
        alternates=True, on_responses=Dialect(ids=IdRule(at_most=64, signed=False), alternates=True)
    ),
}
ALIASES = {
    "openai_like": "custom_openai",
    "azure_text": "azure",
    "bedrock_converse": "bedrock",
    "vertex_ai_beta": "vertex_ai",
    "vllm": "hosted_vllm",
    "codestral": "mistral",
}
UNKNOWN = Dialect(ids=IdRule(signed=True))
"""A provider without a row: ids must be unique and that is all; no system message of ours."""


@lru_cache(maxsize=256)
def dialect_of(provider: str, api: str = "chat") -> Dialect:
    """The rules of a provider as LiteLLM names it (UNKNOWN for any other name) for the lists of one API.

    "messages": no system role inside the list, and what stands side by side for one role is one turn. LiteLLM
    writes ids in Anthropic's alphabet whoever they go to ("a.b" and "a_b" would become one).
    "responses": those of the provider's own endpoint, else of chat, which LiteLLM turns the list into."""
    row = DIALECTS.get(ALIASES.get(provider, provider), UNKNOWN)
    if api == "messages":
        ids = _strictest_ids(row.ids, IdRule(alphabet=_ANTHROPIC.ids.alphabet))
        return replace(row, ids=ids, system_anywhere=False, system_role=False, alternates=False, on_responses=None)
    if api == "responses" and row.on_responses is not None:
        return row.on_responses
    return replace(row, on_responses=None)


def strictest(dialects: Iterable[Dialect]) -> Dialect:
    """One dialect that satisfies all given ones: a model group whose deployments and fallbacks differ."""
    rows = list(dict.fromkeys(dialects))
    if not rows:
        return UNKNOWN
    result = rows[0]
    for row in rows[1:]:
        result = replace(
            result,
            ids=_strictest_ids(result.ids, row.ids),
            system_anywhere=result.system_anywhere and row.system_anywhere,
            user_after_tool=result.user_after_tool and row.user_after_tool,
            alternates=result.alternates or row.alternates,
            system_role=result.system_role and row.system_role,
            late_results=result.late_results and row.late_results,
            empty_results=result.empty_results and row.empty_results,
        )
    return result


def _strictest_ids(a: IdRule, b: IdRule) -> IdRule:
    signed = False if False in (a.signed, b.signed) else a.signed or b.signed
    if a.exactly or b.exactly:
        return replace(a if a.exactly else b, signed=signed)
    alphabets = sorted((x.alphabet for x in (a, b) if x.alphabet), key=len)  # each longer one contains the shorter
    lengths = [x.at_most for x in (a, b) if x.at_most]
    return IdRule(alphabets[0] if alphabets else "", min(lengths) if lengths else None, signed=signed)
