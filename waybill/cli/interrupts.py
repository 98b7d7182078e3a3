"""What Ctrl-C does when, and the signals that end a worker.

While a command loads what it needs there is nothing to stop, and an exception in the midst of a native library's import
comes out as something else: the signal then simply ends the process (a shell shows 130). From `listen` on it is an
exception, as always in Python. A process that was started with SIGINT ignored, as shells do in the background, keeps
ignoring it.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

STOPS: Final = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a worker in order."""


def end_quietly() -> None:
    """From now on, Ctrl-C ends the process at once and without a word."""
    if _ours() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_at_once() -> None:
    """From now on, SIGTERM and SIGHUP end the process with exit code 0: a worker that has not begun has nothing to end.

    The next handlers that are set for them take over.
    """
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            signal.signal(number, lambda *_: os._exit(0))


def listen() -> None:
    """From now on, Ctrl-C raises KeyboardInterrupt, so that what was begun can be ended."""
    if _ours() and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _ours() -> bool:
    return threading.current_thread() is threading.main_thread()
