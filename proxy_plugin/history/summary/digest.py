"""Plain text, shortened: what a later step may need of prose, code, logs and listings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

WHOLE = 200  # characters of a text that stays as it is
_HEAD = 120

_RUN = re.compile(r"[^\s\"'<>(){}\[\],;`|=*“”‘’«»、。，：；（）「」【】]+")
_END = ".,:;!?…-_#*~+&\\/"
_START = re.compile(r"(?:[^\w.~/#@+-]|_|\.(?![./\w])|~(?!/)|[#@+-](?!\w))*")
_EXTENSION = re.compile(
    r"\.(?:pyi?|ipynb|[cm]?[jt]sx?|jsonl?|mdx?|rst|te?xt|csv|tsv|rs|go|[ch](?:pp|c|h)?|java|kts?|rb|php|swift|scala|cs"
    r"|lua|sql|ya?ml|toml|ini|cfg|conf|env|lock|sh|bat|ps1|html?|s?css|vue|svelte|xml|svg|pdf|docx?|xlsx?|pptx?"
    r"|png|jpe?g|gif|webp|mp[34]|wav|zip|t?gz|tar|log|db|proto|tf|gradle|diff|patch)\Z",
    re.IGNORECASE,
)
_COMPOUND = re.compile(r"[a-z]{2,}(?:[_-][a-z]{2,})+", re.IGNORECASE)
_BINARY = re.compile(r"[A-Za-z0-9+/=_-]{400}")


def looks_like_identifier(run: str) -> bool:
    """Ids, numbers of four digits and more, dates, amounts, paths, URLs, e-mails, file names."""
    if any(character.isdigit() for character in run):
        return len(run) >= 4 or "." in run
    if "/" in run or "@" in run:
        return len(run) >= 4
    return bool(_EXTENSION.search(run[-8:])) or len(run) >= 6 and bool(_COMPOUND.fullmatch(run))


def identifiers(text: str) -> Iterator[str]:
    for match in _RUN.finditer(text):
        run = match[0]
        if len(run) > 300:
            continue
        run = run.rstrip(_END)
        if run[:1] in "_*:$€£&!?.~#@+-…":
            run = _START.sub("", run, count=1)
        if run and looks_like_identifier(run):
            yield run


def is_binary(text: str) -> bool:
    """Base64 or bytes that were decoded as text."""
    sample = text[:2000]
    if _BINARY.match(sample.partition(",")[2] if sample.startswith("data:") else sample):
        return True
    odd = sum(character < " " and character not in "\t\r\n" or character == "\ufffd" for character in sample)
    return odd * 20 > len(sample)


def digest(text: str, known: Callable[[str], bool], budget: int, whole: int = WHOLE, lead: int = _HEAD) -> str:
    """The text if it is short; else its beginning and the identifiers of the rest that are not `known`."""
    text = text.strip()
    if len(text) <= whole:
        return text
    if is_binary(text):
        return f"binary data, {len(text)} characters"
    cut = text.find("\n", lead // 2, lead)
    if cut < 0:
        cut = text.rfind(" ", lead // 2, lead)
    head = text[: cut if cut > 0 else lead].rstrip()
    tail = _tail(text[len(head) :]) if whole == WHOLE else ""
    found, left, seen = [], budget - len(head), set()
    for run in identifiers(text[len(head) : len(text) - len(tail)]):
        if run not in seen and run not in head and not known(run):
            seen.add(run)
            left -= len(run) + 1
            if left < 0:
                break
            found.append(run)
    return " ".join([head, "…", *found, *(["…", tail] if tail else [])])


def _tail(text: str) -> str:
    """The last line, where programs say how it went."""
    return text[max(text.rfind("\n") + 1, len(text) - _HEAD) :].strip()


_FAILED = re.compile(r"\s*(?:<tool_use_error>\s*)?(?:error|fatal|exception|traceback)\b", re.IGNORECASE)
_EXIT = re.compile(r"^(?:Command exited with code|exit code:?) [1-9]\d*\s*$", re.MULTILINE | re.IGNORECASE)
_ERROR = re.compile(
    r"(?:^|[\s.(\[])(?:[A-Za-z_.]{0,60}(?:Error|Exception)\b|error|fatal|failed|not found|no such)\b", re.IGNORECASE
)


def error_line(text: str, failed: bool) -> str:
    """The first line that says what went wrong, at most 200 characters; empty if nothing did."""
    if not (failed or _FAILED.match(text) or "Traceback (most recent" in text or _EXIT.search(text)):
        return ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    start = next((n + 1 for n, line in enumerate(lines) if line.startswith("Traceback (most recent")), 0)
    for line in lines[start:]:
        if start and re.match(r"[\w.]+(?:Error|Exception|Exit|Interrupt)\b", line) or not start and _ERROR.search(line):
            return line[:200]
    return next((line[:200] for line in lines if _ERROR.search(line)), lines[-1][:200] if lines else "")
