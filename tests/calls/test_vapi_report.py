"""Two tellings of one conversation: what the report adds to the finals, and never a word more."""

from __future__ import annotations

import json
import time
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import vapi_report
from calls.vapi_report import MS_A_WORD, Line, Turn
from calls.words import words

WIRE = Path(__file__).parents[1] / "wire" / "vapi" / "webhooks"
START = 1_795_342_800_000
PAUSE_WORDS = 8
SPOKEN = st.lists(st.sampled_from(["no", "yes", "I", "already", "tried"]), min_size=1, max_size=24)


def wire_report() -> dict[str, Any]:
    message: dict[str, Any] = json.loads((WIRE / "end-of-call-report.json").read_text())["message"]
    return message


@st.composite
def cut(draw: st.DrawFn, length: int) -> list[tuple[int, int]]:
    """Any way to cut so many words into pieces, as (from, up to)."""
    places = sorted({0, length, *draw(st.lists(st.integers(0, length), max_size=8))})
    return list(pairwise(places))


def when(place: int) -> int:
    return START + place * MS_A_WORD


def turn(spoken: list[str], begin: int, end: int) -> Turn:
    return Turn("user", " ".join(spoken[begin:end]).capitalize() + ".", when(begin), when(end))


def final(spoken: list[str], begin: int, end: int, late: int = 0) -> Line:
    return Line("user", " ".join(spoken[begin:end]), when(end) + late)


def merged(told: list[Line], said: list[Turn]) -> list[str]:
    """Every word of the conversation after merging, in the order of its lines."""
    lines = sorted([*told, *vapi_report.missing(told, said)], key=lambda line: line.ms)
    return [word for line in lines for word in words(line.text)]


# -- any conversation ------------------------------------------------------------------------------------------------------


@given(st.data())
def test_any_cutting_of_the_same_words_adds_nothing(data: st.DataObject) -> None:
    spoken = data.draw(SPOKEN)
    told = [final(spoken, *piece, late=data.draw(st.integers(0, 5000))) for piece in data.draw(cut(len(spoken)))]
    said = [turn(spoken, *piece) for piece in data.draw(cut(len(spoken)))]
    assert vapi_report.missing(told, said) == []


@given(st.data())
def test_what_is_lost_is_added_exactly_and_in_its_place(data: st.DataObject) -> None:
    spoken = data.draw(SPOKEN)
    pieces = data.draw(cut(len(spoken)))
    lost = data.draw(st.sets(st.sampled_from(range(len(pieces)))))
    told = [final(spoken, *piece, late=data.draw(st.integers(0, 100))) for number, piece in enumerate(pieces) if number not in lost]
    said = [turn(spoken, *piece) for piece in data.draw(cut(len(spoken)))]
    added = vapi_report.missing(told, said)
    assert sum(len(words(line.text)) for line in added) == sum(pieces[number][1] - pieces[number][0] for number in lost)
    assert merged(told, said) == [word.casefold() for word in spoken]


@given(st.data())
def test_what_was_added_is_not_added_again(data: st.DataObject) -> None:
    spoken = data.draw(SPOKEN)
    told = [final(spoken, *piece) for piece in data.draw(cut(len(spoken))) if data.draw(st.booleans())]
    said = [turn(spoken, *piece) for piece in data.draw(cut(len(spoken)))]
    lines = sorted([*told, *vapi_report.missing(told, said)], key=lambda line: line.ms)
    assert vapi_report.missing(lines, said) == []


@given(st.data())
def test_what_each_telling_lost_for_itself_is_in_the_other_and_no_word_of_either_is_lost(data: st.DataObject) -> None:
    """Lines with a pause between them, in which somebody else speaks; no word comes twice."""
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=8))
    spoken, told, said, place = list[str](), list[Line](), list[Turn](), 0
    for length in lengths:
        line = [f"word{len(spoken) + number}" for number in range(length)]
        spoken += line
        began, ended = when(place), when(place + length)
        kept = data.draw(st.sampled_from(["by both", "as a final", "in the report"]))
        if kept != "in the report":
            told.append(Line("user", " ".join(line), ended + data.draw(st.integers(0, 1500))))
        if kept != "as a final":
            said.append(Turn("user", " ".join(line), began, ended))
        place += length + PAUSE_WORDS
    assert merged(told, said) == spoken


