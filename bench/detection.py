"""Detection: microseconds for a text of 1.2 kB by tier, and what taking findings out of it costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from policy.detection.detectors import Detectors, Finding
from policy.detection.names import NamesDetector, missing
from policy.redaction import mask

PYTHON = Path(__file__).resolve().parent.parent / ".venv-names" / "bin" / "python"
SIZE = 1200
"""Characters of a text."""

_ROUNDS = 400
_PROSE = (
    "Rewrite the paragraph below so that a reader of twelve understands it, and keep the three examples. A heat pump "
    "moves warmth from a cold place to a warm one, as a fridge does, and needs less power than it moves. In the year "
    "2021 a house of 140 square metres took 4,200 kWh, against 15,300 kWh of gas before. The fitter explains that the "
    "floor is heated to 32 degrees and the water to 48, that the noise at the fence is 35 dB, and that the cheapest of "
    "five offers was 21,400 euros. Write short sentences, use no figures of speech, and end with a question that the "
    "reader can answer at home. If a word has two meanings, say which one is meant, and give the reason in a clause. "
)
_FINDINGS = (
    " jane.doe@example.com ",
    " +44 20 7946 0018 ",
    " card 4242 4242 4242 4242 ",
    " iban DE89 3704 0044 0532 0130 00 ",
    " password: hunter2x ",
    " 203.0.113.42 ",
)
_FOREIGN = "Überprüfen Sie die Größe: „so schön“, im Café. Привет, как дела? 漢字仮名交じり文です。 "


def texts() -> dict[str, str]:
    """Give one text of each sort, all of the same length."""
    prose = (_PROSE * 3)[:SIZE]
    spread = ""
    for place, found in enumerate(_FINDINGS):
        spread += prose[place * 170 : place * 170 + 150] + found
    return {
        "ascii, nothing found": prose,
        "other scripts, nothing found": (_FOREIGN + prose)[:SIZE],
        "one e-mail address": (prose[:600] + _FINDINGS[0] + prose)[:SIZE],
        "six findings": (spread + prose)[:SIZE],
    }


async def measure() -> dict[str, Any]:
    """Measure tier 1 and redaction in this process, and tier 2 as the worker asks for it."""
    detectors, result = Detectors(), dict[str, Any]()
    found = {name: (text, detectors.scan(text)) for name, text in texts().items()}
    assert [len(findings) for _, findings in found.values()] == [0, 0, 1, len(_FINDINGS)], found
    for name, (text, _) in found.items():
        result[f"tier 1, us, {name}"] = _median_us(lambda text=text: detectors.scan(text))
    for name, (text, findings) in found.items():
        if findings:
            result[f"redaction, us, {name}"] = _median_us(lambda text=text, f=findings: mask(text, f))
    result.update(await _names(next(iter(texts().values()))))
    return result


async def _names(text: str) -> dict[str, Any]:
    if (reason := missing(PYTHON)) is not None:
        return {"tier 2": f"not measured: {reason}"}
    began = time.perf_counter()
    detector = NamesDetector(PYTHON)
    await detector.start()
    ready = time.perf_counter() - began
    try:
        times: dict[int, list[float]] = {1: [], 16: []}
        for turn in range(25):
            for size, spent in times.items():
                began = time.perf_counter()
                found: list[tuple[Finding, ...]] = await detector.find([text] * size)
                if turn:  # the first turn warms up
                    spent.append((time.perf_counter() - began) / size)
                assert len(found) == size
    finally:
        await detector.close()
    return {
        "tier 2, s until ready": round(ready, 2),
        "tier 2, us, one text a call": round(sorted(times[1])[len(times[1]) // 2] * 1e6),
        "tier 2, us, 16 texts a call": round(sorted(times[16])[len(times[16]) // 2] * 1e6),
    }


def _median_us(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(_ROUNDS):
        began = time.perf_counter_ns()
        work()
        spent.append(time.perf_counter_ns() - began)
    return round(sorted(spent)[_ROUNDS // 2] / 1000, 1)
