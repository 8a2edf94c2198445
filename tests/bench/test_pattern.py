"""The ear of the bench: it finds every fault there is, and none that is not there."""

from __future__ import annotations

from base64 import b64decode

from hypothesis import given
from hypothesis import strategies as st

from supportvoice.bench.pattern import FRAME, SILENCE, Counts, Ear, Meter, frame, frame_as_text, number_of

VOICE = 7


def heard(arrives: bytes, *, sent: int, chunk: int = FRAME) -> Counts:
    ear = Ear(VOICE)
    for number in range(sent):
        ear.sent(number * 0.02)
    for place in range(0, len(arrives), chunk):
        ear.take(arrives[place : place + chunk], at=sent * 0.02)
    return ear.settle()


def frames(*numbers: int) -> bytes:
    return b"".join(frame(VOICE, number) for number in numbers)


@given(st.integers(0, 16_383), st.integers(0, 2**28 - 1))
def test_a_frame_says_which_it_is_in_bytes_and_in_text_and_is_never_silence(voice: int, number: int) -> None:
    block = frame(voice, number)
    assert len(block) == FRAME
    assert 0xFF not in block
    assert b64decode(frame_as_text(voice, number)) == block
    assert number_of(voice, block) == number
    assert number_of(voice + 1, block) is None


@given(st.integers(1, 60), st.integers(1, 1000))
def test_sound_that_arrives_whole_is_right_in_whatever_chunks(sent: int, chunk: int) -> None:
    assert heard(frames(*range(sent)), sent=sent, chunk=chunk) == Counts(sent=sent, arrived=sent)


def test_a_frame_that_is_missing_is_lost() -> None:
    counts = heard(frames(0, 1, 3), sent=4)
    assert (counts.lost, counts.reordered, counts.right) == (1, 0, False)


def test_frames_that_never_arrived_at_the_end_are_lost_too() -> None:
    assert heard(frames(0, 1), sent=5).lost == 3


def test_two_frames_the_wrong_way_round_are_one_reordering_and_no_loss() -> None:
    counts = heard(frames(0, 2, 1, 3), sent=4)
    assert (counts.reordered, counts.lost, counts.arrived, counts.right) == (1, 0, 4, False)


def test_a_frame_that_comes_again_is_doubled() -> None:
    counts = heard(frames(0, 1, 1, 2), sent=3)
    assert (counts.doubled, counts.lost, counts.right) == (1, 0, False)


def test_one_wrong_byte_is_found() -> None:
    sound = bytearray(frames(0, 1, 2))
    sound[200] ^= 1
    counts = heard(bytes(sound), sent=3)
    assert (counts.garbled, counts.lost, counts.right) == (1, 1, False)


def test_a_frame_of_another_call_is_garbled() -> None:
    assert heard(frames(0) + frame(VOICE + 1, 1), sent=2).garbled == 1


def test_a_frame_nobody_has_sent_yet_is_garbled() -> None:
    assert heard(frames(0, 1), sent=1).garbled == 1


def test_silence_that_was_filled_in_is_counted_and_no_fault() -> None:
    counts = heard(frames(0) + SILENCE + frames(1), sent=2)
    assert (counts.filled, counts.arrived, counts.right) == (1, 2, True)


def test_bytes_that_are_no_whole_frame_are_garbled() -> None:
    assert heard(frames(0)[:-1], sent=1).garbled == 1


def test_a_delay_is_from_when_a_frame_was_complete_to_when_its_last_byte_came() -> None:
    ear = Ear(VOICE)
    ear.sent(1.0)
    ear.sent(1.02)
    assert ear.take(frames(0, 1)[: FRAME + 10], at=1.5) == [(0, 0.5)]
    ((number, delay),) = ear.take(frames(0, 1)[FRAME + 10 :], at=1.6)
    assert number == 1
    assert round(delay, 6) == 0.58


def test_what_an_interruption_may_cut_is_not_lost_and_what_was_sent_long_before_is() -> None:
    ear = Ear(VOICE)
    for number in range(10):
        ear.sent(number * 0.02)
    ear.may_be_cut(since=0.099)  # the last five
    ear.take(frames(*range(4)), at=1.0)
    counts = ear.settle()
    assert (counts.cut, counts.lost) == (5, 1)


def test_old_sound_after_the_clear_is_stale() -> None:
    ear = Ear(VOICE)
    for number in range(4):
        ear.sent(number * 0.02)
    ear.take(frames(0, 1), at=0.1)
    ear.cleared(3)
    ear.take(frames(2, 3), at=0.2)
    assert (ear.counts.stale, ear.settle().right) == (1, False)


def test_converted_sound_is_counted_frame_by_frame_and_what_was_cut_moves_nothing() -> None:
    meter = Meter(VOICE, block=640)
    for number in range(5):
        meter.sent(float(number))
    assert meter.take(bytes(1000), at=5.0) == [(0, 5.0)]
    assert meter.take(bytes(300), at=5.0) == [(1, 4.0)]
    meter.may_be_cut(since=2.0)
    meter.cleared(5)
    meter.sent(6.0)
    assert meter.take(bytes(640), at=6.5) == [(5, 0.5)]
    counts = meter.settle()
    assert (counts.sent, counts.arrived, counts.cut, counts.lost, counts.right) == (6, 3, 3, 0, True)
