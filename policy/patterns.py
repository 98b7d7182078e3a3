"""Identifiers and secrets that are recognised by their letters: addresses, accounts, keys, tokens, assignments.

Each finder has two expressions. The *trigger* joins the prefilter and is kept so simple that the combined automaton stays
small; the *span* runs only where its trigger hit, and its check decides. All of them are RE2 (linear time, whatever the
text), over folded ASCII bytes (`policy.folding`), so that byte offsets are character offsets.

Look-around does not exist in RE2, so that what stands before and after a span is checked here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import re2

from policy import validators

Span = tuple[int, int]
Check = Callable[[str, Any], Span | None]

_WRAP = r"(?:\\?\r?\n[ \t>|]{0,8})?"
"""A token may be broken by the end of a line, with the quoting or the backslash that editors and mails add."""

_PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]{1,20}(?:_\d+)?\]|\x1e|\x1f")
_CONTINUED = re.compile(r"\\?\r?\n[ \t>|]{0,8}([A-Za-z0-9_+/=-]{8,})(?![\w.@-])")


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds one kind of thing."""

    kind: str
    """Its name in `policy.kinds.KINDS`."""

    trigger: bytes
    """What the prefilter looks for (RE2 over ASCII bytes)."""

    span: Any
    """The compiled expression of the span; group 1 is the finding where there is a group."""

    check: Check
    """Gives the finding's exact span, or None where the candidate is none."""

    overlapping: bool = False
    """True where a rejected candidate may hide another one that begins inside it; only for bounded expressions."""

    def find(self, text: str, data: bytes) -> Iterator[Span]:
        """Give the spans in a text; `data` is `text` in bytes, the same offsets."""
        position = 0
        while (match := self.span.search(data, position)) is not None:
            found = self.check(text, match)
            if found is not None:
                yield found
                position = max(found[1], match.start() + 1)
            else:
                position = match.start() + 1 if self.overlapping else max(match.end(), match.start() + 1)


def _before(text: str, start: int, size: int = 1) -> str:
    return text[max(0, start - size) : start]


def _alone(text: str, start: int, end: int, also: str = "") -> bool:
    """Say whether neither neighbour is a letter, a digit or one of `also`."""
    left, right = _before(text, start), text[end : end + 1]
    return not (left.isalnum() or right.isalnum() or (left and left in also) or (right and right in also))


# --- addresses -------------------------------------------------------------------------------------------------------

_FILES = frozenset(
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "mjs", "ts", "jsx", "tsx", "map", "json", "yml", "yaml", "xml", "html", "htm", "txt", "md", "pdf", "zip", "gz", "exe", "dll", "mp3", "mp4", "local1", "woff", "ttf", "scss", "less"]
)
_AT = r"(?:@|%40|&#64;|&#x40;|&commat;|\\u0040)"
_EMAIL = (
    r"(?i)((?:[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}|\"[^\"\r\n]{1,62}\")"
    r"(?:" + _AT + r"(?:\r?\n[ \t>|]{0,8})?| {1,2}@ {1,2})"
    r"(?:(?:[a-z0-9-]{1,63}(?: ?\. ?|\.\r?\n[ \t]{0,8}|\[\.\]|\(\.\))){1,8}[a-z][a-z0-9-]{0,61}[a-z]|\[[0-9a-f.:]{7,45}\]))"
)
_SPOKEN = (
    r"(?i)([a-z0-9][a-z0-9._+-]{0,63}(?:\s{1,2}dot\s{1,2}[a-z0-9_+-]{1,30}){0,3}"
    r"\s{0,2}(?:[\[({<]\s?(?:at|@)\s?[\])}>]|\s(?:at|@)\s)\s{0,2}"
    r"[a-z0-9-]{1,63}(?:\s{0,2}(?:[\[({<]\s?(?:dot|\.)\s?[\])}>]|\sdot\s|\.)\s{0,2}[a-z0-9-]{2,63}){1,4})"
)
_TOP = frozenset(
    ["com", "net", "org", "edu", "gov", "mil", "int", "info", "biz", "name", "pro", "mobi", "io", "ai", "app", "dev", "co", "me", "tv", "cloud", "online", "site", "tech", "xyz", "eu", "uk", "us", "ca", "au", "nz", "de", "fr", "es", "it", "pt", "nl", "be", "ch", "at", "se", "no", "dk", "fi", "is", "ie", "pl", "cz", "sk", "hu", "ro", "bg", "gr", "tr", "ru", "ua", "by", "lt", "lv", "ee", "hr", "si", "rs", "in", "pk", "bd", "lk", "cn", "hk", "tw", "jp", "kr", "sg", "my", "th", "vn", "ph", "id", "br", "ar", "cl", "mx", "pe", "za", "ng", "ke", "eg", "ma", "il", "ae", "sa", "ir", "example", "test", "invalid", "localhost", "local", "internal"]
)
_ARTICLES = frozenset(["the", "a", "an", "this", "that", "these", "those", "my", "your", "our", "his", "her", "their", "its", "every", "each", "some", "any", "no"])