@given(st.lists(st.builds(Line, st.sampled_from(["user", "assistant"]), st.text(max_size=30), st.integers(0, 10**13)), max_size=6))
def test_whatever_was_told_before_only_the_reports_own_words_are_added(told: list[Line]) -> None:
    said = vapi_report.turns(wire_report())
    for line in vapi_report.missing(told, said):
        assert any(line.role == each.role and line.text in each.text for each in said)


# -- examples --------------------------------------------------------------------------------------------------------------


def said_once(text: str, *, role: str = "user", at: int = 0) -> Turn:
    return Turn(role, text, START + at, START + at + MS_A_WORD * len(text.split()))


@pytest.mark.parametrize(
    ("finals", "report", "added"),
    [
        (["I already", "tried that"], "I already tried that.", []),
        (["no", "no", "no"], "No, no, no.", []),
        (["no no"], "No, no, no.", ["no."]),
        (["no no no"], "No.", []),
        ([], "No, no, no.", ["No, no, no."]),
        (["my number is five five five"], "My number is 555.", []),
        (["it's broken"], "It is broken.", []),
        (["my pin is 1 2 3 4"], "My PIN is one two three four.", []),
        (["I tried that"], "I already tried that.", []),  # the final was there and heard it so
        (["I cannot log in"], "I cannot log in. And my colleague cannot either.", ["And my colleague cannot either."]),
        (["um"], "I would like to cancel my subscription.", ["would like to cancel my subscription."]),  # it told one word
        (["ログインできません"], "ログイン できません。", []),
        (["…"], "…", []),
    ],
)
def test_only_what_no_final_told_is_added(finals: list[str], report: str, added: list[str]) -> None:
    ends = accumulate(len(text.split()) * MS_A_WORD for text in finals)
    told = [Line("user", text, START + end) for text, end in zip(finals, ends, strict=True)]
    assert [line.text for line in vapi_report.missing(told, [said_once(report)])] == added


def test_the_same_words_a_minute_apart_are_two_lines_and_the_lost_one_is_the_one_added() -> None:
    said = [said_once("Yes.", at=1000), said_once("Really?", role="assistant", at=4000), said_once("Yes.", at=60_000)]
    for kept, lost in ((0, 2), (2, 0)):
        told = [Line("user", "yes", said[kept].end + 250), Line("assistant", "Really?", said[1].end)]
        [added] = vapi_report.missing(told, said)
        assert (added.text, added.ms) == ("Yes.", said[lost].end)


@pytest.mark.parametrize("late_ms", [0, 900])
def test_a_line_that_only_a_final_told_stands_for_no_line_that_only_the_report_told(late_ms: int) -> None:
    """They follow each other, and have no word in common: neither is the other one, told otherwise."""
    greeting, answer = said_once("Hello there."), said_once("Because I cannot log in", at=9000)
    told = [Line("user", "hello there", greeting.end + late_ms), Line("user", "my screen stays black", START + 6000 + late_ms)]
    assert [line.text for line in vapi_report.missing(told, [greeting, answer])] == ["Because I cannot log in"]
    told[1] = Line("user", "my screen stays black", answer.end + 4000 + late_ms)
    assert [line.text for line in vapi_report.missing(told, [greeting, answer])] == ["Because I cannot log in"]
    asked = said_once("Hello there. Who is speaking?")  # one turn of the report, a line of the finals and one that they lost
    told[1] = Line("user", "my screen stays black", asked.end + 4000 + late_ms)
    assert [line.text for line in vapi_report.missing(told, [asked])] == ["Who is speaking?"]


@pytest.mark.parametrize("late_ms", [0, 900, 1900])
def test_a_line_without_a_word_in_common_that_was_told_at_the_time_of_the_other_is_the_same(late_ms: int) -> None:
    for final_text, report_text in (("four", "4"), ("yeah sure", "Yes, of course"), ("five five five", "555")):
        turn = said_once(report_text, at=5000)
        assert vapi_report.missing([Line("user", final_text, turn.end + late_ms)], [turn]) == []


