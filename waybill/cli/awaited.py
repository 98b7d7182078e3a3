"""Decides which response is the answer of which request, when some were sent before and come back as duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

Response = dict[str, Any]
"""A response as it travels."""

DUPLICATE: Final = "duplicate"
STANDING: Final = frozenset({"completed", "refused", "withheld", "unknown"})
"""Outcomes that stand: the same request sent again is a duplicate. After any other it is new work."""


class Awaited:
    """The requests that wait for an answer."""

    def __init__(self, request_ids: Iterable[str]) -> None:
        self._open = set(request_ids)
        self._keys = {request_id.encode() for request_id in self._open}
        self._behind: dict[str, set[str]] = {}
        """By the id of the first request: its duplicates that wait for the same answer."""
        self._searched: set[str] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._open

    @property
    def open(self) -> frozenset[str]:
        """The ids of the requests without an answer."""
        return frozenset(self._open)

    def concerns(self, key: bytes | None) -> bool:
        """Return whether a record with this key can be an answer that is waited for."""
        return key in self._keys

    def take(self, response: Response, *, earlier: bool = False) -> Iterator[Response]:
        """Return the answers that a response settles; each is waited for no more.

        Args:
            response: what was read.
            earlier: it was there before these requests were sent, so that it counts only where it stands.
        """
        request_id, outcome = response["requestId"], response["outcome"]
        if outcome == DUPLICATE:
            if request_id in self._open and not earlier:
                first = response.get("duplicateOf") or request_id
                self._behind.setdefault(first, set()).add(request_id)
                self._keys.add(first.encode())
            return
        if earlier and outcome not in STANDING:
            return
        behind = self._behind.pop(request_id, set())
        for each in sorted({request_id, *behind} & self._open):
            self._open.discard(each)
            yield response if each == request_id else {**response, "requestId": each, "duplicateOf": request_id}

    def end(self, request_id: str) -> None:
        """Wait for a request no more."""
        self._open.discard(request_id)

    def to_search(self) -> frozenset[str]:
        """Return the first requests whose answers were not seen yet, each once: they may have come long ago."""
        found = frozenset(self._behind) - self._searched
        self._searched |= found
        return found
