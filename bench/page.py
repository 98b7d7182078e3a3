"""`python -m bench.page` writes the figures of `bench/results.json` into `docs/measured.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).with_name("results.json")
PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "measured.md"
BEGIN: Final = "<!-- from bench/results.json: python -m bench.page -->"
END: Final = "<!-- end -->"


def tables(results: dict[str, Any]) -> str:
    """Give the page's tables."""
    parts = results["parts"]
    blocks = [
        _sink(parts["sink"]),
        _freshness(parts["freshness"]),
        _verify(parts["verify"]),
        _recovery(parts["recovery"]),
        _questions(parts["questions"]),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def renewed(page: str, results: dict[str, Any]) -> str:
    """Give the page with today's figures."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{tables(results)}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write the page."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def _said(part: dict[str, Any]) -> str:
    return f"Measured {part['measured_at'][:10]}; load average before: {part['load_average_1m_before']}."


def _sink(part: dict[str, Any]) -> list[str]:
    names = {"stories": "whole stories", "one_event_type": "one event type"}
    kinds = [part[name] for name in names]
    rows = [
        ("bytes an event", *(kind["bytes_per_event"] for kind in kinds)),
        ("CPU µs an event, all of it", *(kind["cpu_us_per_event"] for kind in kinds)),
        ("events/s a core", *(f"{kind['events_per_second_a_core']:,}" for kind in kinds)),
        ("events/s on the wall, broker on the same cores", *(f"{kind['events_per_second']:,}" for kind in kinds)),
        *(
            (f"{name} alone, CPU µs", *(kind["parts_alone_cpu_us"][name] for kind in kinds))
            for name in kinds[0]["parts_alone_cpu_us"]
        ),
        ("consume + parse + write, CPU µs", *(kind["sum_of_consume_parse_write_cpu_us"] for kind in kinds)),
        ("ratio of all to that", *(kind["ratio_to_sum"] for kind in kinds)),
    ]
    aim = f"Target: {part['target_events_per_second_a_core']:,} events/s a core, ratio {part['target_ratio_to_sum']}."
    return ["## The sink", "", f"{_said(part)} {aim}", "", *_table(("", *names.values()), rows)]


def _freshness(part: dict[str, Any]) -> list[str]:
    rows = [
        (name, found["p50_s"], found["p99_s"], found["max_s"], found["seen_after_traffic_stopped"]["max_s"])
        for name, found in part.items()
        if isinstance(found, dict)
    ]
    head = ("", "p50 s", "p99 s", "most s", "most s after traffic stopped")
    about = f"{part['events_per_second']:,} events/s for {part['seconds']:g} s."
    return ["## Freshness", "", f"{_said(part)} {about}", "", *_table(head, rows)]


def _verify(part: dict[str, Any]) -> list[str]:
    kinds = {name: part[name] for name in ("small files", "compacted")}
    many = next(key for key in kinds["compacted"] if key.endswith("_processes"))
    named = list(kinds["small files"]["cpu_us_per_row_by_part"])
    rows = [
        ("rows", *(f"{kind['rows']:,}" for kind in kinds.values())),
        ("files", *(kind["files"] for kind in kinds.values())),
        ("rows/s a core", *(f"{kind['rows_per_second_a_core']:,}" for kind in kinds.values())),
        ("MB/s of Parquet a core", *(kind["megabytes_per_second_a_core"] for kind in kinds.values())),
        (f"rows/s, {many.replace('_', ' ')}", *(f"{kind[many]['rows_per_second']:,}" for kind in kinds.values())),
        ("peak memory MB, one process", *(kind["one_process"]["peak_memory_mb"] for kind in kinds.values())),
        (f"peak memory MB, {many.replace('_', ' ')}", *(kind[many]["peak_memory_mb"] for kind in kinds.values())),
        *(
            (f"{name}, CPU µs a row", *(kind["cpu_us_per_row_by_part"].get(name, "") for kind in kinds.values()))
            for name in named
        ),
    ]
    aim = f"Target: {part['target_rows_per_second_a_core']:,} rows/s a core."
    return ["## The checker", "", f"{_said(part)} {aim}", "", *_table(("", *kinds), rows)]


def _recovery(part: dict[str, Any]) -> list[str]:
    rows = [
        (name, found["kills"], *(_pair(found[what]) for what in ("ready_s", "first_new_rows_s", "caught_up_s")))
        for name, found in part.items()
        if isinstance(found, dict)
    ]
    head = ("", "kills", "ready, s", "first new rows committed, s", "read to the end, s")
    about = f"{part['events_per_second']:,} events/s; p50 and most, from the new process's start."
    return ["## Recovery after SIGKILL", "", f"{_said(part)} {about}", "", *_table(head, rows)]


def _pair(found: dict[str, float]) -> str:
    return f"{found['p50']} / {found['max']}"


def _questions(part: dict[str, Any]) -> list[str]:
    small, large = part["small files"], part["compacted"]
    rows = [
        (name, *(_ms(kind, who, name) for kind in (small, large) for who in ("answers", "chdb")))
        for name in small["answers"]
    ]
    head = (
        "ms, median of 5, warm",
        f"{small['files']:,} small files",
        "the same, chdb",
        f"{large['files']:,} compacted files",
        "the same, chdb",
    )
    about = f"{part['rows']:,} rows; compaction took {part['compact_cpu_us_per_row']} CPU µs a row."
    return ["## Questions", "", f"{_said(part)} {about}", "", *_table(head, rows)]


def _ms(kind: dict[str, Any], who: str, name: str) -> str:
    answers = kind[who]
    if isinstance(answers, str):
        return "not installed"
    found = (answers if who == "answers" else answers["answers"])[name]["median_ms"]
    return f"{found:,.0f}"


if __name__ == "__main__":
    main()
