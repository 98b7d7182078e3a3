"""What Ctrl-C does when.

While a command loads what it needs there is nothing to stop, and an exception in the midst of a native library's import
comes out as something else: the signal then simply ends the process (a shell shows 130). From `listen` on it is an
exception, as always in Python. A process that was started with SIGINT ignored, as shells do in the background, keeps
ignoring it.
"""

from __future__ import annotations

import signal
import threading


def end_quietly() -> None:
    """From now on, Ctrl-C ends the process at once and without a word."""
    if _ours() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def listen() -> None:
    """From now on, Ctrl-C raises KeyboardInterrupt, so that what was begun can be ended."""
    if _ours() and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _ours() -> bool:
    return threading.current_thread() is threading.main_thread()
