"""Addresses and accounts: e-mail as written or spoken, IP addresses, bank accounts."""

from __future__ import annotations

import re
from typing import Any

from policy.detection import validators
from policy.detection.finder import Finder, Span, alone, before, finder, next_word

_FILES = frozenset(
    str.split(
        "png jpg jpeg gif svg webp ico css js mjs ts jsx tsx map json yml yaml xml html htm txt md pdf zip gz "
        "exe dll mp3 mp4 local1 woff ttf scss less"
    )
)
_AT = r"(?:@|%40|&#64;|&#x40;|&commat;|\\u0040)"
_EMAIL = (
    r"(?i)((?:[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}|\"[^\"\r\n]{1,62}\")"
    r"(?:" + _AT + r"(?:\r?\n[ \t>|]{0,8})?| {0,2}@ {1,2})"
    r"(?:(?:[a-z0-9-]{1,63}(?: ?\. ?|\.\r?\n[ \t]{0,8}|\r?\n[ \t]{0,8}\.|\[\.\]|\(\.\))){1,8}[a-z][a-z0-9-]{0,61}[a-z]"
    r"|\[[0-9a-f.:]{7,45}\]))"
)
_SPOKEN = (
    r"(?i)([a-z0-9][a-z0-9._+-]{0,63}(?:\s{1,2}dot\s{1,2}[a-z0-9_+-]{1,30}){0,3}"
    r"\s{0,2}(?:[\[({<]\s?(?:at|@)\s?[\])}>]|\s(?:at|@)\s)\s{0,2}"
    r"[a-z0-9-]{1,63}(?:\s{0,2}(?:[\[({<]\s?(?:dot|\.)\s?[\])}>]|\sdot\s|\.)\s{0,2}[a-z0-9-]{2,63}){1,4})"
)
_TOP = frozenset(
    str.split(
        "com net org edu gov mil int info biz name pro mobi io ai app dev co me tv cloud online site tech xyz "
        "eu uk us ca au nz de fr es it pt nl be ch at se no dk fi is ie pl cz sk hu ro bg gr tr ru ua by lt "
        "lv ee hr si rs in pk bd lk cn hk tw jp kr sg my th vn ph id br ar cl mx pe za ng ke eg ma il ae sa "
        "ir example test invalid localhost local internal"
    )
)
_ARTICLES = frozenset(str.split("the a an this that these those my your our his her their its every each some any no"))


_SIGN = re.compile("(?i)" + _AT)
_DOT = re.compile(r"[.:]")
_DOTS = re.compile(r"[.\]\)\s]+")
_SPACED_DOT = re.compile(r"\s+\.\s*|\.\s+")


def _email(text: str, match: Any) -> Span | None:
    """Give the address at a candidate; what follows a dot and a blank may be the next sentence, and then is no part."""
    start, end = match.span(1)
    while (found := _address(text, start, end)) is None:
        sign = _SIGN.search(text, start, end)
        blanks = [*_SPACED_DOT.finditer(text, sign.end(), end)] if sign else []
        if not blanks:
            return None
        end = blanks[-1].start()
    return found


def _address(text: str, start: int, end: int) -> Span | None:
    found = text[start:end]
    local, *rest = _SIGN.split(found, maxsplit=1)
    local, domain = local.strip(), "".join(rest).strip()
    top = _DOTS.split(found)[-1].lower()
    trimmed = local.lstrip("!#$%&'*/=?^`{|}~.-")
    if not trimmed or local.endswith(".") or top in _FILES or not _DOT.search(domain):
        return None
    if local.lower().endswith("git") and text[end : end + 1] == ":":
        return None  # git@host:owner/name names a repository
    spaced = "@ " in found or _SPACED_DOT.search(domain)
    if spaced and top not in _TOP:
        return None  # "Sat. lunch @ Nobu. Then home" is a sentence
    if ". " in found and found[-1:].islower() != found[:1].islower() and found.split(". ")[-1][:1].isupper():
        return None
    return start + (len(local) - len(trimmed)), end


def _spoken_email(text: str, match: Any) -> Span | None:
    start, end = match.span(1)
    found = text[start:end]
    last = re.split(r"[^a-z0-9-]+", found.lower().rstrip("])}>"))[-1]
    domain = re.split(r"(?i)at\b|@", found, maxsplit=1)[-1].strip(" \r\n\t()[]{}<>").split(" ")[0].lower()
    return (start, end) if last in _TOP and domain not in _ARTICLES and alone(text, start, end) else None


