"""What Ctrl-C does when.

While a command loads what it needs there is nothing to stop, and an exception in the midst of a native library's import
comes out as something else: the signal then simply ends the process (a shell shows 130). From `listen` on it is an
exception, as always in Python; from `end_at_once` on, in commands that only read, it ends the process whatever it does.
A process that was started with SIGINT ignored, as shells do in the background, keeps ignoring it.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

_INTERRUPTED: Final = 128 + signal.SIGINT


def end_quietly() -> None:
    """From now on, Ctrl-C ends the process at once and without a word."""
    if _ours() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def listen() -> None:
    """From now on, Ctrl-C raises KeyboardInterrupt, so that what was begun can be ended."""
    if _ours() and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_at_once() -> None:
    """From now on, Ctrl-C ends the process with 130 and without a word, also in the midst of a query.

    Python's own handlers wait until native code returns, which a query may do minutes later. The signal wakes a thread
    instead; there is nothing to be ended in order, because nothing was begun.
    """
    if not (_ours() and signal.getsignal(signal.SIGINT) is signal.SIG_DFL):
        return
    here, there = os.pipe()
    os.set_blocking(there, False)
    signal.set_wakeup_fd(there, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    threading.Thread(target=_wait, args=(here,), name="interrupts", daemon=True).start()


def _wait(pipe: int) -> None:
    while os.read(pipe, 1) != bytes([signal.SIGINT]):
        pass
    os._exit(_INTERRUPTED)


def _ours() -> bool:
    return threading.current_thread() is threading.main_thread()
