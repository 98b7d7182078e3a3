"""The stand-in as a program: its first line, its flags, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from openai_rig import make_call, opened

from inference.errors import BackendError, Unavailable

PROGRAM = [sys.executable, "-m", "inference.standin"]
ROOT = Path(__file__).parents[2]


async def start(*flags: str) -> tuple[asyncio.subprocess.Process, str]:
    """Start the program and wait for its base URL."""
    process = await asyncio.create_subprocess_exec(*PROGRAM, *flags, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    return process, (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serves_until_asked_to_stop(number: signal.Signals, tmp_path: Path) -> None:
    """The program serves the script that it was given, and ends with 0 on either signal."""
    script = tmp_path / "faults.json"
    script.write_text('{"rules": [{"times": 1, "do": {"status": 503}}]}')
    process, url = await start("--script", str(script))
    async with opened(url) as backend:
        with pytest.raises(Unavailable):
            await backend.complete(make_call("int-1"))
        assert (await backend.complete(make_call("int-2"))).provider == "stand-in"
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_log_survives_kill(tmp_path: Path) -> None:
    """Every call whose answer arrived is in the log file after kill -9."""
    log = tmp_path / "calls.jsonl"
    process, url = await start("--log", str(log))
    answered = []
    async with opened(url, connections=4) as backend:

        async def ask(number: int) -> None:
            try:
                await backend.complete(make_call(f"int-{number}"))
            except BackendError:
                return
            answered.append(f"int-{number}")
            if len(answered) == 50 and process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)

        await asyncio.gather(*(ask(number) for number in range(200)))
    await process.wait()
    logged = [orjson.loads(line)["call_id"] for line in log.read_bytes().splitlines()]
    assert set(answered) <= set(logged)
    assert len(logged) == len(set(logged))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [(["--script", "/nonexistent.json"], "cannot be read"), (["--prot", "1"], "unrecognized arguments")],
)
def test_wrong_flags_end_with_2(flags: list[str], reason: str) -> None:
    """A wrong flag or script ends the program with 2 and one clear sentence."""
    done = subprocess.run([*PROGRAM, *flags], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
