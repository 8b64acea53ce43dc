"""Plain text, shortened: what a later step may need of prose, code, logs, listings and pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

_WHOLE = 300  # characters of a text that stays as it is
_HEAD = 120  # characters of the beginning, and of the last line, of a longer one
_NAMES = 240  # characters of names and written dates, or of what code defines
_SCAN = 20_000  # characters that are searched for names
_RUN_LIMIT = 300  # no identifier is longer
_UNBROKEN = re.compile(r"[!-~]{0,300}")
_ERROR = 200

_RUN = re.compile(
    r"https?://[^\s\"'<>()\[\]{}`|]+|[$€£¥₹]?\d{1,3}(?:,\d{3})+(?:\.\d+)?"
    r"|[^\s\"'<>(){}\[\],;`|=*“”‘’«»、。，：；（）「」【】]+"
)
_AFTER = ".,:;!?…-_#*~+&\\/"
_BEFORE = re.compile(r"(?:[^\w.~/#@+$€£¥₹-]|_|\.(?![./\w])|~(?!/)|[#@+-](?!\w))*")
_EXTENSION = re.compile(
    r"\.(?:pyi?|ipynb|[cm]?[jt]sx?|jsonl?|mdx?|rst|te?xt|csv|tsv|rs|go|[ch](?:pp|c|h)?|java|kts?|rb|php|swift"
    r"|scala|cs|lua|sql|ya?ml|toml|ini|cfg|conf|env|lock|sh|bat|ps1|html?|s?css|vue|svelte|xml|svg|pdf|docx?"
    r"|xlsx?|pptx?|png|jpe?g|gif|webp|mp[34]|wav|zip|t?gz|tar|log|db|proto|tf|gradle|diff|patch)\Z",
    re.IGNORECASE,
)
_COMPOUND = re.compile(r"[a-z]{2,}(?:[_-][a-z]{2,})+", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_AMOUNT = frozenset("$€£¥₹%")
_QUOTES = frozenset("\"'`")

_TIME = re.compile(r"(?:\d{4}-\d\d-\d\d[T_])?\d\d:\d\d:\d\d")
_TIMES = 4  # times of day that a text is good for: more are those of a log
_ALARM = re.compile(
    r"^.{0,100}\b(?:ERROR|FATAL|CRITICAL|FAIL(?:ED|URE)?|panic|[A-Za-z]{0,60}(?:Error|Exception):).{0,200}",
    re.MULTILINE,
)
_ALARMS = 3

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_BLANK_LINES = re.compile(r"\n\s*\n")
_PACKED = re.compile(r"(?:data:[^,\s]{0,100},)?([A-Za-z0-9+/=_-]{400})")
_CODE = "{};=("
_DIFF = re.compile(r"^@@ -\d", re.MULTILINE)
_CHANGED = ("diff ", "@@ ", "+", "-")
_LINES = 400  # characters of lines that stay whole
_DEFINITION = re.compile(r"\b(?:class|interface|struct|enum|trait|function|func|fn|def)\s{1,4}([^\W\d]\w{2,60})")
_NAME = re.compile(
    r"\b(?=[^\W_a-z])(?:(?:\d{1,2} )?(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)[a-z]{0,6}\.?"
    r" \d{1,2}(?:, \d{4})?\b|[^\W\d_a-z][\w’'-]{1,30}(?: [^\W\d_a-z][\w’'-]{1,30}){1,3})"
)
_MARKUP = re.compile(r"<(?:!doctype|html|head|body|div|table|svg|\?xml)\b", re.IGNORECASE)
_LINK = re.compile(r"""(?:href|src|action)=["']?([^\s"'<>]{1,300})""", re.IGNORECASE)

_FAILED = re.compile(r"\s*(?:<tool_use_error>\s*)?(?:error|fatal|exception)\b", re.IGNORECASE)
_EXIT = re.compile(r"^(?:Command exited with code|exit code:?) [1-9]\d*\s*$", re.MULTILINE | re.IGNORECASE)
_ERROR_LINE = re.compile(
    r"(?:^|[\s.(\[])(?:[A-Za-z_.]{0,60}(?:Error|Exception)\b|error|fatal|failed|not found|no such)\b", re.IGNORECASE
)
_RAISED = re.compile(r"[\w.]{0,200}(?:Error|Exception|Exit|Interrupt)\b")
_TRACEBACK = "Traceback (most recent"


def digest(
    text: str,
    known: Callable[[str], bool],
    budget: int,
    whole: int = _WHOLE,
    head: int = _HEAD,
    start: int = 0,
) -> str:
    """The text if it has at most `whole` characters; else its beginning and the identifiers of the rest that
    are not `known`, about `budget` characters. Of a result, longer than other texts, also its last line and
    names. start: where the beginning is taken from."""
    of_result = whole >= _WHOLE
    departure = _tidy(text[start:])
    text = _tidy(text) if start else departure
    if len(text) <= whole:
        return text
    if _is_binary(text):
        return f"binary data, {len(text)} characters"
    if _MARKUP.match(text):
        text = departure = _without_markup(text)
    if not of_result:
        opening = _opening(departure, head)
        rest = text if start else text[len(opening) :]
        found = _new(identifiers(rest, strict=True), opening, known, budget - len(opening))
        return " ".join([*(["…"] if start else []), opening, "…", *found])
    beginning = text[:_SCAN]
    is_code = sum(map(beginning.count, _CODE)) * 50 > len(beginning)
    if _DIFF.search(beginning):
        opening = _lines((line for line in text.split("\n") if line.startswith(_CHANGED)), _LINES)
    elif not is_code and _is_listing(beginning):
        opening = _lines(iter(text.split("\n")), _LINES)
    else:
        opening = _opening(text, head)
    tail = _last_line(text[len(opening) :])
    rest = text[len(opening) if text.startswith(opening) else 0 : len(text) - len(tail)]
    found = _new(identifiers(rest, strict=True), opening, known, budget - len(opening))
    if is_code:
        names: Iterable[str] = (match[1] for match in _DEFINITION.finditer(rest))
    else:
        names = (match[0] for match in _NAME.finditer(rest[:_SCAN]))
        found = _alarms(rest) + found
    found += _new(names, opening, known, _NAMES)
    if tail:
        found += ["…", tail] if found else [tail]
    return " ".join([opening, "…", *found])


def _is_listing(text: str) -> bool:
    """Whether most lines are short and hold a number or a path."""
    lines = text.split("\n")[:20]
    telling = sum(len(line) <= 160 and ("/" in line or any(map(str.isdigit, line))) for line in lines)
    return len(lines) > 3 and telling * 3 > len(lines) * 2


def _tidy(text: str) -> str:
    """Without blank lines and the colours of a terminal."""
    return _BLANK_LINES.sub("\n", _ANSI.sub("", text) if "\x1b" in text else text).strip()


def _opening(text: str, length: int) -> str:
    cut = text.find("\n", length // 2, length)
    if cut < 0:
        cut = text.rfind(" ", length // 2, length)
    if cut < 0:
        if len(text) <= length:
            return text
        cut = length
        while cut and "!" <= text[cut - 1] <= "~":
            cut -= 1
        cut = cut or _UNBROKEN.match(text, length).end()  # type: ignore[union-attr]
    return text[:cut].rstrip()


def _lines(lines: Iterator[str], budget: int) -> str:
    """The first lines, whole: in listings, logs and diffs a value belongs to its line."""
    kept: list[str] = []
    for line in lines:
        budget -= len(line) + 1
        if budget < 0:
            kept += [] if kept else [line[:_HEAD]]
            break
        kept.append(line)
    return "\n".join(kept)


def identifiers(text: str, strict: bool = False) -> Iterator[str]:
    """What in a text can be referred to later, in order: ids, numbers of four digits and more, dates, amounts,
    paths, URLs, e-mail addresses, file names, compound names. strict: words with hyphens (`built-in`) only
    where they stand as a name or value: quoted, after a colon, behind a dash or a dot."""
    for match in _RUN.finditer(text):
        run = match[0]
        if run.isalpha() or len(run) > _RUN_LIMIT:
            continue
        run = run.rstrip(_AFTER)
        if run and not run[0].isalnum():
            run = _BEFORE.sub("", run, count=1)
        if not run or not _refers(run):
            continue
        if strict and "-" in run and run.replace("-", "").isalpha():
            start = match.start()
            stands_out = not text[start].isalnum() or text[start - 1 : start] in _QUOTES
            if not stands_out and text[start - 2 : start] != ": ":
                continue
        yield run


def _refers(run: str) -> bool:
    if _DIGIT.search(run):
        return len(run) >= 4 or "." in run or not _AMOUNT.isdisjoint(run)
    if "/" in run or "@" in run:
        return len(run) >= 4
    return bool(_EXTENSION.search(run[-8:])) or (len(run) >= 6 and bool(_COMPOUND.fullmatch(run)))


def _new(runs: Iterable[str], opening: str, known: Callable[[str], bool], budget: int) -> list[str]:
    found: dict[str, None] = {}
    times = 0
    for run in runs:
        if run not in found and run not in opening and not known(run):
            if _TIME.match(run):
                times += 1
                if times > _TIMES:
                    continue
            budget -= len(run) + 1
            if budget < 0:
                break
            found[run] = None
    return list(found)


def _alarms(text: str) -> list[str]:
    """Lines of a log or a test run that say what went wrong, each on a line of its own."""
    found = dict.fromkeys(match[0].strip()[:_ERROR] for match in islice(_ALARM.finditer(text), _ALARMS))
    return [f"\n{line}\n" for line in found]


def _last_line(text: str) -> str:
    """Where programs say how it went, from the beginning of a word; empty if it is but a bracket."""
    line, start = text.rfind("\n") + 1, len(text) - _HEAD
    if start > line:
        line = max(start, text.find(" ", start))
    last = text[line:].strip()
    return last if len(last) >= 12 else ""


def _is_binary(text: str) -> bool:
    """Base64, or bytes that were decoded as text."""
    packed = _PACKED.match(text)
    if packed and len(set(packed[1])) > 24:
        return True
    sample = text[:2000]
    odd = sum((character < " " and character not in "\t\r\n") or character == "\ufffd" for character in sample)
    return odd * 20 > len(sample)


def _without_markup(text: str) -> str:
    """The text and the links of a page."""
    lower = text.lower()
    kept: list[str] = []
    position = 0
    ends: dict[str, int] = {}  # where scripts, styles and comments end next: each is searched once
    while position < len(text):
        opening = text.find("<", position)
        if opening < 0:
            kept.append(text[position:])
            break
        kept += [text[position:opening], " "]
        hidden = next((name for name in ("script", "style", "!--") if lower.startswith(name, opening + 1)), "")
        end = opening
        if hidden:
            end = ends.get(hidden, -1)
            if end < opening:
                end = lower.find("-->" if hidden == "!--" else f"</{hidden}", opening)
                end = ends[hidden] = len(text) if end < 0 else end
        closing = text.find(">", end)
        position = len(text) if closing < 0 else closing + 1
        if not hidden:
            kept += [f"{link} " for link in _LINK.findall(text[opening:position])]
    return " ".join("".join(kept).split())


def error_line(text: str, failed: bool) -> str:
    """The first line that says what went wrong, at most 200 characters; empty if nothing did.

    failed: the result is marked as an error; others are if they begin like one, hold a Python traceback or
    say that a command ended with another code than 0."""
    if not (failed or _FAILED.match(text) or _TRACEBACK in text or _EXIT.search(text)):
        return ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    traceback = next((index for index, line in enumerate(lines) if line.startswith(_TRACEBACK)), None)
    found = None
    if traceback is not None:
        found = next((line for line in lines[traceback + 1 :] if _RAISED.match(line)), None)
    if found is None:
        found = next((line for line in lines if _ERROR_LINE.search(line)), lines[-1] if lines else "")
    return found[:_ERROR]