def _email(text: str, match: Any) -> Span | None:
    start, end = match.span(1)
    found = text[start:end]
    local = re.split(r"(?i)@|%40|&#64;|&#x40;|&commat;|\\u0040", found, maxsplit=1)[0].strip()
    top = re.split(r"[.\]\)\s]+", found)[-1].lower()
    trimmed = local.lstrip("!#$%&'*/=?^`{|}~.-")
    if not trimmed or local.endswith(".") or top in _FILES:
        return None
    if local.lower().endswith("git") and text[end : end + 1] == ":":
        return None  # git@host:owner/name names a repository
    spaced = re.search(r" @ | \.|\. ", found) is not None
    if spaced and top not in _TOP:
        return None  # "Sat. lunch @ Nobu. Then home" is a sentence
    if re.search(r"\. ", found) and found[-1:].islower() != found[:1].islower() and found.split(". ")[-1][:1].isupper():
        return None
    return start + (len(local) - len(trimmed)), end


def _spoken_email(text: str, match: Any) -> Span | None:
    start, end = match.span(1)
    found = text[start:end]
    last = re.split(r"[^a-z0-9-]+", found.lower().rstrip("])}>"))[-1]
    domain = re.split(r"(?i)at\b|@", found, maxsplit=1)[-1].strip(" \r\n\t()[]{}<>").split(" ")[0].lower()
    return (start, end) if last in _TOP and domain not in _ARTICLES and _alone(text, start, end) else None


_VERSIONED = re.compile(
    r"(?i)(?:\bv|version|\bver\.?|\brev\.?|release|build|firmware|driver|section|sec\.|chapter|clause|article|§|oid|==|[<>~]=|[\^~])"
    r"[\s:#(]{0,3}(?:\d+(?:\.\d+){1,4}(?:\s?(?:to|and|or|through|->|-|,)\s?))?$"
)


def _ipv4(text: str, match: Any) -> Span | None:
    start, end = match.span()
    if not _alone(text, start, end, "_") or re.match(r"(?:\.\d|-[A-Za-z])", text[end : end + 2]):
        return None
    if _before(text, start) == "." or _VERSIONED.search(_before(text, start, 40)):
        return None
    plain = re.sub(r"[\[\](){}]", "", match.group().decode())
    return (start, end) if validators.ip_address(plain) else None


_UNICAST = re.compile(r"(?i)(?:[23][0-9a-f]{3}|fe80|f[cd][0-9a-f]{2})::")


def _ipv6(text: str, match: Any) -> Span | None:
    start, end = match.span()
    value = text[start:end].rstrip(":") if not text[start:end].endswith("::") else text[start:end]
    end = start + len(value)
    if value.startswith(":") and not value.startswith("::"):
        value, start = value[1:], start + 1  # "peer:2001:db8::1"
    elif _before(text, start).isalnum() or _before(text, start) in ("_", ":"):
        return None
    if text[end : end + 1].isalnum():
        return None
    groups = [group for group in value.split(":") if group]
    certain = len(groups) > 2 or "." in value or _UNICAST.match(value)  # noqa: PLR2004 - "face::bead" is a name in C++
    if not certain or not any(c.isdigit() for c in value):
        return None
    return (start, end) if validators.ip_address(value) else None


# --- accounts --------------------------------------------------------------------------------------------------------

_GAP = r"[ \t\r\n._/-]{0,3}"
_IBAN_DIGITS = 10
"""The fewest digits that any country's account number has, check digits included."""


