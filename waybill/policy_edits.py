"""Whether the policy folder was edited since a version of it was activated."""

from __future__ import annotations

from evidence.errors import ConfigError
from inference import rulebook
from waybill.settings import Settings


def edited(settings: Settings) -> str | None:
    """Say that the configured policies are others than those in force; None where they are the same.

    Once a version was activated, edits of the configured folder have no effect by themselves.

    Raises:
        ConfigError: the record of what was activated cannot be read.
    """
    active = settings.policy_versions.active()
    if active is None or not settings.policy.is_dir():
        return None
    try:
        digest: str | None = rulebook.read(settings.policy, settings.routes).policy_digest
    except ConfigError:
        digest = None  # what is half edited differs too
    if digest == active.activation.digest:
        return None
    since = f"{active.activation.at:%Y-%m-%d %H:%M}"
    return (
        f"{settings.policy} differs from the policies in force since {since}, and has no effect: "
        f"`waybill policy activate {settings.policy} --reason TEXT` puts it in force"
    )
