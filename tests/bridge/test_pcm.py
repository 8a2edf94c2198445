"""The wide sound: what comes out is what went in, wherever it was cut, and nothing waits.

How loud the rest is beside a tone: a sine of the tone's pitch is fitted to what came out, and what the sine does not
explain is the rest. 60 dB are asked of the filters alone, whose rest has nothing of mu-law's; with mu-law in between, the
rest must be mu-law's own.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import pcm
from bridge.sandbox import sound
from bridge.tone import TONE

GOLDEN = Path(__file__).parent / "golden"
LOUD = 16_000
MOST_DELAY_S = 0.002


def tone(hertz: int, rate: int, seconds: float = 1.0) -> pcm.Numbers:
    samples: pcm.Numbers = np.rint(LOUD * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate + 0.3))
    return samples


def rest_db(heard: pcm.Numbers, hertz: int, rate: int) -> float:
    """How far below a tone everything else is, once the filters are full."""
    heard = heard[200:]
    turns = 2 * np.pi * hertz * np.arange(len(heard)) / rate
    basis = np.column_stack((np.sin(turns), np.cos(turns)))
    fitted = basis @ np.linalg.lstsq(basis, heard, rcond=None)[0]
    return float(10 * np.log10((fitted @ fitted) / ((heard - fitted) @ (heard - fitted))))


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


SOUNDS = st.binary(min_size=1, max_size=1200)
PLACES = st.lists(st.integers(0, 5000), max_size=30)


@given(SOUNDS, PLACES)
def test_cutting_telephone_sound_elsewhere_changes_no_bit_of_the_wide_one(ulaw: bytes, places: list[int]) -> None:
    wide = pcm.ToWide()
    assert b"".join(wide.feed(piece) for piece in cut(ulaw, places)) == pcm.ToWide().feed(ulaw)


@given(SOUNDS, PLACES)
def test_cutting_wide_sound_elsewhere_even_inside_a_sample_changes_no_bit_of_the_telephones(wide: bytes, places: list[int]) -> None:
    narrow = pcm.ToTelephone()
    assert b"".join(narrow.feed(piece) for piece in cut(wide, places)) == pcm.ToTelephone().feed(wide)


def test_every_sample_brings_what_it_makes_at_once() -> None:
    wide, narrow = pcm.ToWide(), pcm.ToTelephone()
    assert [len(wide.feed(bytes([n]))) for n in range(20)] == [4] * 20
    assert [len(narrow.feed(bytes([n]))) for n in range(12)] == [
        0,
        1,
        0,
        0,
    ] * 3  # four bytes a code, due with the first sample of each pair


def test_what_is_heard_is_less_than_2_ms_old() -> None:
    click = b"\xff" * 100 + b"\x80" + b"\xff" * 100
    wide = np.frombuffer(pcm.ToWide().feed(click), dtype="<i2")
    delay_s = (int(np.abs(wide).argmax()) - 200) / 16_000
    back = sound.decode(pcm.ToTelephone().feed(wide.tobytes()))
    both_s = (int(np.abs(back.astype(int)).argmax()) - 100) / 8000
    assert 0 < delay_s < MOST_DELAY_S
    assert 0 < both_s - delay_s < MOST_DELAY_S


@pytest.mark.parametrize("hertz", [1000, 3000])
def test_tones_pass_each_way_with_the_rest_60_db_below_them(hertz: int) -> None:
    wide = pcm.Widening().feed(tone(hertz, 8000)).astype(np.float64)
    narrow = pcm.Narrowing().feed(tone(hertz, 16_000)).astype(np.float64)
    there_and_back = pcm.Narrowing().feed(wide).astype(np.float64)
    assert rest_db(wide, hertz, 16_000) > 60
    assert rest_db(narrow, hertz, 8000) > 60
    assert rest_db(there_and_back, hertz, 8000) > 60
    assert 20 * np.log10(np.abs(wide[200:]).max() / LOUD) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("hertz", [997, 3001])
def test_with_mu_law_on_the_way_the_rest_is_mu_laws_own(hertz: int) -> None:
    """The pitches are no divisors of the rate, so that mu-law's rest is noise and not a tone."""
    own = rest_db(pcm.decoded(pcm.encoded(tone(hertz, 8000).astype(np.int16))), hertz, 8000)
    wide = pcm.ToWide().feed(pcm.encoded(tone(hertz, 8000).astype(np.int16)))
    back = pcm.decoded(pcm.ToTelephone().feed(tone(hertz, 16_000).astype("<i2").tobytes()))
    assert own > 35
    assert rest_db(np.frombuffer(wide, dtype="<i2").astype(np.float64), hertz, 16_000) > own - 0.5
    assert rest_db(back, hertz, 8000) > own - 0.5


def test_what_the_telephone_cannot_carry_is_gone_before_it_could_be_heard_as_something_else() -> None:
    """Above 4.8 kHz; it would come back mirrored at 4 kHz."""
    for hertz in (5000, 6500, 7900):
        assert np.abs(pcm.Narrowing().feed(tone(hertz, 16_000))[100:]).max() <= 8  # 66 dB down


def test_mu_law_is_g711s() -> None:
    """As the sandbox reads it, which shares no line with us; and every code comes back as itself but the negative zero."""
    every = np.arange(-32_768, 32_768).astype(np.int16)
    codes = bytes(range(256))
    assert pcm.encoded(every) == sound.encode(every)
    assert np.array_equal(pcm.decoded(codes), sound.decode(codes))
    assert pcm.encoded(sound.decode(codes)) == codes.replace(b"\x7f", b"\xff")


def test_silence_stays_silence() -> None:
    assert pcm.ToWide().feed(b"\xff" * 800) == bytes(3200)
    assert pcm.ToTelephone().feed(bytes(3200)) == b"\xff" * 800


@pytest.mark.parametrize("name", ["speech", "steps"])
def test_sound_comes_out_as_it_did_when_these_files_were_made(name: str) -> None:
    given = (GOLDEN / f"{name}.ulaw").read_bytes()
    wide = (GOLDEN / f"{name}.s16le").read_bytes()
    assert pcm.ToWide().feed(given) == wide
    assert pcm.ToTelephone().feed(wide) == (GOLDEN / f"{name}.back.ulaw").read_bytes()


def test_the_tone_is_soft_and_has_no_edge() -> None:
    samples = pcm.decoded(TONE.ulaw)
    assert 250 < np.abs(samples).max() < 400
    assert np.abs(samples[[0, 1, 2, -3, -2, -1]]).max() < 60