def _iban(text: str, match: Any) -> Span | None:
    start = match.start()
    size = validators.iban_length(text[start : start + 2])
    if not size or _before(text, start).isalnum():
        return None
    compact, end = "", start
    for end in range(start, match.end()):
        if text[end].isalnum():
            compact += text[end]
            if len(compact) == size:
                break
    end += 1
    if sum(character.isdigit() for character in compact) < _IBAN_DIGITS or text[end : end + 1].isalnum():
        return None  # "at 6 years it produces 50" has good check digits, once in a hundred such sentences
    return (start, end) if validators.iban(compact) else None


# --- secrets ---------------------------------------------------------------------------------------------------------


def _continued(text: str, end: int) -> int:
    """Widen a token over the lines on which it goes on; only a run of letters and digits both counts as its rest."""
    while (more := _CONTINUED.match(text, end)) is not None and validators.random_looking(
        more.group(1), least=8, bits=2.5
    ):
        end = more.end(1)
    return end


def _compact(value: str) -> str:
    return re.sub(r"\\?\r?\n[ \t>|]*", "", value)


def _token(least: int, bits: float = 2.8) -> Check:
    """Make a check for tokens with a fixed prefix: standing alone, long enough and random-looking."""

    def check(text: str, match: Any) -> Span | None:
        start, end = match.span(1)
        value = _compact(text[start:end])
        if _before(text, start).isalnum() or not validators.random_looking(value, least=least, bits=bits):
            return None
        return start, _continued(text, end)

    return check


def _segmented(text: str, match: Any) -> Span | None:
    """Check an sk- key: one of its segments is long, which no hyphenated name has."""
    start, end = match.span(1)
    value = _compact(text[start:end])
    longest = max(re.split(r"[-_]", value), key=len)
    if _before(text, start).isalnum() or not validators.random_looking(value, least=20, bits=3.2) or len(longest) < 12:  # noqa: PLR2004
        return None
    return start, _continued(text, end)


def _private_key(text: str, match: Any) -> Span:
    """Take the whole block; where its end is missing, all that still looks like its body."""
    start, end = match.span()
    closing = re.compile(r"-----END[A-Z0-9 ]{0,40}-----|Private-MAC:[^\n]*", re.IGNORECASE).search(
        text, end, end + 20_000
    )
    if closing is not None:
        return start, closing.end()
    body = re.compile(r"(?:[\s\\nr]|[A-Za-z0-9+/=]{16,}|[A-Za-z-]+: [^\n]*\n)*").match(text, end, end + 20_000)
    return start, max(end, body.end()) if body else end


def _jwt(text: str, match: Any) -> Span | None:
    start, end = match.span(1)
    value = _compact(text[start:end])
    if not _alone(text, start, end, "_-") or not validators.jwt(value):
        return None
    return start, _continued(text, end)


def _bearer(text: str, match: Any) -> Span | None:
    start, end = match.span(1)
    value = _compact(text[start:end]).rstrip(".,;")
    return (
        (start, _continued(text, start + len(text[start:end].rstrip(".,;"))))
        if validators.random_looking(value, least=16)
        else None
    )


