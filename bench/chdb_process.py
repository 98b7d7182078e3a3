"""The same questions put to chdb, in a Python that has it: reads JSON from its standard input and prints JSON.

It imports nothing of this project, so that chdb may live in an environment of its own.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time


def main() -> None:
    """Answer each question once, then as often as asked, and print milliseconds and the number of rows."""
    told = json.load(sys.stdin)
    chdb = importlib.import_module("chdb")
    session = importlib.import_module("chdb.session").Session()
    answers = {}
    for name, sql in told["questions"].items():
        begun = time.perf_counter()
        rows = len(str(session.query(sql, "JSONCompactEachRow")).splitlines())
        first = time.perf_counter() - begun
        taken = []
        for _ in range(told["times"]):
            begun = time.perf_counter()
            session.query(sql, "JSONCompactEachRow")
            taken.append(time.perf_counter() - begun)
        answers[name] = {
            "rows": rows,
            "first_ms": round(first * 1e3, 1),
            "median_ms": round(statistics.median(taken) * 1e3, 1),
        }
    print(json.dumps({"version": chdb.__version__, "engine": str(chdb.engine_version), "answers": answers}))


if __name__ == "__main__":
    main()
