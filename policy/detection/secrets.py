"""Secrets: keys, tokens, credentials, and whatever is assigned to a name that says so."""

from __future__ import annotations

import base64
import binascii
import re
import string
from typing import Any

import re2

from policy.detection import validators
from policy.detection.finder import Check, Finder, Span, alone, before, finder, next_character

_WRAP = r"(?:\\?\r?\n[ \t>|]{0,8})?"
"""A token may be broken by the end of a line, with the quoting or the backslash that editors and mails add."""

_PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]{1,20}(?:_\d+)?\]|\x1e|\x1f")
_CONTINUED = re.compile(r"\\?\r?\n[ \t>|]{0,8}([A-Za-z0-9_+/=-]{8,})(?![\w.@-])")


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
        if before(text, start).isalnum() or not validators.random_looking(value, least=least, bits=bits):
            return None
        return start, _continued(text, end)

    return check


_HEXADECIMAL = re.compile(r"(?i)[0-9a-f]+$")


def _aws_key(text: str, match: Any) -> Span | None:
    """Check an id of a key, in capitals or made small as a whole: a hash or a piece of base64 may begin like one."""
    value = _compact(text[slice(*match.span(1))])
    if _HEXADECIMAL.match(value) or not (value.isupper() or value.islower()):
        return None
    return _token(16)(text, match)


def _foreign(text: str, match: Any) -> Span | None:
    """Check a token of a maker that nobody listed: a short word, then capitals, small letters and digits in disorder.

    Hashes have no such mixture, identifiers no such length between two separators, and file names few digits.
    """
    start, end = match.span(1)
    body = max(re.split(r"[_-]", text[start:end]), key=len)
    mixed = any(c.isupper() for c in body) and any(c.islower() for c in body) and sum(c.isdigit() for c in body) > 1
    generated = validators.random_looking(text[start:end], least=32, bits=4.2) and len(body) >= _LONG_SEGMENT
    return (start, end) if mixed and generated and alone(text, start, end, "/") else None


_LONG_SEGMENT = 16
"""Characters of the longest part of a token of an unknown maker."""

_SEGMENT = 12
"""Characters that one part of a hyphenated key has at least."""


def _segmented(text: str, match: Any) -> Span | None:
    """Check an sk- key: one of its segments is long, which no hyphenated name has."""
    start, end = match.span(1)
    value = _compact(text[start:end])
    longest = max(re.split(r"[-_]", value), key=len)
    generated = validators.random_looking(value, least=20, bits=3.2) and len(longest) >= _SEGMENT
    if before(text, start).isalnum() or not generated:
        return None
    return start, _continued(text, end)


_KEY_SIZE = 20_000
"""Characters behind its first line in which a key ends."""

# The next beginning stops the search for an end, so that many beginnings without one cost no more than one of them.
_KEY_EDGE = re2.compile(
    rb"(?i)(-----END[A-Z0-9 ]{0,40}-----|Private-MAC:[^\n]*)|-----BEGIN[A-Z0-9 ]{0,40}PRIVATE|PuTTY-User-Key-File-\d"
)
_KEY_BODY = re.compile(r"(?:[\s\\nr]|[A-Za-z0-9+/=]{16,}|[A-Za-z-]+: [^\n]*\n)*")
_NOWHERE = (-1, -1)


def _private_key(text: str, match: Any) -> Span:
    """Take the whole block; where its end is missing, all that still looks like its body."""
    start, end = match.span()
    edge = _KEY_EDGE.search(match.string, end, end + _KEY_SIZE)
    if edge is not None and edge.span(1) != _NOWHERE:
        return start, edge.end()
    body = _KEY_BODY.match(text, end, end + _KEY_SIZE)
    return start, max(end, body.end()) if body else end


def _jwt(text: str, match: Any) -> Span | None:
    start, end = match.span(1)
    value = _compact(text[start:end])
    if not alone(text, start, end, "_-") or not validators.jwt(value):
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
    value = text[start:end]
    return None if _dummy(value) or _PORT.match(value) else (start, end)


_PORT = re.compile(r"\d{1,5}[?#]")


def _option(text: str, match: Any) -> Span | None:
    """Check what a command's option gives as a password."""
    start, end = next(span for group in (1, 2, 3) if (span := match.span(group)) != _NOWHERE)
    return None if _dummy(text[start:end]) else (start, end)


def _signature(text: str, match: Any) -> Span | None:
    """Check the signature of a link, which lets anybody who has the link in."""
    start, end = match.span(1)
    return (start, end) if validators.random_looking(text[start:end], least=16) else None


