"""When a caller whose agent went away had somebody to talk to again."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.ear import Final
from bridge.sandbox.evidence import Posted
from bridge.sandbox.faults import Faults
from bridge.sandbox.media import StreamFacts
from bridge.sandbox.phone import Moment
from bridge.sandbox.playout import Playout
from bridge.sandbox.script import TECHFLOW
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.vapi_call import SandboxCall
from supportvoice.laboratory.person import Person
from supportvoice.laboratory.witness import (
    documents_s,
    first_sounds_s,
    hand_overs,
    jitter_s,
    late_sounds,
    served_again_s,
    well_again_s,
    witnessed,
)

DIALLED_WALL = 1_800_000_000.0
CUT = Final("greeting", CLIPS["greeting"].text, 10.8, 8.0, 10.0, 1.0, 0, 2000)
REST = Final("greeting", CLIPS["greeting"].text, 13.5, 9.0, 13.0, 1.0, 2200, 4000)
FILLER = Final("one_moment", CLIPS["one_moment"].text, 11.2, 10.4, 11.0, 1.0, 0, 600, complete=True)
NAMELESS = Final(None, "", 12.4, 12.0, 12.3, 0.4, 0, 0)
NEXT = Final("opening_hours", CLIPS["opening_hours"].text, 16.0, 14.0, 15.5, 1.0, 0, 1500, complete=True)


def a_call(heard: list[Final], *told: tuple[str, float]) -> Any:
    timeline = [Moment(at, what) for what, at in told]
    return cast(Any, SimpleNamespace(heard=heard, timeline=timeline, phone=SimpleNamespace(origin=5.0), dialled_wall=DIALLED_WALL))


@pytest.mark.parametrize(
    ("heard", "told", "after_s"),
    [
        ([CUT, FILLER, NEXT], [("hears-speech", 10.42), ("hears-speech", 14.02)], 4.0),
        ([CUT, FILLER, REST, NEXT], [], 1.2),
        ([CUT, FILLER], [("hears-speech", 10.42)], None),
        ([CUT, FILLER, NAMELESS, NEXT], [("hears-speech", 12.0), ("hears-speech", 14.02)], 2.0),
        ([CUT], [("say", 11.0), ("hears-speech", 11.02), ("said", 12.5)], None),
        ([CUT], [("hears-speech", 10.1)], None),
    ],
    ids=[
        "a new sentence",
        "the rest of the one that was cut, from where it goes on",
        "a filler is nobody to talk to",
        "words that the caller interrupted at once",
        "what Twilio says itself is a filler",
        "what was heard before the house had noticed is the old agent",
    ],
)
def test_a_caller_is_served_again_by(heard: list[Final], told: list[tuple[str, float]], after_s: float | None) -> None:
    call = a_call(heard, *told)
    served = served_again_s(call, [], 10.0, 0.2)
    assert served == (None if after_s is None else pytest.approx(after_s))


def connected(at: float) -> Any:
    """An agent at Vapi who hears the caller from then on."""
    started = datetime.fromtimestamp(at - 5.0 + DIALLED_WALL, UTC).isoformat()
    return cast(Any, SimpleNamespace(public={"startedAt": started}, turns=()))


@pytest.mark.parametrize(
    ("spoke_at", "connected_at", "after_s"),
    [(12.0, [6.0, 11.5], 2.0), (12.0, [6.0, 13.2], 3.2), (12.0, [6.0], 4.0), (12.0, [6.0, 14.5], 4.0), (14.3, [11.5], 4.0)],
    ids=["to one who is there", "before one is there", "to nobody", "to nobody until somebody spoke", "after somebody spoke"],
)
def test_a_caller_who_speaks_first_is_served_when_an_agent_hears_them(spoke_at: float, connected_at: list[float], after_s: float) -> None:
    call = a_call([NEXT], ("caller-says", 9.0), ("caller-says", spoke_at), ("hears-speech", 14.02))
    assert served_again_s(call, [connected(at) for at in connected_at], 10.0, 0.2) == pytest.approx(after_s)


def test_who_was_never_left_is_not_served_again() -> None:
    assert served_again_s(a_call([NEXT]), [], 10.0, None) is None


def test_the_first_sound_counts_from_the_start_of_each_stream_that_the_caller_heard_something_on() -> None:
    playout = Playout(5.0)
    for at in (6.4, 9.2, 13.0):
        playout.play(b"\xff" * 800 + b"\x10" * 160, at)  # a tenth of a second of silence goes before
    streams = [
        StreamFacts("MZ1", started_at=6.0, ended_at=8.0, end="vanished"),
        StreamFacts("MZ2", started_at=8.5, end="refused"),
        StreamFacts("MZ3", started_at=9.0, ended_at=11.0, end="server-closed"),
        StreamFacts("MZ4", started_at=11.5, ended_at=12.0, end="broken"),
        StreamFacts("MZ5", end="broken"),
    ]
    call = a_call([], ("say", 5.5))
    call.streams, call.phone.playout, call.phone.now = streams, playout, lambda: 14.0
    assert list(first_sounds_s(call)) == pytest.approx([0.5, 0.3])


@pytest.mark.parametrize(
    ("heard_at", "stood_still", "stopped_at", "spoke_at", "whose"),
    [
        (7.0, (6.0, 7.0), [], 6.5, []),
        (7.3, (0.0, 0.0), [5.9, 7.4], 2.0, ["house"]),
        (7.3, (6.5, 6.9), [], 6.5, ["machine_stood_still"]),
        (7.3, (6.5, 6.7), [], 7.1, ["house"]),
        (9.3, (6.5, 6.9), [6.4], 6.5, ["process_stopped"]),
        (7.3, (0.0, 0.0), [], 6.9, ["caller_spoke"]),
        (7.3, (0.0, 0.0), [], 5.9, ["caller_spoke"]),
    ],
    ids=[
        "in time",
        "late",
        "in time but for the machine",
        "late, whatever the machine did",
        "its process was stopped meanwhile",
        "the caller begins",
        "the caller goes on",
    ],
)
def test_a_sound_that_comes_too_late_is_the_houses_unless_something_else_made_it_late(
    heard_at: float, stood_still: tuple[float, float], stopped_at: list[float], spoke_at: float, whose: list[str]
) -> None:
    playout = Playout(5.0)
    playout.play(b"\x10" * 160, heard_at)
    began, over = stood_still
    call = a_call([])
    call.timeline = [Moment(spoke_at, "caller-says", {"clip": "already_tried"})]  # 1.4 s
    call.streams = [StreamFacts("MZ1", started_at=6.0, ended_at=12.0, end="server-closed")]
    call.phone.playout, call.phone.stood_still_s = playout, lambda since, until: min(until, over) - max(since, began)
    assert list(late_sounds(call, stopped_at)) == whose


async def test_the_judge_is_told_what_was_heard_of_the_greeting_and_by_when_the_house_knew_what_the_caller_wants() -> None:
    call = TwilioCall(webhook_url="http://house/", auth_token="key", caller=Person(), web=cast(Any, None))
    origin = call.phone.origin
    half = CLIPS["greeting"].ms // 2
    call.phone.heard += [
        Final("greeting", "", origin + 4, origin + 1, origin + 3, 1.0, half, 2 * half),
        Final("not_remembered", "", origin + 9, origin + 7, origin + 8, 1.0, 0, 2000),
    ]
    session = SandboxCall("one", {"name": "CA1.0"}, {}, {}, TECHFLOW, Faults())
    said = {"type": "transcript", "transcriptType": "final", "role": "user"}
    for at, words, status in ((1.0, CLIPS["cannot_log_in"].text, 503), (2.0, CLIPS["cannot_log_in"].text, 200), (3.0, "log in", 200)):
        session.posted.append(Posted(origin + at, "transcript", {"message": {**said, "transcript": words}}, status, 1, 0.25))
    seen = witnessed(call, [session], [], healthy="R1", looked_at_wall=call.dialled_wall)
    (greeting,) = seen.greetings
    assert (greeting.at, greeting.begins, greeting.ends) == pytest.approx((1 + half / 1000, 0.5, 1.0))
    assert seen.forgot == pytest.approx([7.0])
    assert seen.vapi[0].told_at == pytest.approx(2.25)


async def test_who_talked_with_the_agent_of_our_second_account_stood_on_the_rung_of_the_backup() -> None:
    call = TwilioCall(webhook_url="http://house/", auth_token="key", caller=Person(), web=cast(Any, None))
    first, second = (SandboxCall(name, {"name": name}, {}, {}, TECHFLOW, Faults()) for name in ("CA1.0", "CA1.1"))
    first.turns = cast(Any, object())
    how: dict[str, Any] = {"healthy": "R2", "looked_at_wall": call.dialled_wall, "at_backup": [second]}
    assert witnessed(call, [first, second], [], **how).lowest == "R0"
    second.turns = cast(Any, object())
    assert witnessed(call, [first, second], [], **how).lowest == "R2"


async def test_only_a_stream_that_ended_without_a_close_frame_is_told_as_broken() -> None:
    call = TwilioCall(webhook_url="http://house/", auth_token="key", caller=Person(), web=cast(Any, None))
    origin = call.phone.origin
    call.streams += [StreamFacts("MZ1", ended_at=origin + 5, end="server-closed"), StreamFacts("MZ2", ended_at=origin + 9, end="broken")]
    assert witnessed(call, [], [], healthy="R1", looked_at_wall=call.dialled_wall).broken == pytest.approx([9.0])


def test_each_document_was_waited_for_since_it_was_asked_for() -> None:
    told = [("asks", 1.0), ("document", 1.2), ("stream-started", 2.0), ("asks", 3.0), ("asks", 5.0), ("document", 5.5)]
    assert list(documents_s(a_call([], *told))) == pytest.approx([0.2, 0.5])


def handed_on(*, caller_says: tuple[float, float] = (0.0, 0.0), end: str = "server-closed") -> TwilioCall:
    """The agent is heard from 1 to 3 s and from 4.5 s on; its first stream ends after 3.2 s, the next one begins after 3.7 s."""
    call = TwilioCall(webhook_url="http://house/", auth_token="key", caller=Person(), web=cast(Any, None))
    origin, silent, loud = call.phone.origin, b"\xff", b"\x10"
    began, over = (round(8000 * at) for at in caller_says)
    call.phone.said += silent * began + loud * (over - began) + silent * (8 * 8000 - over)
    call.phone.playout.play(loud * 2 * 8000, origin + 1.0)
    call.phone.playout.play(loud * 8000, origin + 4.5)
    call.streams += [
        StreamFacts("MZ1", started_at=origin + 0.5, ended_at=origin + 3.2, end=end),
        StreamFacts("MZ2", started_at=origin + 3.4, end="refused"),
        StreamFacts("MZ3", started_at=origin + 3.7, ended_at=origin + 7.0, end="hung-up"),
    ]
    return call


@pytest.mark.parametrize(
    ("caller_says", "silence_s"),
    [((0.0, 0.0), 1.5), ((3.6, 4.2), 0.6), ((0.2, 0.8), 1.5), ((2.8, 3.8), 0.7)],
    ids=["nobody", "in between", "long before", "over the end of the stream"],
)
async def test_the_gap_of_a_hand_over_is_the_houses_whoever_speaks_and_silence_is_that_of_both(
    caller_says: tuple[float, float], silence_s: float
) -> None:
    (gone_over,) = hand_overs(handed_on(caller_says=caller_says))
    assert (gone_over.gap_s, gone_over.silence_s, gone_over.between_s) == pytest.approx((1.3, silence_s, 0.5), abs=0.021)


async def test_a_stream_that_broke_off_was_not_handed_on() -> None:
    assert list(hand_overs(handed_on(end="broken"))) == []


async def test_jitter_is_between_frames_known_by_their_bytes_and_none_is_made_up() -> None:
    first, second, third, fourth = (bytes([each]) * 160 for each in range(4))
    call = handed_on()
    call.streams[0].voiced += [(1.00, first), (1.02, second), (1.04, third), (1.06, fourth)]
    session = SandboxCall("one", {"name": "CA1.0"}, {}, {}, TECHFLOW, Faults())
    session.evidence.voiced += [(1.01, first), (1.02, b"somebody else's"), (1.05, second), (1.08, fourth)]
    assert list(jitter_s(call, [session])) == pytest.approx([0.02, 0.01])


async def test_a_house_is_well_again_when_the_last_late_document_has_come() -> None:
    first, last = handed_on(), handed_on()
    last.phone.origin = first.phone.origin + 1.0
    assert well_again_s([first, last]) == 0.0
    told = [("asks", 0.2), ("document", 0.4), ("asks", 2.0), ("document", 2.6), ("asks", 9.0), ("document", 9.4)]
    first.phone.timeline += [Moment(first.phone.origin + at, what) for what, at in told]
    assert well_again_s([first, last]) == pytest.approx(1.6)
    first.phone.timeline.clear()
    first.phone.timeline += [Moment(first.phone.origin + at, what) for what, at in (("asks", 0.1), ("document", 0.7))]
    assert well_again_s([first, last]) == 0.0
