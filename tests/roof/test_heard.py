"""Heard versus said, over the whole path: what came out of the caller's telephone is the truth, the stored lines are judged by it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.pattern import TimedEar
from calls.history import NewEvent, add_line, record_events
from calls.models import Heard, Role, TranscriptLine
from calls.vapi_report import turns
from supportvoice import rehearsal
from supportvoice.rehearsal import Rehearsed
from tests.builders import a_call
from tests.roof.talkers import UnevenVoice, twenty_interruptions, words_heard

pytestmark = pytest.mark.django_db
CALLS = 10
TELLS_TIMES = {"voice_provider": "11labs"}
TELLS_NONE = {"voice_provider": "openai"}
KINDS = ("agent-speech-started", "agent-turn-ended")


@cache
def interrupted(seed: int, *, tells_times: bool = True, tell_heard: bool = True) -> tuple[Rehearsed, UnevenVoice]:
    """A call in which the caller breaks in twenty times, and the voice its agent had."""
    agent = {**(TELLS_TIMES if tells_times else TELLS_NONE), "tell_heard": tell_heard}
    scenario, voice = twenty_interruptions(seed)
    words = rehearsal.words("quiet", first_message=CLIPS["another_way"].text, **agent)
    return rehearsal.rehearse(scenario, words, seed=seed, hears=TimedEar(())), voice


def stored_lines(call: Rehearsed) -> list[TranscriptLine]:
    """The agent's lines as the history has them, after everything was told in the order in which it happened."""
    row = a_call(at=datetime.fromtimestamp(0, UTC))
    told: list[tuple[float, Any]] = [(note.at, note) for note in call.notes if note.kind in KINDS]
    lines = [entry for entry in call.evidence.entries if entry.way == "hook" and entry.kind == "transcript"]
    told += [(entry.at, entry.detail) for entry in lines if entry.detail["role"] == "assistant"]
    for seconds, what in sorted(told, key=lambda each: each[0]):
        at = datetime.fromtimestamp(seconds, UTC)
        if isinstance(what, dict):
            ms = int(seconds * 1000)
            add_line(call=row, vapi_call_id="v", role=Role.ASSISTANT, text=what["transcript"], vendor_ms=ms, at=at, n=0)
        else:
            record_events(call_sid=row.call_sid, events=[NewEvent(what.kind, what.source, at, what.detail)])
    return list(TranscriptLine.objects.filter(call=row, role=Role.ASSISTANT))


def count(line: TranscriptLine) -> int:
    return len((line.said if line.heard == Heard.FULL else line.heard_text).split())


def differences(*, tells_times: bool) -> list[int]:
    """For each interruption: by how many words the stored line is off what was heard."""
    off: list[int] = []
    for seed in range(CALLS):
        call, voice = interrupted(seed, tells_times=tells_times)
        truth = [len(words) for words in words_heard(call, voice)]
        lines = stored_lines(call)
        assert len(lines) == len(truth) == 21
        off += [abs(count(line) - heard) for line, heard in zip(lines[:20], truth, strict=False)]
    return off


@pytest.mark.parametrize(("tells_times", "within"), [(True, 1), (False, 2)], ids=["word times", "no word times"])
def test_what_was_heard_is_known_within_a_word_or_two_for_95_of_100_interruptions(tells_times: bool, within: int) -> None:
    off = differences(tells_times=tells_times)
    assert len(off) == 200
    assert sum(each <= within for each in off) >= 190, sorted(off)[-20:]


@pytest.mark.parametrize("tells_times", [True, False], ids=["word times", "no word times"])
def test_the_model_is_told_after_each_interruption_what_the_caller_heard_and_no_line_is_made_of_it(tells_times: bool) -> None:
    call, voice = interrupted(3, tells_times=tells_times)
    truth = words_heard(call, voice)[:20]
    told = call.evidence.details("in", "add-message")
    assert len(told) == 20
    assert not any(message["triggerResponseEnabled"] for message in told)
    quoted = [message["message"]["content"].partition("“")[2].partition("”")[0].split() for message in told]
    assert sum(abs(len(words) - len(heard)) <= 2 for words, heard in zip(quoted, truth, strict=True)) >= 19
    assert any("interrupted you" in each["message"] for each in call.said_at_vapi if each["role"] == "system")
    assert not any("interrupted you" in turn.text for turn in turns({"messages": call.said_at_vapi}))


def test_a_template_may_leave_the_model_untold() -> None:
    assert interrupted(3, tell_heard=False)[0].evidence.details("in", "add-message") == []


@pytest.mark.parametrize("seed", range(CALLS))
def test_twenty_interruptions_in_one_call_each_clear_once_and_leave_two_frames_of_old_sound_at_most(seed: int) -> None:
    """The budget of the time to silence, in frames of what the telephone plays: nothing here depends on the machine."""
    call, _ = interrupted(seed)
    clears = call.phone.playout.clears
    assert len(clears) == len(call.details("interruption-confirmed")) == 20
    starts = [entry.at for entry in call.evidence.entries if entry.kind == "speech-update" and entry.detail.get("role") == "assistant"]
    for clear in clears:
        next_turn = min(start for start in starts if start > clear.at + 0.9)
        assert call.phone.playout.played_ms(clear.at, next_turn) <= 2 * 20
    silences = call.closing.figures["time_to_silence_ms"] if call.closing else []
    assert len(silences) == 20
    assert max(silences) <= 2 * 20