_DUMMY = re.compile(
    r"(?i)(?:<|\$\{?\w*\}?$|\$\{|\{\{?\s*[\w.]*\s*\}\}?$|%[({s]|\*{2,}|\.{3}|x{4,}|your|my[_-]|redacted|example"
    r"|process\.env|os\.|env[.(\[]|getenv|secrets?\."
    r"|vault|none\b|null\b|nil\b|true\b|false\b|undefined|required|optional|hidden|string\b|str\b|bytes\b|password\W*$|"
    r"pass\W*$|passwd\W*$|secret\W*$|token\W*$|user\W*$)"
)
_CODE = re.compile(r"[A-Za-z_][A-Za-z_]*(?:(?:\.[A-Za-z_]+)+\(?.*|[(\[].*)$")


_DISTINCT = 3
"""Different characters below which a value is a filler, such as `xxxx` or `-*-*`."""


def _dummy(value: str) -> bool:
    """Say whether a value stands for a secret instead of being one."""
    return bool(_DUMMY.match(value) or _PLACEHOLDER.match(value)) or len(set(value)) < _DISTINCT


_STRONG = (
    r"passw(?:or)?d|passphrase|passcode|pwd|contrasena|mot de passe|passwor[dt]|kennwort|senha|parola|wachtwoord"
    r"|api[ _-]?key|access[ _-]?key|private[ _-]?key|secret|token|credentials?|account[ _-]?key|auth[ _-]?key"
    r"|signing[ _-]?key"
    r"|encryption[ _-]?key"
)
_SHORT = r"\bpass\b|\bpw\b"
"""Words that are a password's name only where a value is assigned to them."""

_IN_QUOTES = r"\"((?:\\\\|\\\"|[^\"\r\n]){4,200})\"|'((?:\\\\|\\'|[^'\r\n]){4,200})'|`([^`\r\n]{4,200})`"
_VALUE = r"(?:" + _IN_QUOTES + r"|([^\s\"'`<>]{4,200}))"

_ASSIGNMENT = (
    r"(?i)(" + _STRONG + "|" + _SHORT + r")s?[a-z0-9_-]{0,24}(?:[\"'`*]{1,2}\]?)?"
    r"(?:\s(?:for|to|of|on)\s[a-z0-9 '._-]{1,40}?)?"
    r"(\s{0,3}(?:=>|->|:=|={1,3}|:|>|\sis:?\s|\swas:?\s|\sist:?\s|\slautet:?\s|'s\s|\ses:?\s|\sest:?\s"
    r"|\||</t[dh]>\s{0,8}<td[^<>]{0,40}>)\s{0,3}[*@]{0,2}|\s{0,2}[:=][ \t]{0,3}\r?\n[ \t]{0,32})" + _VALUE
)
_FLAG = (
    r"(?i)--[a-z0-9-]{0,24}(token|key|secret|passw(?:or)?d|pass|pwd)( {1,2})"
    r"(?:" + _IN_QUOTES + r"|([^\s\"'`<>-][^\s\"'`<>]{3,200}))"
)
"""An option of a command, `--token ...`."""

_QUOTED = r"(?i)(" + _STRONG + r")s?[a-z0-9_-]{0,24}(\s{1,2})(?:" + _IN_QUOTES + r")"
"""The form without a delimiter, `private_key "..."`; a quote directly behind the name is the end of a quoted name."""

_NAMED = (
    r"(?i)(" + _STRONG + r")s?[a-z0-9_.-]{0,24}[\"']{0,2}[\s,;]{1,24}"
    r"(?:[a-z-]{1,16}=[\"'][^\"'<>]{0,40}[\"']\s{1,8}){0,3}"
    r"[\"']{0,2}value[\"']{0,2}(\s{0,3}[:=]\s{0,3})" + _VALUE
)
"""Name and value as two members or attributes, `{"name": "DB_PASSWORD", "value": "..."}`."""

_PASSWORDS = re.compile(r"(?i)pass|\bpw$|pwd|contrasena|kennwort|senha|parola|wachtwoord")


_SYMBOLS = 4
"""Different symbols that make a value without digits look generated."""


_ORDINARY = frozenset("-_./,: " + string.ascii_letters + string.digits)
_NEXT_PARAMETER = re.compile(r"[;&](?=\w+=)")
_VALUES = (3, 4, 5, 6)
"""The groups of `_ASSIGNMENT` that hold a value, one for each kind of quote."""

_UNQUOTED = 6
"""The one of them without quotes."""


