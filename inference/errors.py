"""What can go wrong between a call and its answer, by what the caller may do next.

    BackendError
    ├── NotSent        provably nothing left: the next route of the fallback set may be tried
    ├── Unavailable    it refused before it did any work (429, 503): the next route may be tried
    ├── Malformed      it answered something that is no answer: the next route may be tried
    ├── Rejected       it answered that the call itself is wrong (4xx): the same call always fails
    └── Ambiguous      it may have accepted the call: neither retried nor routed around (promise P5)

A model's refusal is none of these: it is an answer, `Completion.refused`, and never triggers a fallback.
"""

from __future__ import annotations

from evidence.errors import PermanentError, RetryableError, WaybillError
from inference.backend import Tokens


class BackendError(WaybillError):
    """A call to a model ended without an answer.

    Attributes:
        code: a stable, lower-case reason code such as `connect_failed` or `http_429`.
        provider: who was spoken to, as it said itself where it did ("" where nobody answered).
        tokens: what the destination counted for an answer that is of no use; None where it counted nothing.
    """

    def __init__(self, code: str, message: str, *, provider: str = "", tokens: Tokens | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.provider = provider
        self.tokens = tokens


class NotSent(BackendError, RetryableError):  # noqa: N818 - a state of the call, named as evidence names it
    """Provably no byte of the request left; the next route of the fallback set may be tried."""


class Unavailable(BackendError, RetryableError):  # noqa: N818 - the same
    """The destination answered that it will not serve this now; the next route may be tried."""


class Malformed(BackendError, RetryableError):  # noqa: N818 - the same
    """The destination answered with something that is no answer; the next route may be tried."""


class Rejected(BackendError, PermanentError):  # noqa: N818 - the same
    """The destination answered that the call itself is wrong; the same call always fails there."""


class Ambiguous(BackendError):  # noqa: N818 - the same
    """The call may have been accepted and its answer is lost; the request becomes `unknown` until reconciled."""
