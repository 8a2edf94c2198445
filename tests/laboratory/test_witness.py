"""When a caller whose agent went away had somebody to talk to again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.ear import Final
from supportvoice.laboratory.witness import served_again_s

CUT = Final("greeting", CLIPS["greeting"].text, 10.8, 8.0, 10.0, 1.0, 0, 2000)
REST = Final("greeting", CLIPS["greeting"].text, 13.5, 9.0, 13.0, 1.0, 2200, 4000)
FILLER = Final("one_moment", CLIPS["one_moment"].text, 11.2, 10.4, 11.0, 1.0, 0, 600, complete=True)
NEXT = Final("opening_hours", CLIPS["opening_hours"].text, 16.0, 14.0, 15.5, 1.0, 0, 1500, complete=True)


@pytest.mark.parametrize(
    ("heard", "after_s"),
    [
        ([CUT, FILLER, NEXT], 4.0),
        ([CUT, FILLER, REST, NEXT], 1.2),
        ([CUT, FILLER], None),
    ],
    ids=["a new sentence", "the rest of the one that was cut, from where it goes on", "a filler is nobody to talk to"],
)
def test_a_caller_is_served_again_by(heard: list[Final], after_s: float | None) -> None:
    call = cast(Any, SimpleNamespace(heard=heard))
    served = served_again_s(call, 10.0, 0.2)
    assert served == (None if after_s is None else pytest.approx(after_s))


def test_who_was_never_left_is_not_served_again() -> None:
    assert served_again_s(cast(Any, SimpleNamespace(heard=[NEXT])), 10.0, None) is None
