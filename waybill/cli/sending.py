"""One run of `waybill send`: what was answered before, what is sent, and where the answers go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from streams.kafka import KafkaSettings
from waybill.cli.lines import Line
from waybill.cli.options import err, out, tell, write_json
from waybill.cli.outfile import AnswerFile
from waybill.cli.progress import Display, display
from waybill.cli.receipts import outcomes_table
from waybill.cli.traffic import Progress, Traffic

_INTERRUPTED: Final = 130
_FAILED: Final = 1


class Sending:
    """Requests that are sent, and what is done with their answers."""

    def __init__(
        self, lines: Sequence[Line], token: str | None, timeout_s: float | None, *, table: bool, as_json: bool
    ) -> None:
        """Prepare a run.

        Args:
            lines: the requests.
            token: who sends.
            timeout_s: seconds without news after which waiting ends; None does not wait.
            table: whether a table is shown in the end.
            as_json: whether each answer is printed.
        """
        self._lines = tuple(lines)
        self._token = token
        self._timeout_s = timeout_s
        self._table = table
        self._as_json = as_json
        self._file: AnswerFile | None = None
        self._answers: dict[str, dict[str, Any]] = {}

    def run(self, kafka: KafkaSettings, path: Path | None) -> int:
        """Send what has no answer yet, and wait for the answers; return the exit code.

        Args:
            kafka: how to reach the broker.
            path: where the answers are written.

        Raises:
            ConfigError: the file cannot be used.
            BrokerUnavailable: no broker answers.
        """
        if path is None:
            return asyncio.run(self._run(kafka))
        with AnswerFile(path) as file:
            self._file = file
            self._lines = file.recognise(self._lines)
            try:
                return asyncio.run(self._run(kafka))
            except KeyboardInterrupt:
                tell(f"waybill: stopped; {self._so_far(file)}; run the same command again to go on")
                return _INTERRUPTED

    async def _run(self, kafka: KafkaSettings) -> int:
        file = self._file
        done = file.counts(self._lines) if file else Counter[str]()
        left = [line for line in self._lines if file is None or line.request_id not in file.outcomes]
        progress = Progress(len(self._lines), sent=done.total(), outcomes=done)
        ended = True
        if left:
            async with Traffic(kafka, left, token=self._token, hand_on=self._take, progress=progress) as traffic:
                with self._display() as shown:
                    ended = await self._carry(traffic, shown)
        if self._timeout_s is None:
            for line in self._lines:
                out.print(line.request_id)
        if self._table:
            found = ((line.number, self._answers.get(line.request_id)) for line in self._lines)
            out.print(outcomes_table((number, answer) for number, answer in found if answer is not None))
        if not ended:
            tell(
                f"waybill: {progress.total - progress.ended} of {progress.total} requests have no answer, and none "
                f"came for {self._timeout_s:g} s; they are on ai.requests, and are answered when a worker runs"
            )
        if file is not None:
            tell(f"{self._so_far(file)}" + ("" if ended else "; run the same command again to go on"))
        return 0 if ended else _FAILED

    async def _carry(self, traffic: Traffic, shown: Display) -> bool:
        """Fetch what was answered meanwhile, and send the rest; False where answers are missing in the end."""
        if self._file is not None:
            sent, since = self._file.may_be_sent(traffic.lines)
            if sent:
                tell("looking for answers that came before …")
                await traffic.look_back(shown.changed, since)
            self._file.note(traffic.lines, datetime.now(UTC))
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.send(shown.changed))
            following = group.create_task(self._follow(traffic, shown))
        return following.result()

    async def _follow(self, traffic: Traffic, shown: Display) -> bool:
        return self._timeout_s is None or await traffic.follow(shown.changed, self._timeout_s)

    def _take(self, answers: Sequence[dict[str, Any]]) -> None:
        if self._file is not None:
            self._file.write(answers)
        for answer in answers:
            if self._table:
                self._answers[answer["requestId"]] = answer
            if self._as_json:
                write_json(answer, indent=False)

    @contextmanager
    def _display(self) -> Iterator[Display]:
        if self._as_json and out.is_terminal:
            yield _Silent()  # the answers themselves show how far it is
            return
        with display(err, len(self._lines), evidence=False) as shown:
            yield shown

    def _so_far(self, file: AnswerFile) -> str:
        counts = file.counts(self._lines)
        how = ", ".join(f"{outcome} {count}" for outcome, count in counts.most_common())
        return f"{counts.total()} of {len(self._lines)} answers are in {file.path}" + (f" ({how})" if how else "")


class _Silent:
    def changed(self, progress: Progress) -> None:
        """Show nothing."""

    def stories(self, complete: int) -> None:
        """Show nothing."""
