"""What the local models' two hosts have in common: an answer put together from pieces, and errors told by code."""

from __future__ import annotations

import re
from collections.abc import Callable

from inference.backend import MAX_TOKENS, Completion, FinishReason, Tokens
from inference.errors import BackendError, Malformed, Rejected, Unavailable

_TOLD = re.compile(r"\b(bad_request|prompt_too_long|engine_failed|cancelled): (.*)", re.DOTALL)
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class Answer:
    """The pieces of one answer, as they come; made whole by `completion`.

    Attributes:
        ending: why it ended, and tokens read and generated; None while it goes on.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._pieces: list[str] = []
        self._first_s: float | None = None
        self.ending: tuple[FinishReason, Tokens] | None = None

    def piece(self, text: str, elapsed: Callable[[], float]) -> None:
        """Add a piece of text; `elapsed` gives the seconds since the call and is asked at the first."""
        if self._first_s is None:
            self._first_s = elapsed()
        self._pieces.append(text)

    def end(self, reason: str, input_tokens: int, output_tokens: int) -> None:
        """Note how the answer ended.

        Raises:
            Malformed: the reason is none that is known.
        """
        if reason not in _REASONS:
            raise Malformed("bad_ending", f"the model ended for an unknown reason: {reason!r}", provider=self._provider)
        self.ending = (_REASONS[reason], Tokens(_count(input_tokens), _count(output_tokens)))

    def completion(self, model: str) -> Completion:
        """Make the answer whole.

        Raises:
            Malformed: it has no end, or no text: a failed model's empty success is no answer.
        """
        if self.ending is None:
            raise Malformed("incomplete", "the answer stopped without saying why", provider=self._provider)
        reason, tokens = self.ending
        text = "".join(self._pieces)
        if not text:
            raise Malformed("empty_answer", "the model answered without a text", provider=self._provider, tokens=tokens)
        return Completion(
            text=text,
            finish_reason=reason,
            provider=self._provider,
            model=model,
            response_id="",
            tokens=tokens,
            first_chunk_s=self._first_s,
        )


def _count(value: int) -> int | None:
    return value if 0 <= value <= MAX_TOKENS else None


def told(details: str, provider: str) -> BackendError | None:
    """Read an error that the model's engine told by code (`prompt_too_long: ...`); None where it is not one."""
    match = _TOLD.search(details)
    if match is None:
        return None
    code, message = match.groups()
    kind = Rejected if code in ("bad_request", "prompt_too_long") else Unavailable
    return kind(code, message, provider=provider)
