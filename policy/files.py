"""Policy files: YAML, validated whole against a model, with the line of whatever is wrong.

Every file of a deployment that people write (routes, labels, retention, decision records, sites) is read here, so that
all of them refuse the same things: unknown fields, a key given twice, a key that is no word.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from evidence.errors import ConfigError
from evidence.faults import faults

_MAX_BYTES: Final = 4 << 20
"""A file that people write is smaller than this."""

Place = tuple[str | int, ...]
"""Where in a file: keys and positions from the top."""


class Config(BaseModel):
    """Base of everything that people write in files: frozen and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


class Document:
    """A YAML text that has been read, and knows where each of its parts stands.

    Attributes:
        source: what errors call it.
        content: what it says.
    """

    def __init__(self, text: str, source: str) -> None:
        """Read a text.

        Raises:
            ConfigError: it is not YAML, or a key is given twice or is no word.
        """
        self.source = source
        self._lines: dict[Place, int] = {}
        try:
            loader = _StrictLoader(text)
        except yaml.reader.ReaderError as error:
            where = f"{source}:{text.count(chr(10), 0, error.position) + 1}"
            raise ConfigError(f"{where}: not YAML: the character U+{int(error.character):04X} is not allowed") from None
        try:
            node = loader.get_single_node()
            self.content: Any = None if node is None else loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{source}:{mark.line + 1}" if mark else source
            raise ConfigError(f"{where}: not YAML: {error.problem or error.context}") from error
        except (ValueError, IndexError, KeyError, TypeError) as error:
            # The library takes a tag at its word, and fails in its own ways on what does not fit it.
            where = f"{source}:{loader.get_mark().line + 1}"
            raise ConfigError(f"{where}: not YAML: a value does not fit its tag ({type(error).__name__})") from None
        except RecursionError:
            where = f"{source}:{loader.get_mark().line + 1}"
            raise ConfigError(f"{where}: not YAML: nested too deeply") from None
        finally:
            loader.dispose()
        if node is not None:
            self._mark(node, ())

    def where(self, place: Sequence[Any] = ()) -> str:
        """Give `source:line` of a part; of the nearest part around it where it does not exist."""
        for size in range(len(place), -1, -1):
            line = self._lines.get(tuple(place[:size]))
            if line is not None:
                return f"{self.source}:{line}"
        return self.source

    def error(self, place: Sequence[Any], message: str) -> ConfigError:
        """Make the error of something that is wrong at a place."""
        name = ".".join(map(str, place))
        return ConfigError(f"{self.where(place)}: {name}: {message}" if name else f"{self.where()}: {message}")

    def parse(self, model: type[Model], title: str) -> Model:
        """Validate the content.

        Args:
            model: what it must be.
            title: what that is called, such as `route table`.

        Raises:
            ConfigError: it breaks the model; one line for each fault, with file, line and field.
        """
        if self.content is None:
            raise ConfigError(f"{self.source}:1: an empty file is no {title}")
        try:
            return model.model_validate(self.content)
        except ValidationError as error:
            found = faults(error, model)
            lines = [str(self.error(_real(fault.place, self._lines), fault.text)) for fault in found]
        raise ConfigError("\n  ".join([f"not a {title}:", *lines] if len(lines) > 1 else lines))

    def _mark(self, node: yaml.Node, place: Place) -> None:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self._lines[(*place, key.value)] = key.start_mark.line + 1
                self._mark(value, (*place, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                self._mark(value, (*place, number))


def read(path: Path, title: str) -> Document:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, is too large, is not UTF-8 or not YAML.
    """
    return Document(read_text(path, title), str(path))


def read_text(path: Path, title: str) -> str:
    """Read a file as text.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the {title} {path}: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: {len(data)} bytes are too many for a {title}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8") from error


def load(path: Path, model: type[Model], title: str) -> Model:
    """Read and validate a file.

    Raises:
        ConfigError: as `read` and `Document.parse`.
    """
    return read(path, title).parse(model, title)


def _real(loc: Sequence[str | int], known: Mapping[Place, int]) -> Place:
    """Leave out what pydantic adds to a place, such as the names of the variants of a union."""
    place: Place = ()
    for position, part in enumerate(loc):
        if (*place, part) in known or position == len(loc) - 1:
            place = (*place, part)
    return place


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe subset, in which a key that is given twice is an error, and so is an alias."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call] # the library's stubs leave it out
            raise yaml.composer.ComposerError(
                None, None, "aliases are not used in these files: write it out", event.start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - the library's signature
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, AttributeError, TypeError):
            # What looks like a date, a number or another value with a form of its own, and is none.
            message = "this is no value: put it in quotes, if it is meant as text"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "not keys with values", node.start_mark)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