def _assignment(text: str, match: Any) -> Span | None:
    word, delimiter = match.group(1).decode(), match.group(2).decode()
    which, (start, end) = next((group, span) for group in _VALUES if (span := match.span(group)) != _NOWHERE)
    value = _PLACEHOLDER.split(text[start:end], maxsplit=1)[0]
    if delimiter.strip() == ">" and text[end : end + 2] != "</":
        return None  # a comparison, not an element
    if word.lower() in ("pass", "pw") and (value.isdigit() or delimiter.strip()[-1:] not in (":", "=", ">")):
        return None  # how many passed, or who passes what
    if which == _UNQUOTED and not _stands_apart(value, delimiter):
        return None
    if which == _UNQUOTED:
        value = _NEXT_PARAMETER.split(value, maxsplit=1)[0].rstrip(".,;:)]}")
    if not value or _dummy(value) or _PLACEHOLDER.match(value):
        return None
    found = start, start + len(value)
    if which == _UNQUOTED and _CODE.match(value):
        return None
    if _PASSWORDS.search(word):
        return found if _password(value, quoted=which != _UNQUOTED, assigned="=" in delimiter) else None
    least = 8 if word.lower() == "secret" else 12
    symbols = set(value).difference(_ORDINARY)
    generated = validators.random_looking(value, least=least, bits=2.7) or (
        len(value) >= least and len(symbols) >= _SYMBOLS
    )
    return (start, _continued(text, found[1])) if generated and " " not in value else None


def _stands_apart(value: str, delimiter: str) -> bool:
    """Say whether an unquoted value in the next cell or on the next line is more than a word that happens to follow."""
    if "|" not in delimiter and "\n" not in delimiter and "</" not in delimiter:
        return True
    return validators.random_looking(value, least=_WORD_LENGTH, bits=2.0) and value[-1:] != ":"


_WORD_LENGTH = 6
"""Characters below which a value is taken for a word of the sentence, unless it is all digits."""


def _password(value: str, *, quoted: bool, assigned: bool) -> bool:
    """Say whether a value is a password: a word of prose is none, unless it is quoted or assigned."""
    if value.isdigit():
        return True  # a passcode
    mixed = any(c.isalpha() for c in value) and any(not c.isalpha() and c not in "-'/,._" for c in value)
    plain = (quoted or assigned) and " " not in value
    return len(value) >= _WORD_LENGTH and (mixed or plain)


def _prefixed(kind: str, prefix: str, body: str, size: int, check: Check | None = None, trigger: str = "") -> Finder:
    """Describe a token by its prefix and by the least number of characters after it, broken lines allowed."""
    span = f"((?:{prefix})(?:{_WRAP}{body}){{{size}}}{body}*)"
    return finder(kind, trigger or f"(?:{prefix}){body}", span, check or _token(size))


_WORD = "[A-Za-z0-9_-]"

_AWS = "(?i:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)"
"""How ids of keys, roles and users begin."""

_MAKERS = (
    "AGE-SECRET-KEY-1|NRAK-|PMAK-|atlasv1[.]|do[opr]_v1_|dapi[0-9a-f]|dckr_pat_|dp[.]pt[.]|figd_|fly?o1_|gl(?:c|sa)_|hv[sbr][.]"
    "|lin_api_|ntn_|pul-|rdme_|sbp_|sntry[su]_|shp(?:at|ca|pa|ss)_|shippo_|sq0(?:atp|csp)-|tskey-|xkeysib-|r8_|EAA[A-Z]"
)
"""How the tokens of more makers begin, by their documentation."""

