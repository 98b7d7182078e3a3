"""The model in process: the real weights in a child of ours."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import uvloop
from processes import until_busy, until_idle
from triton_fixtures import installed_gguf

from inference.backend import Message, ModelCall
from inference.errors import Ambiguous, NotSent, Rejected, Unavailable
from inference.inprocess import InProcessBackend

QUESTION = ModelCall("b-1", "smollm2", (Message("user", "What is the capital of France?"),), 6, timeout_s=30.0)
ENDLESS = replace(QUESTION, messages=(Message("user", "Tell a very long story about a king."),), max_tokens=1500)


@pytest.fixture
async def backend():
    """The model in process."""
    made = InProcessBackend({"smollm2": installed_gguf()})
    yield made
    await made.close()
    assert _engines() == [], "an engine outlived its backend"


async def test_an_answer_leaves_the_signals_alone(backend: InProcessBackend):
    """The model answers, and SIGINT and SIGTERM of this process are handled as before."""
    before = [_handled(number) for number in (signal.SIGINT, signal.SIGTERM)]
    answer = await backend.complete(QUESTION)
    assert answer.text
    assert (answer.provider, answer.model, answer.output_tokens) == ("in-process", "smollm2", 6)
    assert answer.first_chunk_s is not None
    assert [_handled(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_the_loop_stays_free_and_cancelling_stops_the_engine(backend: InProcessBackend):
    """While a story is told the event loop ticks; after the caller went away the engine uses no CPU."""
    await backend.complete(replace(QUESTION, max_tokens=1))
    story = asyncio.create_task(backend.complete(ENDLESS))
    longest = 0.0
    working = asyncio.create_task(until_busy(_engines()[0]))
    while not working.done():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - before)
    await working
    assert longest < 0.15
    story.cancel()
    with pytest.raises(asyncio.CancelledError):
        await story
    await until_idle(_engines()[0])


async def test_failures_have_their_kinds(backend: InProcessBackend):
    """Too long, unknown and too late are told apart, and the engine answers afterwards."""
    with pytest.raises(Rejected, match="room for 2048"):
        await backend.complete(replace(QUESTION, messages=(Message("user", "word " * 3000),)))
    with pytest.raises(Rejected):
        await backend.complete(replace(QUESTION, model="nobody"))
    with pytest.raises(Ambiguous):
        await backend.complete(replace(ENDLESS, timeout_s=0.3))
    assert (await backend.complete(QUESTION)).text


async def test_an_engine_that_dies_is_unavailable_and_started_again(backend: InProcessBackend):
    """When the engine is killed in mid-answer the call is unavailable, and the next one is answered."""
    await backend.complete(replace(QUESTION, max_tokens=1))
    story = asyncio.create_task(backend.complete(ENDLESS))
    await until_busy(_engines()[0])
    _engines()[0].kill()
    with pytest.raises(Unavailable, match="exit code -9"):
        await story
    assert (await backend.complete(QUESTION)).text


async def test_a_model_file_that_is_not_there_is_said_so(tmp_path: Path):
    """Without the weights the sentence names the file; without a wheel, how to install it."""
    backend = InProcessBackend({"smollm2": tmp_path / "no.gguf"})
    with pytest.raises(Unavailable, match=r"no model file at .*no\.gguf"):
        await backend.complete(QUESTION)
    with pytest.raises(NotSent, match="in-process model"):
        await backend.ready()
    await backend.close()


async def test_an_interpreter_that_is_not_there_is_said_so(tmp_path: Path):
    """Without the interpreter the sentence names it."""
    backend = InProcessBackend({"smollm2": None}, python=tmp_path / "python")
    with pytest.raises(Unavailable, match="does not run"):
        await backend.complete(QUESTION)
    await backend.close()


def test_it_works_under_uvloop():
    """The engine is spoken to under uvloop, which the worker runs on."""
    gguf = installed_gguf()

    async def once() -> str:
        backend = InProcessBackend({"smollm2": gguf})
        try:
            return await backend.ready()
        finally:
            await backend.close()

    assert uvloop.run(once()) == "in process with smollm2"


async def test_an_engine_ends_with_its_worker(tmp_path: Path):
    """When the process that started the engine is killed, the engine ends by itself."""
    program = tmp_path / "worker.py"
    program.write_text(
        "import asyncio, pathlib, sys\n"
        "from inference.inprocess import InProcessBackend\n"
        "async def main():\n"
        "    backend = InProcessBackend({'smollm2': pathlib.Path(sys.argv[1])})\n"
        "    print(await backend.ready(), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(installed_gguf()), stdout=asyncio.subprocess.PIPE
    )
    assert await worker.stdout.readline() == b"in process with smollm2\n"
    engines = psutil.Process(worker.pid).children()
    assert len(engines) == 1
    worker.kill()
    await worker.wait()
    _, alive = psutil.wait_procs(engines, timeout=10)
    assert not alive


def _engines() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if any("engine.py" in part for part in child.cmdline())]


def _handled(number: int) -> bool:
    """Whether the kernel has a handler of this process for the signal, whoever put it there."""
    status = Path("/proc/self/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1]
    return bool(int(caught, 16) >> (number - 1) & 1)
