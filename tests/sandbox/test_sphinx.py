"""The ear that hears words: what it makes of what a speech recogniser says. The recogniser is an extra, so here it is played."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bridge.sandbox import sound, sphinx
from bridge.sandbox.clips import CLIPS, spoken_by
from bridge.sandbox.ear import Final, SpeechStarted, Utterance

FRAME = sound.FRAME


class FakeDecoder:
    """Knows every word but one; understands what it is told to, and keeps what it was given."""

    understands = ""
    unknown = "spam"

    def __init__(self, **settings: Any) -> None:
        self.rate = settings["samprate"]
        self.grammar = ""
        self.samples = 0

    def add_word(self, word: str, sounds: str, update: bool) -> None:
        self.added = word

    def lookup_word(self, word: str) -> str | None:
        return None if word == self.unknown else "AH"

    def add_jsgf_string(self, name: str, grammar: str) -> None:
        self.grammar = grammar

    def activate_search(self, name: str) -> None:
        assert name in self.grammar

    def start_utt(self) -> None: ...

    def end_utt(self) -> None: ...

    def process_raw(self, raw: bytes, *, full_utt: bool) -> None:
        self.samples += len(raw) // 2

    def hyp(self) -> Any:
        return SimpleNamespace(hypstr=self.understands) if self.understands else None


def listen(ulaw: bytes) -> tuple[sphinx.SphinxEar, list[Utterance]]:
    ear = sphinx.SphinxEar(spoken_by("caller"))
    found: list[Utterance] = []
    audio = sound.silence(200) + ulaw + sound.silence(1000)
    for end in range(FRAME, len(audio) + 1, FRAME):
        found += ear.hear(audio[end - FRAME : end], end / sound.RATE)
    return ear, found


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> type[FakeDecoder]:
    played = type("Played", (FakeDecoder,), {})
    monkeypatch.setattr(sphinx, "Decoder", played)
    return played


def test_recognised_words_are_the_clip_that_has_them(decoder: type[FakeDecoder]) -> None:
    decoder.understands = "i already tried that"
    ear, found = listen(CLIPS["already_tried"].ulaw)
    started, final = found
    assert isinstance(started, SpeechStarted)
    assert isinstance(final, Final)
    assert (final.clip_name, final.text, final.complete) == ("already_tried", "I already tried that", True)
    assert ear._decoder.rate == 16_000
    spoken_s = final.at - final.started_at
    assert ear._decoder.samples == pytest.approx(16_000 * spoken_s, rel=0.1)


def test_its_grammar_is_the_lines_whose_words_it_knows(decoder: type[FakeDecoder]) -> None:
    decoder.unknown = "tried"
    ear, _ = listen(b"")
    assert "hi i can't log in to my account" in ear._decoder.grammar
    assert "i already tried that" not in ear._decoder.grammar


def test_speech_that_fits_no_line_is_speech_nobody_knows(decoder: type[FakeDecoder]) -> None:
    _, found = listen(CLIPS["greeting"].ulaw)
    finals = [each for each in found if isinstance(each, Final)]
    assert finals
    assert {(final.clip_name, final.text) for final in finals} == {(None, "")}


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sphinx, "Decoder", None)
    with pytest.raises(RuntimeError, match=r"pip install -r requirements/voice\.lock"):
        sphinx.SphinxEar(spoken_by("caller"))
