"""The double that ships with the backend seam, for users of the seam; it passes the same contract suite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from inference.backend import Completion, ModelCall, Tokens
from inference.errors import NotSent

Step = Completion | Exception | Callable[[ModelCall], Awaitable[Completion]]
"""What happens to a call: this answer, this error, or whatever an async function makes of it."""


def echo(call: ModelCall) -> Completion:
    """Answer with the last message's text, so that a test sees which call an answer belongs to."""
    text = call.messages[-1].content
    return Completion(
        text=text,
        finish_reason="stop",
        provider="scripted",
        model=call.model,
        response_id=call.call_id,
        tokens=Tokens(sum(len(message.content.split()) for message in call.messages), len(text.split())),
    )


class ScriptedBackend:
    """Does what the script says for a call id, and echoes where it says nothing.

    Attributes:
        calls: every call so far, in order.
        cancelled: ids of the calls whose caller went away.
    """

    def __init__(self, script: Mapping[str, Step] | None = None) -> None:
        self.calls: list[ModelCall] = []
        self.cancelled: list[str] = []
        self.closed = False
        self._script = dict(script or {})

    def plan(self, call_id: str, step: Step) -> None:
        """Say what happens to the call with this id."""
        self._script[call_id] = step

    async def complete(self, call: ModelCall) -> Completion:
        """Do what the script says; see `inference.backend.Backend.complete`."""
        if self.closed:
            raise NotSent("closed", "this backend is closed")
        self.calls.append(call)
        step = self._script.get(call.call_id)
        await asyncio.sleep(0)  # like anything real, it gives way before it answers
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Completion):
            return step
        if step is None:
            return echo(call)
        try:
            return await step(call)
        except asyncio.CancelledError:
            self.cancelled.append(call.call_id)
            raise

    async def ready(self) -> str:
        """Say that it is a double."""
        if self.closed:
            raise NotSent("closed", "this backend is closed")
        return "scripted double"

    async def close(self) -> None:
        """Take no more calls."""
        self.closed = True