_VERSIONED = re.compile(
    r"(?i)(?:\bv|version|\bver\.?|\brev\.?|release|build|firmware|driver|section|sec\.|chapter|clause|article|oid"
    r"|==|[<>~]=|[\^~])"
    r"[\s:#(]{0,3}(?:\d+(?:\.\d+){1,4}(?:\s?(?:to|and|or|through|->|-|,)\s?))?$"
)


_MORE = re.compile(r"\.\d|-[A-Za-z]")
_BRACKETS = re.compile(r"[\[\](){}]")


def _ipv4(text: str, match: Any) -> Span | None:
    start, end = match.span()
    if before(text, start) == "." or _MORE.match(text, end) or not alone(text, start, end, "_"):
        return None
    if not validators.ip_address(_BRACKETS.sub("", text[start:end])) or _VERSIONED.search(before(text, start, 40)):
        return None
    return start, end


_UNICAST = re.compile(r"(?i)(?:[23][0-9a-f]{3}|fe80|f[cd][0-9a-f]{2})::")
_TWICE = re.compile(r"(?i)[0-9a-f:]*?::[0-9a-f:]*?(?=::)")
_DIGIT = re.compile(r"[0-9]")
_FEWEST_COLONS = 6
"""Colons of a whole address without `::`, whose end may be written as an IPv4 address."""

_IPV6_START = re.compile(r"(?=:)|(?<![0-9A-Za-z_:])")


def _next_ipv6(text: str, start: int) -> int:
    found = _IPV6_START.search(text, start + 1)
    return found.start() if found else len(text)


def _ipv6(text: str, match: Any) -> Span | None:
    start, end = match.span()
    value = text[start:end].rstrip(":") if not text[start:end].endswith("::") else text[start:end]
    end = start + len(value)
    if "::" not in value and value.count(":") < _FEWEST_COLONS:
        return None  # a time of day, most of all
    if value.startswith(":") and not value.startswith("::"):
        value, start = value[1:], start + 1  # "peer:2001:db8::1"
    elif (left := before(text, start)).isalnum() or left in ("_", ":"):
        return None
    if value.count("::") > 1:
        # Several addresses in a row: the first one ends before the second `::`, and the rest is looked at after it.
        first = _TWICE.match(value)
        if first is None or not _UNICAST.match(value):
            return None
        value, end = first.group(), start + first.end()
    if text[end : end + 1].isalnum():
        return None
    groups = [group for group in value.split(":") if group]
    certain = len(groups) > 2 or "." in value or _UNICAST.match(value)  # noqa: PLR2004 - "face::bead" is a name in C++
    if not certain or not _DIGIT.search(value):
        return None
    return (start, end) if validators.ip_address(value) else None


_GAP = r"[ \t\r\n._/-]{0,3}"
_IBAN_DIGITS = 10
"""The fewest digits that any country's account number has, check digits included."""


def _iban(text: str, match: Any) -> Span | None:
    start = match.start()
    size = validators.iban_length(text[start : start + 2])
    if not size or before(text, start).isalnum():
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


ADDRESSES: tuple[Finder, ...] = (
    finder("email", r"(?i)(?:[^\s]|\s)" + _AT + r"[\sa-z0-9\[]", _EMAIL, _email),
    finder("email", r"(?i)[\s\[({<]dot[\s\])}>]|[\[({<] ?(?:at|@) ?[\])}>]", _SPOKEN, _spoken_email, resume=next_word),
    finder(
        "ip_address",
        r"\d(?:\.|\[\.\]|\(\.\))\d{1,3}(?:\.|\[\.\]|\(\.\))\d{1,3}(?:\.|\[\.\]|\(\.\))\d",
        r"\d{1,3}(?:(?:\.|\[\.\]|\(\.\))\d{1,3}){3}",
        _ipv4,
        resume=next_word,
    ),
    finder(
        "ip_address",
        r"(?i)[0-9a-f:]:[0-9a-f]{0,4}:[0-9a-f]",
        r"(?i)[0-9a-f]{0,4}:[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){1,7}(?:\.\d{1,3}){0,3}",
        _ipv6,
        resume=_next_ipv6,
    ),
    finder(
        "iban",
        rf"(?i)[a-z]{{2}}{_GAP}\d{{2}}{_GAP}(?:[a-z]?\d{_GAP}\d{_GAP}\d|[a-z]{{4}}{_GAP}[a-z0-9]{{0,2}}\d)",
        rf"(?i)[a-z]{{2}}{_GAP}\d{{2}}(?:{_GAP}[a-z0-9]){{11,31}}",
        _iban,
        resume=next_word,
    ),
)
"""The finders of this module; several may share a kind."""
