"""Python reads this first in every process of a laboratory's house: SIGUSR2 then blocks its main thread, and so its event loop.

It is blocked for as long as the file is there that is named by BLOCKED_WHILE. Nothing else of ours uses that signal.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

STEP_S = 0.01


def block(sig: int, frame: FrameType | None) -> None:
    while os.path.exists(os.environ["BLOCKED_WHILE"]):
        time.sleep(STEP_S)


if "BLOCKED_WHILE" in os.environ:
    signal.signal(signal.SIGUSR2, block)