SECRETS: tuple[Finder, ...] = (
    finder(
        "private_key",
        r"(?i)-----BEGIN[A-Z0-9 ]{0,40}PRIVATE|PuTTY-User-Key-File-",
        r"(?i)-----BEGIN[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d",
        _private_key,
    ),
    finder(
        "jwt",
        r"eyJ[A-Za-z0-9_-]",
        rf"(eyJ(?:{_WRAP}{_WORD})+\.(?:{_WRAP}{_WORD})+\.(?:{_WRAP}{_WORD}){{16}}{_WORD}*)",
        _jwt,
    ),
    _prefixed("aws_key", _AWS, "[A-Za-z0-9]", 16, _aws_key, trigger=f"{_AWS}[A-Za-z0-9]{{3}}"),
    _prefixed("github_token", "(?i:gh[pousr]_)", "[A-Za-z0-9]", 30),
    _prefixed("github_token", "(?i:github_pat_)", "[A-Za-z0-9_]", 22),
    # Not within a word, where the check would refuse it: "task-7" and "desk-3" are in every other text.
    _prefixed(
        "openai_key", "(?i:sk-)", _WORD, 20, _segmented, trigger=r"(?:^|[^A-Za-z0-9])(?i:sk-)(?:[A-Za-z0-9_\-\\\r\n])"
    ),
    _prefixed("google_key", "(?i:AIza)", _WORD, 35),
    _prefixed("google_key", r"ya29\.|GOCSPX-", _WORD, 20),
    _prefixed("slack_token", "(?i:xox[abeoprs]-|xapp-)", _WORD, 20, _token(16, 2.5)),
    finder(
        "slack_token",
        "(?i)hooks\\.slack\\.com/services/",
        r"(?i)(hooks\.slack\.com/services/[a-z0-9]{8,}/[a-z0-9]{8,}/[a-z0-9]{16,})",
        _token(24),
    ),
    _prefixed("vendor_token", "(?i:gl(?:pat|rt|dt|ptt|soat|ft|agent)-|[sr]k_live_|[sr]k_test_|whsec_)", _WORD, 16),
    _prefixed("vendor_token", _MAKERS, _WORD, 20, trigger=f"(?:{_MAKERS}){_WORD}{{4}}"),
    _prefixed("vendor_token", r"\bSK|\bkey-", "[0-9a-f]", 32, trigger=r"(?:\bSK|\bkey-)[0-9a-f]{6}"),
    finder(
        "vendor_token",
        r"[A-Za-z0-9][_-](?:[A-Za-z0-9]+[_-])?[A-Za-z0-9]{16}",
        r"((?:[A-Za-z0-9]{1,15}[_-]){1,3}[A-Za-z0-9_-]{32,200})",
        _foreign,
    ),
    finder(
        "vendor_token",
        r"\.[A-Za-z0-9_-]{6}\.",
        r"([MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40})",
        _token(57),
    ),
    _prefixed("vendor_token", "(?i:npm_|hf_)", "[A-Za-z0-9]", 30),
    _prefixed("vendor_token", "pypi-AgE", _WORD, 50),
    finder("vendor_token", r"SG\.[A-Za-z0-9_-]{4}", r"(SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64})", _token(40)),
    finder("vendor_token", r"\d:AA[A-Za-z0-9_-]", r"(\d{8,10}:AA[A-Za-z0-9_-]{32,35})", _token(40)),
    finder(
        "authorization",
        r"(?i)bearer[\s:]",
        rf"(?i)bearer[\s:]{{1,3}}((?:{_WRAP}[A-Za-z0-9._~+/=-]){{16}}[A-Za-z0-9._~+/=-]*)",
        _bearer,
    ),
    finder(
        "authorization",
        r"(?i)authorization",
        r"(?i)authorization[\"']?\s{0,2}[:=]\s{0,2}[\"']?(?:[a-z]{2,16}\s{1,2})?([A-Za-z0-9._~+/=-]{16,})",
        _bearer,
    ),
    finder(
        "url_password",
        r"(?i)curl\s",
        r"(?i)curl\s[^\r\n]{0,200}?(?:-u|--user)[ =]['\"]?[^\s:'\"]{1,64}:([^\s'\"]{3,128})",
        _url_password,
    ),
    finder("authorization", r"(?i)basic\s", r"(?i)basic\s{1,3}([A-Za-z0-9+/]{8,400}={0,2})", _basic),
    finder(
        "url_password",
        r"://[^\s/:?#]{0,128}:[^\s/]{2}",
        # To the last `@` before a `/`, `?`, `#` or blank; else to the first one, for passwords with `?` or `#` in them.
        r"://[^\s/:?#]{0,128}:([^\s/?#]{3,128}|[^\s/@]{3,128})@[A-Za-z0-9\[]",
        _url_password,
    ),
    finder(
        "assignment", r"(?i)--[a-z0-9-]{0,24}(?:token|key|secret|pass|pwd)", _FLAG, _assignment, resume=next_character
    ),
    finder(
        "assignment",
        r"(?i)\bvalue[\"']{0,2}\s{0,3}[:=]",
        _NAMED,
        _assignment,
        resume=next_character,
    ),
    finder(
        "assignment",
        r"(?i:\bmysql|\bmariadb|\bsshpass\s|\bredis-cli\s|\bdocker\slogin\s)",
        r"(?:(?i:\bmysql|\bmariadb)[a-z-]{0,12}\s(?:[^\r\n|;]{0,200}?\s)?-p"
        r"|(?i:\bsshpass\s)(?:[^\r\n|;]{0,40}?\s)?-p\s?|\bredis-cli\s(?:[^\r\n|;]{0,200}?\s)?-a\s"
        r"|\bdocker\slogin\s(?:[^\r\n|;]{0,200}?\s)?-p\s)"
        r"(?:\"([^\"\r\n]{4,128})\"|'([^'\r\n]{4,128})'|([^\s\"'|;&]{4,128}))",
        _option,
    ),
    finder(
        "url_password",
        r"(?i)[?&;](?:sig|signature|x-(?:amz|goog)-signature)=[A-Za-z0-9%+/_-]{8}",
        r"(?i)[?&;](?:sig|signature|x-(?:amz|goog)-signature)=([A-Za-z0-9%+/=_-]{16,})",
        _signature,
    ),
    finder("assignment", "(?i)" + _STRONG + r"|\bp(?:ass|w)\s?[:=]", _ASSIGNMENT, _assignment, resume=next_character),
    finder("assignment", "(?i)" + _STRONG, _QUOTED, _assignment, resume=next_character),
)
"""The finders of this module; several may share a kind."""
