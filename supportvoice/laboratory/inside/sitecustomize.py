"""Python reads this first in every process of a laboratory's house. Nothing else of ours uses these two signals.

SIGUSR2 blocks its main thread, and so its event loop, for as long as the file is there that is named by BLOCKED_WHILE.
SIGUSR1 makes it leak, for as long as the file is there that is named by LEAKS_WHILE; at its limit it
is killed, as the system kills who has used up the memory of a container.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

STEP_S = 0.01
LEAKED_AT_ONCE = 1024 * 1024
LEAK_STEP_S = 1 / 8


def block(sig: int, frame: FrameType | None) -> None:
    while os.path.exists(os.environ["BLOCKED_WHILE"]):
        time.sleep(STEP_S)


def leak(sig: int, frame: FrameType | None) -> None:
    threading.Thread(target=leak_on, name="leak", daemon=True).start()


def leak_on() -> None:
    leaked = []
    while os.path.exists(os.environ["LEAKS_WHILE"]):
        try:
            leaked.append(b"\1" * LEAKED_AT_ONCE)
        except MemoryError:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(LEAK_STEP_S)


if "BLOCKED_WHILE" in os.environ:
    signal.signal(signal.SIGUSR2, block)
if "LEAKS_WHILE" in os.environ:
    signal.signal(signal.SIGUSR1, leak)