def test_clocks_that_disagree_do_not_double_a_line() -> None:
    said = [said_once("Hello, who is there?"), said_once("It is me.", role="assistant", at=3000)]
    for shift in (-START, -3_600_000, 3_600_000):
        told = [Line(each.role, each.text, each.end + shift) for each in said]
        assert vapi_report.missing(told, said) == []


def test_the_duration_of_a_turn_is_in_milliseconds() -> None:
    message = {"role": "bot", "message": "Hi there", "time": START, "duration": 3400}
    assert vapi_report.turns({"artifact": {"messages": [message]}}) == [Turn("assistant", "Hi there", START, START + 3400)]


@pytest.mark.parametrize(
    "messages",
    [None, 7, {}, [None, 7, "x", []], [{"role": ["user"], "message": "x"}, {"role": "user"}, {"role": "user", "message": " "}]],
)
def test_a_report_without_readable_turns_adds_nothing(messages: Any) -> None:
    assert vapi_report.turns({"messages": messages, "artifact": None}) == []


@pytest.mark.parametrize("bad", [None, True, -1, "soon", 1e300, {}])
def test_a_turn_without_sane_times_follows_the_one_before(bad: Any) -> None:
    first = {"role": "user", "message": "One", "time": START, "endTime": START + 500}
    second = {"role": "user", "message": "Two", "time": bad, "endTime": bad, "duration": bad}
    assert vapi_report.turns({"messages": [first, second]})[1] == Turn("user", "Two", START + 500, START + 500 + MS_A_WORD)


# -- figures ---------------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_report_are_kept_without_an_address() -> None:
    found = vapi_report.figures(wire_report())
    assert found.summary.startswith("Caller lost access")
    assert found.success == "true"
    assert found.structured == {"Support ticket": {"topic": "sso", "resolved": False}, "data": {"topic": "sso", "resolved": False}}
    assert found.artifacts == dict.fromkeys(("recording", "stereo-recording", "log", "transcript", "structured-outputs"), True)
    assert found.latencies["turn"] == 1480
    assert found.latencies["turns"] == [{"model": 480, "voice": 210, "transcriber": 120, "endpointing": 640, "turn": 1480}]
    assert found.costs == {"transport": 0.0, "stt": 0.0069, "llm": 0.0031, "tts": 0.0121, "vapi": 0.035, "chat": 0.0, "analysis": 0.0003}
    assert "http" not in repr(found)


def test_costs_without_a_breakdown_are_summed_up_by_type() -> None:
    listed = wire_report() | {"costBreakdown": None}
    assert vapi_report.figures(listed).costs == {"transport": 0.0, "transcriber": 0.0069, "model": 0.0031, "voice": 0.0121, "vapi": 0.035}


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_no_report_however_odd_is_a_problem(data: st.DataObject) -> None:
    odd = wire_report()
    for key in data.draw(st.lists(st.sampled_from(sorted(odd)), max_size=5)):
        odd[key] = data.draw(HOSTILE)
    if isinstance(odd["artifact"], dict):
        for key in data.draw(st.lists(st.sampled_from(sorted(odd["artifact"]) or ["x"]), max_size=5)):
            odd["artifact"][key] = data.draw(HOSTILE)
    vapi_report.figures(odd)
    vapi_report.missing([], vapi_report.turns(odd))


# -- size ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False], ids=["one word all the time", "many words"])
def test_twenty_thousand_turns_are_compared_in_a_moment(same: bool) -> None:
    spoken = ["no" if same else f"word{place * 7919 % 500}" for place in range(100_000)]
    pieces = [(begin, begin + 10) for begin in range(0, len(spoken), 10)]
    told = [final(spoken, *piece) for number, piece in enumerate(pieces) if number % 1000 != 500]
    said = [turn(spoken, begin, begin + 5) for begin in range(0, len(spoken), 5)]
    started = time.thread_time()
    added = vapi_report.missing(told, said)
    assert time.thread_time() - started < 10
    assert sum(len(words(line.text)) for line in added) == 100


def test_turns_without_times_never_add_up_to_a_time_that_cannot_be() -> None:
    message = {"role": "user", "message": "hello", "duration": vapi_report.LATEST_MS - 1}
    turns = vapi_report.turns({"artifact": {"messages": [message] * 4}})
    assert [turn.end for turn in turns][-1] == vapi_report.LATEST_MS
