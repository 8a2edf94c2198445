"""Near the longest time of a session, in whole calls: what comes out of the caller's telephone."""

from __future__ import annotations

from bridge.longest import ROLLED_OVER, TIME_IS_UP
from bridge.sandbox.script import TEN_MINUTES
from supportvoice.rehearsal import Rehearsed, rehearse, words


def sessions(call: Rehearsed) -> int:
    return len(call.details("vapi-connected"))


def test_the_caller_is_told_and_the_last_word_is_heard_to_its_end() -> None:
    call = rehearse(TEN_MINUTES, words("quiet", max_duration_s=60))
    last = call.phone.heard[-1]
    assert (last.clip_name, last.complete) == ("time_is_up", True)
    assert call.closing is not None
    assert (call.closing.why, call.closing.raw) == ("agent-ended", TIME_IS_UP)
    assert sessions(call) == 1


def test_a_conversation_that_goes_on_through_fifteen_sessions_is_heard_as_if_it_were_one() -> None:
    one = rehearse(TEN_MINUTES, words("quiet", max_duration_s=3600))
    many = rehearse(TEN_MINUTES, words("quiet", max_duration_s=60, at_longest="go-on"))
    assert sessions(one) == 1
    assert sessions(many) >= 15
    assert [final.clip_name for final in many.phone.heard] == [final.clip_name for final in one.phone.heard]
    assert many.sentences_cut == one.sentences_cut
    assert many.closing is not None
    assert many.closing.why == "agent-ended"
    assert ROLLED_OVER not in many.closing.raw
