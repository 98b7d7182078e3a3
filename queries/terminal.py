"""The terminal: what people read is written through here, and nothing that comes from outside steers it.

`Terminal` takes no markup and writes every control out visibly, whoever made the text: a cell, a title, a `Text`.
Only styles that the program sets itself become escape sequences. `Text` is the one way to style a text; the checks of
this project let no other module import the library's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOBase
from typing import Any, Final, Literal, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType  # noqa: TID251 - the one place
from rich.segment import Segment
from rich.style import Style
from rich.text import Text as PlainText  # noqa: TID251 - the one place

from evidence.visible import visible
from queries.errors import OutputClosed, OutputError

_FILE_WIDTH: Final = 160
"""Columns where there is no terminal whose width could be asked for."""


class Text(PlainText):
    """A styled text; controls in it are written out visibly."""

    def __init__(self, text: str = "", style: str | Style = "", **options: Any) -> None:
        super().__init__(visible(text), style, **options)

    def append(self, text: PlainText | str, style: str | Style | None = None) -> Text:
        """Add a text."""
        super().append(visible(text) if isinstance(text, str) else text, style)
        return self


class Terminal(Console):
    """Writes for people, to standard output or standard error."""

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        stream = _Stream(name)
        width = None if stream.isatty() else _FILE_WIDTH
        super().__init__(
            file=cast("TextIO", stream),
            stderr=name == "stderr",
            markup=False,
            highlight=False,
            emoji=False,
            width=width,
        )

    def render_str(self, text: str, **options: Any) -> PlainText:
        """Return a text as it will look; this is where every plain string passes that is shown."""
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what will be written; what reached here without being made visible is made so now."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


class _Stream(TextIOBase):
    """Standard output or standard error as they are now; a fault of writing is told as what it is."""

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self._name = name

    @property
    def _file(self) -> TextIO:
        file: TextIO = getattr(sys, self._name)
        # While a progress display is shown, the library puts itself in the stream's place.
        return cast("TextIO", getattr(file, "rich_proxied_file", file))

    @property
    def encoding(self) -> str:  # type: ignore[override] # as the stream has it now
        """The encoding of the stream."""
        return getattr(self._file, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return self._file.isatty()

    def fileno(self) -> int:
        return self._file.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        # A terminal that cannot show a sign gets its number; data is checked before it comes here.
        shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        with _telling(self._name):
            return self._file.write(shown)

    def flush(self) -> None:
        with _telling(self._name):
            self._file.flush()


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turn a fault of writing into an error of ours; a reader that has gone is one too."""
    try:
        yield
    except BrokenPipeError:
        raise OutputClosed("nobody reads the output any more") from None
    except OSError as error:
        where = "standard output" if name == "stdout" else "standard error"
        raise OutputError(f"{where} cannot be written: {error.strerror or error}") from None


def data(console: Console, lines: Iterator[str], *, what: str) -> int:
    """Write data exactly, and return how many lines.

    Raises:
        OutputError: the output's encoding cannot hold a sign of it, or it cannot be written.
    """
    count = 0
    encoding = console.encoding
    for line in lines:
        if not line.isascii():
            try:
                line.encode(encoding)
            except UnicodeEncodeError as error:
                sign = visible(error.object[error.start])
                raise OutputError(
                    f"{what} would not be exact: the output is {encoding}, which cannot hold {sign!a}; set "
                    "PYTHONIOENCODING=utf-8"
                ) from None
        console.file.write(line)
        count += 1
    return count
