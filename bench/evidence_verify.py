"""The checker: rows a second, on small files and on compacted ones, what the time goes to, and memory."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from bench import blocks
from bench.rig import ROOT, reference_us

ROWS: Final = 1_000_000
TARGET_A_CORE: Final = 500_000
_LOOK_S: Final = 0.05
_ROUNDS: Final = 2


async def measure(rows: int = ROWS) -> dict[str, Any]:
    """Measure on a store of whole stories; the checker is a process with nothing of the writer in it."""
    with tempfile.TemporaryDirectory(prefix="waybill-bench-verify-") as folder:
        small = await asyncio.to_thread(blocks.build, Path(folder) / "small", rows)
        again = await asyncio.to_thread(copied, small.folder, Path(folder) / "compacted")
        large = await asyncio.to_thread(blocks.compact, again)
        return {
            "target_rows_per_second_a_core": TARGET_A_CORE,
            "small files": await checked(small),
            "compacted": await checked(large),
        }


async def checked(store: blocks.Built) -> dict[str, Any]:
    """Check a store with one process and with one for each core."""
    cores = psutil.cpu_count() or 1
    before = reference_us()
    rounds = [await _run(store, 1) for _ in range(_ROUNDS)]
    one = min(rounds, key=lambda found: float(found["cpu_s"]))
    many = await _run(store, cores)
    parts = (await _run(store, 1, "parts"))["parts"]
    parts.pop("the end", None)
    return {
        "rows": store.rows,
        "files": store.files,
        "megabytes": round(store.size / 1e6, 1),
        "rows_per_second_a_core": round(store.rows / one["cpu_s"]),
        "megabytes_per_second_a_core": round(store.size / 1e6 / one["cpu_s"], 1),
        "one_process": {"seconds": round(one["seconds"], 2), "peak_memory_mb": one["memory_mb"]},
        f"{cores}_processes": {
            "seconds": round(many["seconds"], 2),
            "rows_per_second": round(store.rows / many["seconds"]),
            "peak_memory_mb": many["memory_mb"],
        },
        "cpu_us_per_row_by_part": {
            part: round(seconds / store.rows * 1e6, 3)
            for part, seconds in sorted(parts.items(), key=lambda item: -float(item[1]))
        },
        "reference_us_before_and_after": [before, reference_us()],
    }


async def _run(store: blocks.Built, jobs: int, *more: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "bench.verify_process", str(store.folder), store.vkey, str(jobs), *more]
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stdout=PIPE)
    telling = asyncio.create_task(process.communicate())
    most: dict[int, int] = {}
    while not telling.done():
        for pid in _family(process.pid):
            most[pid] = max(most.get(pid, 0), _most_memory(pid))
        await asyncio.wait({telling}, timeout=_LOOK_S)
    told, _ = await telling
    found: dict[str, Any] = json.loads(told)
    assert found["ok"], found["findings"]
    assert found["rows"] == store.rows, found
    return {**found, "memory_mb": round(sum(most.values()) / 1e6)}


def _family(pid: int) -> list[int]:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    return []


def _most_memory(pid: int) -> int:
    """Give the most resident bytes that a process ever had; the pages of libraries count for each process."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def copied(store: Path, to: Path) -> Path:
    """Give another store of the same files, which are not copied, and the same key."""
    shutil.copytree(store, to, copy_function=_linked)
    shutil.copytree(store.with_name(f"{store.name}-keys"), to.with_name(f"{to.name}-keys"))
    return to


def _linked(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target
