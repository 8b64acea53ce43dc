"""The id of a response as its provider gave it, whichever way LiteLLM writes it.

resp_<encrypted>   what clients see by default, and send: the next form with the user and team it is for,
                   encrypted anew each time it is shown
resp_<base64>      what the hooks of a reply see, and clients of a proxy without a key to encrypt with:
                   "litellm:custom_llm_provider:…;model_id:…;response_id:…"
resp_…             the provider's own
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any

_PREFIX = "resp_"
_NAMED = re.compile(r"litellm:custom_llm_provider:[^;]*;model_id:[^;]*;response_id:(.+)\Z", re.DOTALL)
_OWNED = re.compile(r"litellm_proxy:responses_api:response_id:([^;]+)")


def provider_id(given: Any) -> str:
    """The provider's id, "" for what is no id at all. What cannot be opened is taken as the provider's."""
    if not isinstance(given, str):
        return ""
    named = _named(given)
    return named if named != given or not given.startswith(_PREFIX) else _named(_opened(given))


def _named(given: str) -> str:
    try:
        found = _NAMED.match(b64decode(given.removeprefix(_PREFIX), validate=True).decode())
    except ValueError:
        return given
    return found[1] if found else given


def _opened(given: str) -> str:
    try:
        from litellm.proxy.common_utils.encrypt_decrypt_utils import decrypt_value_helper

        text = decrypt_value_helper(value=given.removeprefix(_PREFIX), key="response_id", return_original_value=True)
    except Exception:
        return given
    found = _OWNED.match(text) if isinstance(text, str) else None
    return found[1] if found else given
