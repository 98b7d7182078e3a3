# ruff: noqa: PLR2004 - how many digits an identifier has is a fact of it, best read where it is checked
"""Checks that tell a real identifier from a string of the same shape; pure functions over cleaned text."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
from collections import Counter
from functools import lru_cache

import orjson

_IBAN_LENGTHS = {
    pair[:2]: int(pair[2:])
    for pair in str.split(
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
        "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 "
        "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 "
        "NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
        "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
    )
}
_PLAIN = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(b"0123456789", bytes(sum(divmod(2 * digit, 10)) for digit in range(10)))
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_NIE_FIRST = {"X": "0", "Y": "1", "Z": "2"}


def luhn(digits: str) -> bool:
    """Check the Luhn sum (cards, IMEI); `digits` holds ASCII digits only."""
    data = digits.encode()
    return (sum(data[::-2].translate(_PLAIN)) + sum(data[-2::-2].translate(_DOUBLED))) % 10 == 0


def card(digits: str) -> bool:
    """Check a payment card number: a known issuer range, that issuer's length, and the Luhn sum."""
    return len(digits) in card_lengths(digits[:4]) and luhn(digits) and len(set(digits)) > 1


@lru_cache(maxsize=12_000)
def card_lengths(digits: str) -> tuple[int, ...]:
    """Return the lengths that the issuer of numbers with these first digits uses (none for an unknown issuer)."""
    two, three, four = int(digits[:2] or 0), int(digits[:3] or 0), int(digits[:4] or 0)
    if digits.startswith("4"):
        return 13, 16, 19  # Visa
    if two in range(51, 56) or four in range(2221, 2721):
        return (16,)  # Mastercard
    if two in (34, 37):
        return (15,)  # American Express
    if two in (36, 38, 39) or three in range(300, 306):
        return 14, 16  # Diners Club
    if four in range(3528, 3590):
        return 16, 17, 18, 19  # JCB
    if four == 6011 or two in (62, 65) or three in range(644, 650):
        return 16, 17, 18, 19  # Discover, UnionPay
    if four in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763):
        return 13, 14, 15, 16, 17, 18, 19  # Maestro
    if four in range(2200, 2205):
        return 16, 17, 18, 19  # Mir
    return ()


def iban_length(country: str) -> int:
    """Give the number of characters of a country's IBAN; 0 where the country has none."""
    return _IBAN_LENGTHS.get(country.upper(), 0)


def iban(compact: str) -> bool:
    """Check an IBAN without separators: its country's length and the ISO 7064 mod-97 check digits."""
    value = compact.upper()
    if len(value) != iban_length(value[:2]) or not value.isalnum() or not value.isascii():
        return False
    rearranged = value[4:] + value[:4]
    return int("".join(str(int(character, 36)) for character in rearranged)) % 97 == 1


def us_ssn(digits: str) -> bool:
    """Check a US social security number against the ranges that are never issued."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    never = area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000"
    return len(digits) == 9 and not never


def nhs_number(digits: str) -> bool:
    """Check a UK National Health Service number: ten digits, the last one a mod-11 check digit."""
    if len(digits) != 10 or len(set(digits)) == 1:
        return False
    check = 11 - sum(int(digit) * (10 - index) for index, digit in enumerate(digits[:9])) % 11
    return check % 11 == int(digits[9]) if check != 10 else False


def spanish_id(value: str) -> bool:
    """Check a Spanish DNI (8 digits and a letter) or NIE (X, Y or Z, 7 digits and a letter), without separators."""
    value = value.upper()
    digits = _NIE_FIRST.get(value[:1], value[:1]) + value[1:-1]
    return len(value) == 9 and digits.isdecimal() and value[-1] == _DNI_LETTERS[int(digits) % 23]


def ip_address(value: str) -> bool:
    """Say whether this is an address that can point at somebody: valid, and not loopback, unspecified or a mask."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast or value.startswith("255."))


def jwt(value: str) -> bool:
    """Check the shape of a JSON Web Token: three base64url parts, of which the first is a JSON object with `alg`."""
    parts = value.split(".")
    if len(parts) != 3:
        return False
    try:
        header = orjson.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(header, dict) and "alg" in header


def entropy(value: str) -> float:
    """Give the Shannon entropy of the characters, in bits for each character."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values()) if size else 0.0


_DIGIT = re.compile(r"[0-9]")
_LETTER = re.compile(r"[A-Za-z]")


def random_looking(value: str, *, least: int, bits: float = 3.0) -> bool:
    """Say whether an ASCII text looks generated: long enough, letters and digits both, and enough entropy."""
    return (
        len(value) >= least
        and _DIGIT.search(value) is not None
        and _LETTER.search(value) is not None
        and entropy(value) >= bits
    )