def _basic(text: str, match: Any) -> Span | None:
    start, end = match.span(1)
    try:
        decoded = base64.b64decode(text[start:end] + "=" * (-(end - start) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return (start, end) if b":" in decoded and decoded.isascii() and decoded.decode().isprintable() else None


def _url_password(text: str, match: Any) -> Span | None:
    start, end = match.span(1)
    return None if _dummy(text[start:end]) else (start, end)


_DUMMY = re.compile(
    r"(?i)(?:<|\$\{?\w*\}?$|\$\{|\{\{?\s*[\w.]*\s*\}\}?$|%[({s]|\*{2,}|\.{3}|x{4,}|your|my[_-]|redacted|example|process\.env|os\.|env[.(\[]|getenv|secrets?\.|"
    r"vault|none\b|null\b|nil\b|true\b|false\b|undefined|required|optional|hidden|string\b|str\b|bytes\b|password\W*$|"
    r"pass\W*$|passwd\W*$|secret\W*$|token\W*$|user\W*$)"
)
_CODE = re.compile(r"[A-Za-z_][A-Za-z_]*(?:(?:\.[A-Za-z_]+)+\(?.*|[(\[].*)$")


def _dummy(value: str) -> bool:
    """Say whether a value stands for a secret instead of being one."""
    return _DUMMY.match(value) is not None or len(set(value)) <= 2 or _PLACEHOLDER.match(value) is not None  # noqa: PLR2004


_STRONG = (
    r"passw(?:or)?d|passphrase|passcode|pwd|contrasena|mot de passe|passwor[dt]|kennwort|senha|parola|wachtwoord"
    r"|api[ _-]?key|access[ _-]?key|private[ _-]?key|secret|token|credentials?|account[ _-]?key|auth[ _-]?key|signing[ _-]?key"
    r"|encryption[ _-]?key"
)
_ASSIGNMENT = (
    r"(?i)(" + _STRONG + r")s?[a-z0-9_-]{0,24}(?:[\"'`*]{1,2}\]?)?"
    r"(?:\s(?:for|to|of|on)\s[a-z0-9 '._-]{1,40}?)?"
    r"(\s{0,3}(?:=>|:=|={1,3}|:|\sis:?\s|\swas:?\s|\sist:?\s|\ses:?\s|\sest:?\s)\s{0,3}[*@]{0,2})"
    r"(?:\"([^\"\r\n]{4,200})\"|'([^'\r\n]{4,200})'|`([^`\r\n]{4,200})`|([^\s\"'`<>]{4,200}))"
)
_QUOTED = (
    r"(?i)(" + _STRONG + r")s?[a-z0-9_-]{0,24}(\s{0,2})"
    r"(?:\"([^\"\r\n]{4,200})\"|'([^'\r\n]{4,200})'|`([^`\r\n]{4,200})`)"
)
"""The form without a delimiter, `private_key "..."`."""

_PASSWORDS = re.compile(r"(?i)pass|pwd|contrasena|kennwort|senha|parola|wachtwoord")


_SYMBOLS = 4
"""Different symbols that make a value without digits look generated."""


def _assignment(text: str, match: Any) -> Span | None:
    word, delimiter = match.group(1).decode(), match.group(2).decode()
    which = next(group for group in (3, 4, 5, 6) if match.group(group) is not None)
    start, end = match.span(which)
    value = _PLACEHOLDER.split(text[start:end], maxsplit=1)[0]
    if which == 6:  # noqa: PLR2004 - the unquoted form: what follows a sentence's value is not part of it
        value = re.split(r"[;&](?=\w+=)|[,)\]}]+$", value)[0].rstrip(".,;:)]}")
    if not value or _dummy(value) or _PLACEHOLDER.match(value):
        return None
    found = start, start + len(value)
    if which == 6 and _CODE.match(value):  # noqa: PLR2004 - the same
        return None
    if _PASSWORDS.match(word):
        return found if _password(value, quoted=which != 6, assigned="=" in delimiter) else None  # noqa: PLR2004
    least = 8 if word.lower() == "secret" else 12
    symbols = {character for character in value if not character.isalnum() and character not in "-_./,: "}
    generated = validators.random_looking(value, least=least, bits=2.7) or (
        len(value) >= least and len(symbols) >= _SYMBOLS
    )
    return (start, _continued(text, found[1])) if generated and " " not in value else None


def _password(value: str, *, quoted: bool, assigned: bool) -> bool:
    """Say whether a value is a password: a word of prose is none, unless it is quoted or assigned."""
    if value.isdigit():
        return True  # a passcode
    mixed = any(c.isalpha() for c in value) and any(not c.isalpha() and c not in "-'/,._" for c in value)
    return len(value) >= 6 and (mixed or ((quoted or assigned) and " " not in value))  # noqa: PLR2004 - below, it is a word


# --- the table -------------------------------------------------------------------------------------------------------


def _finder(kind: str, trigger: str, span: str, check: Check, *, overlapping: bool = False) -> Finder:
    return Finder(kind, trigger.encode(), re2.compile(span.encode()), check, overlapping)


def _prefixed(kind: str, prefix: str, body: str, size: int, check: Check | None = None, trigger: str = "") -> Finder:
    """Describe a token by its prefix and by the least number of characters after it, broken lines allowed."""
    span = f"((?:{prefix})(?:{_WRAP}{body}){{{size}}}{body}*)"
    return _finder(kind, trigger or f"(?:{prefix}){body}", span, check or _token(size))


_WORD = "[A-Za-z0-9_-]"

FINDERS: tuple[Finder, ...] = (
    _finder("email", r"(?i)(?:[^\s]|\s)" + _AT + r"[\sa-z0-9\[]", _EMAIL, _email),
    _finder("email", r"(?i)[\s\[({<]dot[\s\])}>]|[\[({<] ?(?:at|@) ?[\])}>]", _SPOKEN, _spoken_email, overlapping=True),
    _finder(
        "ip_address",
        r"\d(?:\.|\[\.\]|\(\.\))\d{1,3}(?:\.|\[\.\]|\(\.\))\d{1,3}(?:\.|\[\.\]|\(\.\))\d",
        r"\d{1,3}(?:(?:\.|\[\.\]|\(\.\))\d{1,3}){3}",
        _ipv4,
        overlapping=True,
    ),
    _finder(
        "ip_address",
        r"(?i)[0-9a-f:]:[0-9a-f]{0,4}:[0-9a-f]",
        r"(?i)[0-9a-f]{0,4}:[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){1,7}(?:\.\d{1,3}){0,3}",
        _ipv6,
        overlapping=True,
    ),
    _finder(
        "iban",
        rf"(?i)[a-z]{{2}}{_GAP}\d{{2}}{_GAP}(?:[a-z]?\d{_GAP}\d{_GAP}\d|[a-z]{{4}}{_GAP}[a-z0-9]{{0,2}}\d)",
        rf"(?i)[a-z]{{2}}{_GAP}\d{{2}}(?:{_GAP}[a-z0-9]){{11,31}}",
        _iban,
        overlapping=True,
    ),
    _finder(
        "private_key",
        r"(?i)-----BEGIN[A-Z0-9 ]{0,40}PRIVATE|PuTTY-User-Key-File-",
        r"(?i)-----BEGIN[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d",
        _private_key,
    ),
    _finder(
        "jwt",
        r"eyJ[A-Za-z0-9_-]",
        rf"(eyJ(?:{_WRAP}{_WORD})+\.(?:{_WRAP}{_WORD})+\.(?:{_WRAP}{_WORD}){{16}}{_WORD}*)",
        _jwt,
    ),
    _prefixed(
        "aws_key",
        "(?i:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)",
        "[A-Za-z0-9]",
        16,
        trigger="(?i:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Za-z0-9]{3}",
    ),
    _prefixed("github_token", "(?i:gh[pousr]_)", "[A-Za-z0-9]", 30),
    _prefixed("github_token", "(?i:github_pat_)", "[A-Za-z0-9_]", 22),
    _prefixed("openai_key", "(?i:sk-)", _WORD, 20, _segmented),
    _prefixed("google_key", "(?i:AIza)", _WORD, 35),
    _prefixed("google_key", r"ya29\.|GOCSPX-", _WORD, 20),
    _prefixed("slack_token", "(?i:xox[abeoprs]-|xapp-)", _WORD, 20, _token(16, 2.5)),
    _finder(
        "slack_token",
        "(?i)hooks\\.slack\\.com/services/",
        r"(?i)(hooks\.slack\.com/services/[a-z0-9]{8,}/[a-z0-9]{8,}/[a-z0-9]{16,})",
        _token(24),
    ),
    _prefixed("vendor_token", "(?i:glpat-|[sr]k_live_|[sr]k_test_|whsec_)", _WORD, 16),
    _prefixed("vendor_token", "(?i:npm_|hf_)", "[A-Za-z0-9]", 30),
    _prefixed("vendor_token", "pypi-AgE", _WORD, 50),
    _finder("vendor_token", r"SG\.[A-Za-z0-9_-]{4}", r"(SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64})", _token(40)),
    _finder("vendor_token", r"\d:AA[A-Za-z0-9_-]", r"(\d{8,10}:AA[A-Za-z0-9_-]{32,35})", _token(40)),
    _finder(
        "authorization",
        r"(?i)bearer[\s:]",
        rf"(?i)bearer[\s:]{{1,3}}((?:{_WRAP}[A-Za-z0-9._~+/=-]){{16}}[A-Za-z0-9._~+/=-]*)",
        _bearer,
    ),
    _finder("authorization", r"(?i)basic\s", r"(?i)basic\s{1,3}([A-Za-z0-9+/]{8,400}={0,2})", _basic),
    _finder(
        "url_password",
        r"://[^\s/@:]{0,64}:[^\s/@]{2}",
        r"://[^\s/@:]{0,64}:([^\s/@]{3,128})@[A-Za-z0-9\[]",
        _url_password,
    ),
    _finder("assignment", "(?i)" + _STRONG, _ASSIGNMENT, _assignment, overlapping=True),
    _finder("assignment", "(?i)" + _STRONG, _QUOTED, _assignment, overlapping=True),
)
"""Every finder that works by letters; several may share a kind."""
