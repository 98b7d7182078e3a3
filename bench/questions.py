"""Questions that analysts ask of much evidence: on small files and on compacted ones, through `queries` and by chdb."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bench import blocks
from bench.evidence_verify import copied
from bench.rig import ROOT, reference_us
from queries import named
from queries.database import Evidence

ROWS: Final = 10_000_000
TIMES: Final = 5
CHDB: Final = "WAYBILL_BENCH_CHDB"
"""Names a Python that has chdb, where it is not the one that runs this."""

_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, for both."""

    name: str
    sql: str
    params: dict[str, Any]
    chdb: str
    """The same for chdb, with `{events}` for the files."""


async def measure(rows: int = ROWS, keep: Path | None = None) -> dict[str, Any]:
    """Measure on one machine's worth of evidence.

    Args:
        rows: how many, at least.
        keep: a folder where the stores are left, and found again; None makes them anew and removes them.
    """
    with _folder(keep) as folder:
        return await asyncio.to_thread(_measured, folder, rows)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="waybill-bench-questions-") as folder:
        yield Path(folder)


def _measured(folder: Path, rows: int) -> dict[str, Any]:
    small, large, made = prepared(folder, rows)
    asked = _questions(small.folder)
    found: dict[str, Any] = {"rows": small.rows, **made}
    for name, store in (("small files", small), ("compacted", large)):
        before = reference_us()
        with Evidence(store.folder) as evidence:
            begun = time.perf_counter()
            _answer(evidence, "SELECT 1", {})
            opened = time.perf_counter() - begun
            answers = {each.name: _timed(evidence, each) for each in asked}
        found[name] = {
            "files": store.files,
            "megabytes": round(store.size / 1e6, 1),
            "open_ms": round(opened * 1e3, 1),
            "answers": answers,
            "chdb": _chdb(store.folder, asked, answers),
            "reference_us_before_and_after": [before, reference_us()],
        }
    return found


def prepared(folder: Path, rows: int) -> tuple[blocks.Built, blocks.Built, dict[str, Any]]:
    """Give the two stores, made if they are not there, and what making them took."""
    note = folder / "made.json"
    if note.exists() and (made := json.loads(note.read_text(encoding="utf-8")))["asked_for"] == rows:
        return blocks.described(folder / "small"), blocks.described(folder / "compacted"), made
    for name in ("small", "small-keys", "compacted", "compacted-keys"):
        shutil.rmtree(folder / name, ignore_errors=True)
    begun, cpu = time.perf_counter(), time.process_time()
    small = blocks.build(folder / "small", rows, lambda text: print(f"  {text}", flush=True))
    built, built_cpu = time.perf_counter() - begun, time.process_time() - cpu
    copy = copied(small.folder, folder / "compacted")
    begun, cpu = time.perf_counter(), time.process_time()
    large = blocks.compact(copy)
    made = {
        "asked_for": rows,
        "build_s": round(built, 1),
        "build_cpu_us_per_row": round(built_cpu / small.rows * 1e6, 2),
        "compact_s": round(time.perf_counter() - begun, 1),
        "compact_cpu_us_per_row": round((time.process_time() - cpu) / small.rows * 1e6, 2),
    }
    note.write_text(json.dumps(made), encoding="utf-8")
    return small, large, made


