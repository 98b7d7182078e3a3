"""Verdicts of people whose identity is signed: the token of the record's header says who they are, not the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from evidence.errors import RecordError
from policy.identity.verify import Verifier, bearer
from streams.approvals import ApprovalVerdict, Approver, Authenticate

if TYPE_CHECKING:
    from collections.abc import Callable


def signed_by(verifier: Verifier, clock: Callable[[], datetime]) -> Authenticate:
    """Give what establishes an approver from a signed token.

    Raises (what it gives):
        RecordError: there is no token, it does not hold, or it is somebody else's than the verdict says.
        UnavailableError: the issuer's keys are too old to be trusted.
    """

    def authenticate(headers: Sequence[tuple[str, bytes | None]], verdict: ApprovalVerdict) -> Approver:
        token = bearer((name, value or b"") for name, value in headers)
        principal = verifier.verify(token, clock())
        if verdict.approver not in {principal.actor_id, f"{principal.actor_kind}:{principal.actor_id}"}:
            raise RecordError("identity_mismatch", "the approver is not the one in the token")
        return Approver(principal.actor_id, principal.roles, principal.method, principal.tenant)

    return authenticate
