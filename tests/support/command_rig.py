"""Runs a group of commands in this process, as the program does, against a test's own topics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import typer
from pytest import CaptureFixture, MonkeyPatch  # noqa: PT013 - types only

from streams.kafka import KafkaSettings


@dataclass(frozen=True, slots=True)
class Said:
    """What a command did."""

    code: int
    """Its exit code."""

    out: str
    """Its standard output."""

    err: str
    """Its standard error."""


class Commands:
    """One group of commands."""

    def __init__(
        self, app: typer.Typer, kafka: KafkaSettings, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
    ) -> None:
        self._command = typer.main.get_command(app)
        self._capsys = capsys
        monkeypatch.setenv("WAYBILL_KAFKA", kafka.bootstrap)
        monkeypatch.setenv("WAYBILL_KAFKA_PREFIX", kafka.prefix)

    def __call__(self, *arguments: str) -> Said:
        """Run a command; an error of ours is raised as the program would catch it."""
        self._capsys.readouterr()
        result: Any = self._command(list(arguments), standalone_mode=False)
        told = self._capsys.readouterr()
        return Said(result if isinstance(result, int) else 0, told.out, told.err)
