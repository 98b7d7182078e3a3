"""A deployment with a vault and the topics of one test on a real broker, for commands that are called as functions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from topic_rig import TopicReader, topics

from policy.vault.sealing import Vault
from policy.vault.store import VaultStore
from streams.kafka import KafkaSettings, producer
from streams.topics import EVIDENCE, RESPONSES


@dataclass(frozen=True)
class Deployment:
    """What a command works on."""

    home: Path
    kafka: KafkaSettings

    @property
    def folder(self) -> Path:
        """The vault's folder."""
        return self.home / "vault"

    @property
    def vault(self) -> Vault:
        """A fresh look at the vault."""
        return Vault(self.folder)

    @property
    def store(self) -> VaultStore:
        """A fresh look at its store."""
        return VaultStore(self.folder)

    def events(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many events on `ai.evidence`; give all that are there."""

        async def read() -> list[dict[str, Any]]:
            async with TopicReader(self.kafka) as reader:
                return await reader.until(EVIDENCE, count)

        return asyncio.run(read())

    def respond(self, request_id: str, value: bytes) -> None:
        """Put a response on `ai.responses`."""

        async def write() -> None:
            made = producer(self.kafka)
            await made.start()
            await made.send_and_wait(self.kafka.name(RESPONSES), value, key=request_id.encode())
            await made.stop()

        asyncio.run(write())


def deployment(home: Path, bootstrap: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Make the topics, and point the program's settings at them."""
    kafka = asyncio.run(topics(bootstrap, prefix))
    monkeypatch.setenv("WAYBILL_HOME", str(home))
    monkeypatch.setenv("WAYBILL_KAFKA", bootstrap)
    monkeypatch.setenv("WAYBILL_KAFKA_PREFIX", prefix)
    return Deployment(home, kafka)