def _questions(store: Path) -> list[_Asked]:
    """Give the questions, about a request in the middle of the evidence."""
    with Evidence(store) as evidence:
        middle = "(SELECT max(log_offset) // 2 FROM events)"
        [[trace, request, at]] = _answer(
            evidence,
            "SELECT trace_id, request_id, date_trunc('day', occurred_at) FROM events "  # noqa: S608 - all of it is here
            f"WHERE event_type = 'model.intended' AND log_offset >= {middle} ORDER BY log_offset LIMIT 1",
            {},
        )
    assert isinstance(at, datetime)
    day = f"toDateTime64('{at:%Y-%m-%d} 23:00:00', 6, 'UTC')"
    hour = at.replace(hour=23)
    until = f"toDateTime64('{at:%Y-%m-%d} 23:59:59', 6, 'UTC')"
    questions = named.load()
    crossings = questions["left-the-building"].sql
    one_hour = f"SELECT * FROM ({crossings}) WHERE intended_at <= $until"  # noqa: S608 - the project's own question
    return [
        _Asked(
            "trace by id",
            "SELECT * FROM events WHERE trace_id = $id ORDER BY log_offset",
            {"id": trace},
            f"SELECT * FROM {{events}} WHERE trace_id = '{trace}' ORDER BY log_offset",  # noqa: S608 - an id that was made here
        ),
        _Asked(
            "story of a request (named)",
            questions["story"].sql,
            {"request_id": request},
            f"SELECT intake_id, sequence, occurred_at, stage, event_type, route.name, attempt, policy.decision, "  # noqa: S608 - ids that were made here
            "classification.effective, outcome, failure.code, duration_ms, event_id "
            f"FROM {{events}} WHERE request_id = '{request}' ORDER BY intake_id, sequence",
        ),
        _Asked(
            "calls by class and provider",
            "SELECT classification.effective, route.provider, count(*) FROM events "
            "WHERE event_type = 'model.intended' GROUP BY ALL ORDER BY ALL",
            {},
            "SELECT classification.effective AS c, route.provider AS p, count() FROM {events} "
            "WHERE event_type = 'model.intended' GROUP BY c, p ORDER BY c, p",
        ),
        _Asked(
            "what left the building in one hour (named)",
            one_hour,
            {"since": hour, "until": at.replace(hour=23, minute=59, second=59)},
            "SELECT i.occurred_at, i.request_id, i.tenant_ref, i.actor_ref, i.purpose, i.class, i.provider, i.model, "  # noqa: S608 - moments that were made here
            "i.region, i.attempt, multiIf(e.event_type = 'model.completed', 'completed', "
            "e.event_type = 'model.failed', 'failed', 'open') AS result, i.waybill_hash "
            "FROM (SELECT occurred_at, event_id, request_id, tenant_ref, actor_ref, purpose, attempt, waybill_hash, "
            "classification.effective AS class, route.provider AS provider, route.model AS model, "
            "route.region AS region FROM {events} WHERE event_type = 'model.intended' AND route.placement = 'hosted' "
            f"AND occurred_at >= {day} AND occurred_at <= {until}) AS i "
            "LEFT JOIN (SELECT intent_id, event_type FROM {events} "
            "WHERE event_type IN ('model.completed', 'model.failed') AND intent_id IS NOT NULL) AS e "
            "ON e.intent_id = i.event_id ORDER BY i.occurred_at, i.event_id",
        ),
        _Asked(
            "p50, p95 and p99 of latency by route (named)",
            questions["latency"].sql,
            {"since": None},
            "SELECT route.name AS r, count(), round(quantileExactInclusive(0.5)(duration_ms), 1), "
            "round(quantileExactInclusive(0.95)(duration_ms), 1), round(quantileExactInclusive(0.99)(duration_ms), 1), "
            "round(max(duration_ms), 1), round(quantileExactInclusive(0.5)(first_chunk_ms), 1) "
            "FROM {events} WHERE event_type = 'model.completed' GROUP BY r ORDER BY r",
        ),
    ]


def _answer(evidence: Evidence, sql: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
    with evidence.query(sql, params or None, timeout_s=_TIMEOUT_S) as result:
        return list(result)


def _timed(evidence: Evidence, asked: _Asked) -> dict[str, Any]:
    begun = time.perf_counter()
    rows = len(_answer(evidence, asked.sql, asked.params))
    first = time.perf_counter() - begun
    taken = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        _answer(evidence, asked.sql, asked.params)
        taken.append(time.perf_counter() - begun)
    return {"rows": rows, "first_ms": round(first * 1e3, 1), "median_ms": round(statistics.median(taken) * 1e3, 1)}


def _chdb(store: Path, asked: list[_Asked], answers: dict[str, Any]) -> Any:
    """Put the same questions to chdb, on the same files; tells why not, where it is not there."""
    python = os.environ.get(CHDB) or (sys.executable if importlib.util.find_spec("chdb") else None)
    if python is None:
        return f"skipped: chdb is not installed; name a Python that has it in {CHDB}"
    events = f"file('{store}/events/*/*/*.parquet', Parquet)"
    told = {"times": TIMES, "questions": {each.name: each.chdb.replace("{events}", events) for each in asked}}
    done = subprocess.run(
        [python, str(ROOT / "bench" / "chdb_process.py")],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name, answer in found["answers"].items():
        assert answer["rows"] == answers[name]["rows"], (
            f"{name}: {answer['rows']} rows, {answers[name]['rows']} by DuckDB"
        )
    return found
