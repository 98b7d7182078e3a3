"""Text from outside, as people may look at it: what would steer a terminal or hide is written out.

Requests, answers, ids and file names may hold anything. An escape sequence clears a screen, a bidirectional control
turns a sentence round, a carriage return paints over a line. Machines get such text exactly, people visibly.
"""

from __future__ import annotations

import logging
import re
from typing import Final

_UNSAFE: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls C0 and C1 and DEL, but for tab and line feed
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2060-\u206f\ufeff\ufff9-\ufffb"  # nothing to see, or the direction of text
    "\u2028-\u202e"  # separators of lines and paragraphs, and embeddings of direction
    "\ud800-\udfff"  # halves of characters, as arguments that are not UTF-8 become
    "\U000e0000-\U000e007f"  # tags, which look like nothing and read like letters
)
_SIGNS: Final = re.compile(f"[{_UNSAFE}]")
_LINE: Final = re.compile(f"[\t\n{_UNSAFE}]")


def visible(text: str) -> str:
    r"""Return a text with every control and every invisible sign written out, such as `\x1b`; line feeds stay."""
    return text if text.isascii() and text.isprintable() else _SIGNS.sub(_escaped, text)


def visible_line(text: str) -> str:
    r"""Return a text in one line: as `visible`, with line feeds and tabs written out too."""
    return text if text.isascii() and text.isprintable() else _LINE.sub(_escaped, text)


def safe_json(text: str, *, ascii_only: bool = False) -> str:
    r"""Return the same JSON with the same signs as `\uXXXX` within its strings: exact, and harmless on a terminal.

    Args:
        text: JSON.
        ascii_only: write everything beyond ASCII so.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return (_BEYOND if ascii_only else _SIGNS).sub(_unicode, text)


_BEYOND: Final = re.compile("[^\\x00-\\x7e]")


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    if match[0] in _NAMED:
        return _NAMED[match[0]]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"  # noqa: PLR2004 - widths of the forms


_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _unicode(match: re.Match[str]) -> str:
    data = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[place] << 8 | data[place + 1]:04x}" for place in range(0, len(data), 2))


class VisibleFormatter(logging.Formatter):
    """Writes a log record as one line in which nothing steers a terminal or pretends to be another line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the line."""
        return visible_line(super().formatMessage(record))

    def formatException(self, ei: logging._SysExcInfoType) -> str:  # noqa: N802 - the library's name
        """Return the traceback, line by line."""
        return visible(super().formatException(ei))
