"""The one seam to whoever answers: `await backend.complete(call)`.

Every implementation passes the contract suite in `tests/contract/test_backend_contract.py`; the double that ships
for users of the seam is `inference.testing.ScriptedBackend`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from pydantic import SecretStr

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    """Who speaks."""

    content: str
    """What is said, as text."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """All that a backend is told about a call; nothing else of the request reaches it."""

    call_id: str
    """Unique for this attempt, and the id of its intent record; sent along as `Idempotency-Key` where that exists."""

    model: str
    """The model's name as the destination knows it."""

    messages: tuple[Message, ...]
    """The conversation, already minimised and redacted."""

    max_tokens: int
    """Upper bound of generated tokens, at least 1."""

    timeout_s: float
    """Seconds until the call is given up; more than 0."""

    temperature: float | None = None
    """Sampling temperature; 0 is greedy. None leaves it to a hosted destination, and is 0 for a local model."""

    traceparent: str = ""
    """W3C trace context for this hop ("" sends none)."""

    authorization: SecretStr | None = None
    """The value of the `Authorization` header for this call alone, in place of the backend's own key; None where the
    backend's key, or nothing, will do. A destination without such a header never sees it."""


MAX_TOKENS: Final = 1_000_000_000
"""The largest count of tokens that is believed."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts of one answer, as far as the destination gives counts that can be."""

    input: int | None = None
    """Tokens read, 0 to `MAX_TOKENS`; None where that is not known."""

    output: int | None = None
    """Tokens generated, reasoning among them; the same."""

    cached: int = 0
    """Tokens among those read that came from a cache."""

    reasoning: int = 0
    """Tokens among those generated that are no part of the text."""

    @property
    def known(self) -> bool:
        """Whether a price can be computed."""
        return self.input is not None and self.output is not None


UNKNOWN_TOKENS: Final = Tokens()


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer."""

    text: str
    """What the model said; for a refusal, how it refused."""

    finish_reason: FinishReason
    """Why generation ended."""

    provider: str
    """Who answered, as it said itself; a stand-in always says `stand-in`."""

    model: str
    """The model that answered, as the destination names it ("" where it gives no name that can be one)."""

    response_id: str
    """The destination's own id of the answer ("" where it gives none); never used as a key."""

    tokens: Tokens
    """Tokens, as the destination counts them."""

    first_chunk_s: float | None = None
    """Seconds from the call to its first generated token; None where the answer came whole."""

    refused: bool = False
    """True where the model or its provider declined to answer."""

    stated_reason: str = ""
    """The destination's own word for why generation ended, where it is not `finish_reason` ("" where it is)."""

    @property
    def input_tokens(self) -> int | None:
        """Tokens read; None where that is not known."""
        return self.tokens.input

    @property
    def output_tokens(self) -> int | None:
        """Tokens generated; None where that is not known."""
        return self.tokens.output


class Backend(Protocol):
    """Takes a call, gives an answer, or raises exactly one `inference.errors.BackendError`."""

    async def complete(self, call: ModelCall) -> Completion:
        """Ask once, without retries.

        Cancelling the awaiting task stops the generation at the destination where the protocol can express it.

        Raises:
            NotSent: provably nothing was sent.
            Unavailable: the destination answered that it will not serve this now.
            Malformed: the destination's answer is no answer (an empty one from a failed model counts).
            Rejected: the destination answered that the call is wrong.
            Ambiguous: the call may have been accepted, and its answer is lost or late (`timeout_s` included).
        """
        ...

    async def ready(self) -> str:
        """Say in a short phrase who is there (for `waybill doctor`).

        Raises:
            NotSent: nobody is, and why.
        """
        ...

    async def close(self) -> None:
        """Give back connections; safe to call twice."""
        ...
