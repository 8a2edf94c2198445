"""One foreign byte anywhere is found: what carries many calls at once is believed because of this."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox.pattern import SILENCE, Foreign, PatternVoice, noise, place_in, turns_in

SAID = noise("caller 1", 4.0)
TURNS = PatternVoice("agent 1", (1.0, 2.0, 0.5))
for words in ("greeting", "answer", "goodbye"):
    TURNS(words)


def with_byte_of(other: bytes, own: bytes, place: int) -> bytes:
    """`own` with one byte changed into another call's, or into any other where both happen to be alike."""
    byte = other[place] if other[place] != own[place] else own[place] ^ 1
    return own[:place] + bytes([byte]) + own[place + 1 :]


def test_noise_is_a_calls_own_and_never_silence() -> None:
    assert noise("1", 4.0) == noise("1", 4.0)
    assert noise("1", 4.0)[:32] not in noise("2", 4.0)
    assert SILENCE not in SAID


@given(start=st.integers(0, 16_000), length=st.integers(100, 16_000), data=st.data())
def test_one_byte_of_another_call_in_what_arrived_is_found(start: int, length: int, data: st.DataObject) -> None:
    arrived = SAID[start : start + length]
    assert place_in(SAID, arrived) == start
    place = data.draw(st.integers(0, length - 1))
    with pytest.raises(Foreign):
        place_in(SAID, with_byte_of(noise("caller 2", 4.0), arrived, place))
    with pytest.raises(Foreign):
        place_in(SAID, arrived[:place] + arrived[place + 1 :] + b"\x00")


@given(cuts=st.tuples(st.integers(32, 8000), st.integers(32, 16_000), st.integers(32, 4000)), data=st.data())
def test_one_byte_of_another_call_in_what_was_heard_is_found(cuts: tuple[int, int, int], data: st.DataObject) -> None:
    heard = b"".join(turn[:cut] for turn, cut in zip(TURNS.said, cuts, strict=True))
    assert turns_in(heard, TURNS.said) == list(cuts)
    place = data.draw(st.integers(0, len(heard) - 1))
    with pytest.raises(Foreign):
        turns_in(with_byte_of(noise("agent 2", 4.0), heard, place), TURNS.said)


def test_turns_in_another_order_with_a_hole_or_after_something_else_are_foreign() -> None:
    first, second, third = TURNS.said
    in_another_order = (second + first, first + second + third + second, first + third + first)
    with_a_hole = first + second[:4000] + second[6000:]
    for heard in (*in_another_order, with_a_hole, noise("agent 2", 0.1) + first, third[100:]):
        with pytest.raises(Foreign):
            turns_in(heard, TURNS.said)
    assert turns_in(first + second[:4000] + second[2000:9000], TURNS.said) == [len(first), 9000, 0]  # played again from where it was heard
    assert turns_in(first + third, TURNS.said) == [len(first), 0, len(third)]
    assert turns_in(b"", TURNS.said) == [0, 0, 0]
