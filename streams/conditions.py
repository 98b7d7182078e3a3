"""What a worker knows about the parts that it needs and does not run itself: the broker, the vault's disk."""

from __future__ import annotations

RUNNING = "running"


class Conditions:
    """The condition of each part, by name; `/health` is good where all of them run."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def good(self, name: str) -> bool:
        """Note that a part works; return whether that is news."""
        changed = self._states.get(name, RUNNING) != RUNNING
        self._states[name] = RUNNING
        return changed

    def bad(self, name: str, why: str) -> bool:
        """Note that a part does not work, and why; return whether it worked before."""
        changed = self._states.get(name, RUNNING) == RUNNING
        self._states[name] = f"waiting: {why}"
        return changed

    def states(self) -> dict[str, str]:
        """Return the condition of each part."""
        return dict(self._states)
