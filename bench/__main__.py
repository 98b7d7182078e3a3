"""`python -m bench [part ...]`: measures, compares with the last results, and writes `bench/results.json`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import (
    admission,
    detection,
    evidence_verify,
    freshness,
    pipeline,
    policy,
    questions,
    recovery,
    sink,
    transactions,
)
from bench.rig import CACHE
from streams.brokers.jars import VERSION, missing_reason

RESULTS = Path(__file__).with_name("results.json")
PARTS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "admission": admission.measure,
    "detection": detection.measure,
    "freshness": freshness.measure,
    "pipeline": pipeline.measure,
    "policy": policy.measure,
    "questions": questions.measure,
    "recovery": recovery.measure,
    "sink": sink.measure,
    "transactions": transactions.measure,
    "verify": evidence_verify.measure,
}
NEED_NO_BROKER = {"detection", "policy", "questions", "verify"}
LIBRARIES = (
    "aiokafka", "faust-streaming", "pydantic", "pyarrow", "duckdb", "aiohttp", "uvloop", "orjson",
    "cedarpy", "cryptography", "PyJWT", "google-re2",
)  # fmt: skip


def main() -> int:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--rows", type=int, help="rows of evidence for the parts `questions` and `verify`")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="leave the stores of `questions` here, for next time"
    )
    asked = parser.parse_args()
    names = asked.parts or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}")
    if not NEED_NO_BROKER.issuperset(names) and (reason := missing_reason(CACHE)):
        print(f"bench: {reason}", file=sys.stderr)
        return 2
    last = _results()
    for name in names:
        print(f"{name} …", flush=True)
        load = {"load_average_1m_before": round(os.getloadavg()[0], 2)}
        found = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), **load, **_run(name, asked)}
        _show(found, last.get(name, {}))
        # What is measured is kept, whatever becomes of the next part; others may have written meanwhile.
        everything = {"machine": _machine(), "parts": _results() | {name: found}}
        RESULTS.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    print(f"written to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")
    return 0


def _results() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))["parts"]) if RESULTS.exists() else {}


def _run(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if name in {"questions", "verify"} and asked.rows:
        told["rows"] = asked.rows
    if name == "questions":
        told["keep"] = asked.keep
    if sys.platform == "win32":
        return asyncio.run(PARTS[name](**told))
    import uvloop  # noqa: PLC0415 - it does not exist on Windows

    return uvloop.run(PARTS[name](**told))


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "kafka": VERSION,
        "load_average_1m": round(os.getloadavg()[0], 2),
        **{name: version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _show(found: Any, last: Any, name: str = "", depth: int = 1) -> None:
    if isinstance(found, dict):
        if name:
            print("  " * depth + name)
        for key, value in found.items():
            _show(value, last.get(key) if isinstance(last, dict) else None, key, depth + bool(name))
    elif isinstance(found, int | float) and isinstance(last, int | float) and last:
        print("  " * depth + f"{name}: {found}  (last {last}, ratio {found / last:.2f})")
    else:
        print("  " * depth + f"{name}: {found}")


if __name__ == "__main__":
    sys.exit(main())
