"""Country calling codes and how many digits follow them (ITU E.164 national numbering plans)."""

from __future__ import annotations

_LENGTHS = {
    # Codes whose plan is regular enough for a tight bound; all others take the bounds that E.164 itself gives.
    "1": (10, 10), "7": (10, 10), "20": (8, 10), "27": (9, 9), "30": (10, 10), "31": (9, 9), "32": (8, 9),
    "33": (9, 9), "34": (9, 9), "36": (8, 9), "39": (6, 11), "40": (9, 9), "41": (9, 9), "43": (6, 13), "44": (9, 10),
    "45": (8, 8), "46": (7, 9), "47": (8, 8), "48": (9, 9), "49": (6, 12), "51": (8, 9), "52": (10, 11),
    "54": (10, 11), "55": (10, 11), "56": (9, 9), "57": (8, 10), "60": (8, 10), "61": (9, 9), "62": (8, 12),
    "63": (8, 10), "64": (8, 10), "65": (8, 8), "66": (8, 9), "81": (9, 10), "82": (8, 10), "84": (9, 10),
    "86": (10, 11), "90": (10, 10), "91": (10, 10), "92": (9, 10), "351": (9, 9), "352": (6, 11), "353": (7, 9),
    "354": (7, 9), "358": (6, 12), "380": (9, 9), "420": (9, 9), "421": (9, 9), "852": (8, 8), "886": (8, 9),
    "971": (8, 9), "972": (8, 9),
}  # fmt: skip
_TWO = frozenset(
    str.split(
        "20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 "
        "81 82 84 86 90 91 92 93 94 95 98"
    )
)
_THREE = frozenset(str.split("21 22 23 24 25 26 29 35 37 38 42 50 59 67 68 69 80 85 87 88 96 97 99"))
_IMPOSSIBLE = (1, 0)


def country_digits(digits: str) -> tuple[int, int]:
    """Give the least and the most digits, country code included, of a number that begins like this.

    The least is greater than the most where no country has such a code.
    """
    if digits[:1] in ("1", "7"):
        code = digits[:1]
    elif digits[:2] in _TWO:
        code = digits[:2]
    elif digits[:2] in _THREE and digits[2:]:
        code = digits[:3]
    else:
        return _IMPOSSIBLE
    least, most = _LENGTHS.get(code, (6, 12))
    return len(code) + least, len(code) + most
