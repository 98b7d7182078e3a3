"""What policy is asked: facts and labels of a request, a route, and what has been granted; never any content.

The names here are the ones that policies use: `principal.tenant`, `resource.region`, `context.class`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from policy.labels import Encryption

Action = Literal["model-call", "refinement", "tool-call", "evidence-export", "local-call"]
"""What may be done: four ways to cross the boundary, and one to stay inside."""

CROSSINGS: Final[tuple[Action, ...]] = ("model-call", "refinement", "tool-call", "evidence-export")
"""The actions that leave."""

BASES: Final = ("none", "consent", "contract", "legal-obligation", "public-task", "legitimate-interest")
"""Bases that a request can state."""

CONSENT_STATES: Final = ("none", "granted", "withdrawn", "unknown")
"""What the consent register can say."""

IDENTITIES: Final = ("jwt", "unsigned")
"""How actor and tenant were established."""


class Style(StrEnum):
    """How findings are taken out of a text."""

    PSEUDONYM = "pseudonym"
    """`[EMAIL_1]`; the original is kept here, encrypted, and can be revealed."""
    HASH = "hash"
    """`[EMAIL:1f3a…]`, a keyed hash: the same value has the same hash within a tenant."""
    MASK = "mask"
    """`[EMAIL]`."""
    DROP = "drop"
    """Nothing."""


class RouteFacts(NamedTuple):
    """A route, as policy sees it."""

    name: str
    """Its name: `Route::"<name>"`."""
    placement: Literal["local", "hosted"]
    """Which side of the boundary."""
    provider: str
    """Who runs it."""
    region: str
    """Where."""
    model: str
    """The model's name."""
    retention_days: int
    """Days for which it keeps what it is sent."""
    encryption: Encryption
    """How the way there is protected."""
    classes: frozenset[str]
    """Classes that its row and their handling let it take."""


class Facts(NamedTuple):
    """A request, as policy sees it: one value for each name that a policy can read."""

    actor: str
    """`principal.id`: who asks."""
    kind: str
    """`principal.kind`: `user` or `service`."""
    tenant: str
    """`principal.tenant`."""
    roles: frozenset[str]
    """`principal.roles`, from the signed identity."""
    identity: str
    """`principal.identity`: one of `IDENTITIES`."""
    action: Action
    """What is to be done; a route on this side of the boundary is always asked for `local-call`."""
    purpose: str
    """`context.purpose`."""
    task: str
    """`context.task`."""
    risk: int
    """`context.risk`: 0 low, 1 medium, 2 high."""
    basis: str
    """`context.basis`: one of `BASES`."""
    consent: str
    """`context.consent`: one of `CONSENT_STATES`."""


class Granted(NamedTuple):
    """What a decision may rest on."""

    redacted: frozenset[str] = frozenset()
    """`context.redacted`: categories whose findings have been taken out."""
    approved: bool = False
    """`context.approved`: a person with the authority has approved it."""
    overridden: bool = False
    """`context.overridden`: a person with the authority has overridden a decision to escalate."""


NOTHING: Final = Granted()
"""As the request came."""


class Outcome(StrEnum):
    """What policy can answer."""

    ALLOW = "allow"
    TRANSFORM = "transform"
    """Allowed once something has been taken out."""
    REQUIRE_APPROVAL = "require-approval"
    """Allowed once somebody with the authority has approved exactly this."""
    ESCALATE = "escalate"
    """Not allowed, unless somebody with the authority overrides that in writing."""
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policy answers for one route."""

    outcome: Outcome
    """One of five."""

    reasons: tuple[str, ...]
    """Ids of the deciding policies, sorted; `default-deny` where none permits, or the name of a built-in check."""

    granted: Granted = NOTHING
    """What it rests on."""

    styles: tuple[tuple[str, Style], ...] = ()
    """How each category has to be taken out, sorted by category."""

    authorities: tuple[str, ...] = ()
    """Whose approval it needs, sorted."""

    @property
    def free(self) -> bool:
        """Whether it may happen without a person."""
        return self.outcome in {Outcome.ALLOW, Outcome.TRANSFORM}
