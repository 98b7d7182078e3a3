"""A place for files that fails one call: before it is done, or behind it, when the answer is lost."""

from __future__ import annotations

from evidence.errors import UnavailableError

CALLS = ("create", "replace", "replace_many", "read", "list", "folders", "delete")


class FailingFiles:
    """Counts the calls to a place for files, and fails one of them."""

    def __init__(self, files, at=0, *, behind=False):
        self.files = files
        self.at = at
        self.behind = behind
        self.names = []

    def _call(self, name, *given):
        self.names.append(name)
        mine = len(self.names) == self.at
        if mine and not self.behind:
            raise UnavailableError(f"{name} was not done")
        try:
            found = getattr(self.files, name)(*given)
            return list(found) if name == "list" else found
        finally:
            if mine:  # whatever the answer was: that there is nothing, too
                raise UnavailableError(f"{name} was done, and its answer is lost")

    def create(self, path, data):
        """Create a file."""
        return self._call("create", path, data)

    def replace(self, path, data):
        """Replace a file."""
        return self._call("replace", path, data)

    def replace_many(self, items):
        """Replace files."""
        return self._call("replace_many", list(items))

    def read(self, path):
        """Read a file."""
        return self._call("read", path)

    def list(self, prefix):
        """List files."""
        return iter(self._call("list", prefix))

    def folders(self, prefix):
        """List folders."""
        return self._call("folders", prefix)

    def delete(self, path):
        """Delete a file."""
        return self._call("delete", path)

    def __getattr__(self, name):
        return getattr(self.files, name)
