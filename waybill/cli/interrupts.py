"""What Ctrl-C does when, and the signals that end a worker.

While a command loads what it needs, or only reads, there is nothing to be ended in order: the signal ends the process
with 130, at once and without a word. An exception in the midst of a native library's import comes out as something
else, and Python's own handlers wait until native code returns, which a query may do minutes later; so the signal wakes
a thread. From `listen` on it is an exception, as always in Python. A process that was started with SIGINT ignored, as
shells do in the background, keeps ignoring it.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

_INTERRUPTED: Final = 128 + signal.SIGINT

STOPS: Final = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a worker in order."""


class Ended(SystemExit):
    """The program ends with this code. An event loop passes it on, as it does with no ordinary exception."""


def end_quietly() -> None:
    """From now on, Ctrl-C ends the process at once and without a word, also in the midst of a query."""
    if _ours() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _Watch.begin()


def end_at_once() -> None:
    """From now on, SIGTERM and SIGHUP end the process with exit code 0: a worker that has not begun has nothing to end.

    The next handlers that are set for them take over.
    """
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            signal.signal(number, lambda *_: os._exit(0))


def listen() -> None:
    """From now on, Ctrl-C raises KeyboardInterrupt, so that what was begun can be ended."""
    if _ours() and _Watch.current is not None:
        _Watch.current.end()


class _Watch(threading.Thread):
    """Ends the process when the signal comes, whatever the main thread does."""

    current: _Watch | None = None

    def __init__(self) -> None:
        super().__init__(name="interrupts", daemon=True)
        self._pipe, self._bell = os.pipe()
        os.set_blocking(self._bell, False)

    @classmethod
    def begin(cls) -> None:
        """Watch for the signal."""
        watch = cls()
        watch.start()
        signal.set_wakeup_fd(watch._bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
        cls.current = watch

    def end(self) -> None:
        """Watch no longer; the thread is gone when this returns."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(-1)
        os.close(self._bell)
        self.join()
        type(self).current = None

    def run(self) -> None:
        """Wait for the signal, or until nobody can ring any more."""
        while came := os.read(self._pipe, 1):
            if came[0] == signal.SIGINT:
                os._exit(_INTERRUPTED)
        os.close(self._pipe)


def _ours() -> bool:
    return threading.current_thread() is threading.main_thread()
