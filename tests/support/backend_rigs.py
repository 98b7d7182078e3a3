"""How to bring each backend to succeed, to fail for now and to fail for good, with the real part behind it.

One rig for each implementation of the seam. A new implementation adds its rig to `RIGS`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from openai_rig import openai_rig
from triton_fixtures import NEVER_LOADS, installed_gguf

from inference.backend import Backend, Message, ModelCall
from inference.errors import Rejected, Unavailable
from inference.inprocess import InProcessBackend
from inference.testing import ScriptedBackend
from inference.triton import TritonBackend

Outcome = Literal["succeed", "transient", "permanent"]
"""What a call is meant to meet: an answer, a retryable error, or a permanent one."""


@dataclass(frozen=True)
class Rig:
    """A backend under test and the calls that meet each outcome there."""

    backend: Backend
    """The implementation."""

    call: Callable[[Outcome, str], ModelCall]
    """Makes the call with this id that will meet this outcome."""


RigMaker = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Rig]]
"""Starts what a rig needs (fixtures by name through the request), and ends it."""


def plain_call(call_id: str, *, model: str = "smollm2", text: str = "Say hello.", max_tokens: int = 4) -> ModelCall:
    """A small call; every rig starts from it."""
    return ModelCall(call_id, model, (Message("user", text),), max_tokens, timeout_s=30.0)


@asynccontextmanager
async def scripted_rig(_request: pytest.FixtureRequest):
    """The double that ships with the seam."""
    backend = ScriptedBackend()

    def call(outcome: Outcome, call_id: str) -> ModelCall:
        if outcome == "transient":
            backend.plan(call_id, Unavailable("http_429", "too many", provider="scripted"))
        if outcome == "permanent":
            backend.plan(call_id, Rejected("http_400", "wrong", provider="scripted"))
        return plain_call(call_id)

    yield Rig(backend, call)
    await backend.close()


def _local_call(outcome: Outcome, call_id: str) -> ModelCall:
    """For the local models: one that is not loaded fails for now, a prompt beyond its context for good."""
    if outcome == "transient":
        return plain_call(call_id, model=NEVER_LOADS)
    if outcome == "permanent":
        return plain_call(call_id, text="word " * 3000)
    return plain_call(call_id)


@asynccontextmanager
async def triton_rig(request: pytest.FixtureRequest):
    """A real Triton server with one model that is loaded and one that never is."""
    backend = TritonBackend(request.getfixturevalue("triton"))
    yield Rig(backend, _local_call)
    await backend.close()


@asynccontextmanager
async def in_process_rig(_request: pytest.FixtureRequest):
    """The real model in process, and one whose file is not there."""
    backend = InProcessBackend({"smollm2": installed_gguf(), NEVER_LOADS: Path("/nowhere.gguf")})
    yield Rig(backend, _local_call)
    await backend.close()


RIGS: dict[str, RigMaker] = {
    "scripted": scripted_rig,
    "triton": triton_rig,
    "in-process": in_process_rig,
    "openai": openai_rig,
}
"""Every implementation of the seam, by name."""
