"""A disk under a vault that fails one step."""

from __future__ import annotations

from pathlib import Path

from policy.vault.files import Files


class BrokenDisk(Files):
    """A disk that fails at its nth step, before or after having done it."""

    def __init__(self, failing: int, *, after: bool) -> None:
        self.left, self.after = failing, after

    def _step(self, action: object, *arguments: object) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise OSError(5, "Input/output error")
        action(*arguments)
        if self.left == 0:
            raise OSError(5, "Input/output error")

    def write(self, path: Path, data: bytes) -> None:
        """Write, or fail."""
        self._step(super().write, path, data)

    def publish(self, temporary: Path, path: Path) -> None:
        """Publish, or fail."""
        self._step(super().publish, temporary, path)

    def replace(self, temporary: Path, path: Path) -> None:
        """Replace, or fail."""
        self._step(super().replace, temporary, path)

    def overwrite(self, path: Path) -> None:
        """Overwrite, or fail."""
        self._step(super().overwrite, path)

    def remove(self, path: Path) -> None:
        """Remove, or fail."""
        self._step(super().remove, path)

    def sync(self, folder: Path) -> None:
        """Sync, or fail."""
        self._step(super().sync, folder)
