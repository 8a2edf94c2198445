"""When Python looks for what nobody uses any more: a look at everything keeps every call of the process waiting.

It takes a microsecond for each thing that is there, and a live call is 360 of them: with a hundred calls 26 to 54 ms, once or twice in
half a minute, with thirty less than 10. What a call leaves behind in circles is found by looks at what is young, but for some fifteen
things. So with many calls on the line a look at everything is made every half hour or so, not every quarter of a minute; with few of
them it costs nobody a frame, with none everything that is there then is set aside.
"""

from __future__ import annotations

import gc

FEW = 25  # calls whose things are looked at within 10 ms on a slow core
EVERY_FEW, EVERY_MANY = 10, 1000  # looks at what is younger, between two looks at everything


def set_aside_what_stays() -> None:
    """A full collection of the loaded process costs two audio frames of every call: later ones look at what is new alone."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def pace(calls: int) -> None:
    """Look at everything as often as so many live calls can bear."""
    young, younger, before = gc.get_threshold()
    every = EVERY_FEW if calls <= FEW else EVERY_MANY
    if every != before:
        gc.set_threshold(young, younger, every)
