"""Finals come in pieces, twice, and once more from their beginning, in any order: what stands for them is always the same."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import permutations

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from calls import history
from calls.finals import NEARLY_MS, SAME_TURN_MS, Final, retold
from calls.models import CallSession, TranscriptLine
from calls.words import words
from tests.builders import a_call, at_once

START = 1_795_342_800_000
Said = tuple[str, str, int]  # role, text, ms


def user(text: str, ms: int) -> Said:
    return "user", text, ms


def agent(text: str, ms: int) -> Said:
    return "assistant", text, ms


def shown(*told: Said) -> list[str]:
    finals = [Final(pk, role, ms, words(text)) for pk, (role, text, ms) in enumerate(told)]
    hidden = retold(finals)
    return [text for pk, (_, text, _) in enumerate(told) if pk not in hidden]


# -- the rule --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "stands"),
    [
        ([user("I already", 1000), user("tried that", 2000)], ["I already", "tried that"]),
        ([user("I already", 1000), user("I already tried that", 2000)], ["I already tried that"]),
        ([user("I already.", 1000), user("I already tried,", 1500), user("I already tried that.", 2000)], ["I already tried that."]),
        ([user("Yes", 1000), agent("Really?", 2000), user("Yes I am", 3000)], ["Yes", "Really?", "Yes I am"]),
        ([user("Hello", 0), user("Hello who is there", SAME_TURN_MS + 1)], ["Hello", "Hello who is there"]),
        ([user("Yes.", 1000), user("yes", 1000 + NEARLY_MS)], ["Yes."]),
        ([user("Yes.", 1000), user("Yes.", 1001 + NEARLY_MS)], ["Yes.", "Yes."]),
        ([user("no", 0), user("no", 400), user("no", 800)], ["no", "no", "no"]),
        ([agent("One moment.", 0), agent("One moment. I found it.", 900)], ["One moment.", "One moment. I found it."]),
        ([user("Yes", 0), agent("Yes", 100)], ["Yes", "Yes"]),
        ([user("…", 0), user("I see", 900)], ["…", "I see"]),
        ([user("log in", 0), user("login is broken", 900)], ["log in", "login is broken"]),  # words, not letters
    ],
)
def test_a_final_stands_unless_another_has_its_words(told: list[Said], stands: list[str]) -> None:
    assert shown(*told) == stands


@given(
    st.lists(
        st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from(["no", "no way", "no way out", "yes"]), st.integers(0, 30_000))
    )
)
def test_no_words_are_lost_by_what_is_left_out(told: list[Said]) -> None:
    """Each word sequence that was told begins some line that stands."""
    told.sort(key=lambda said: said[2])
    left = [words(text) for text in shown(*told)]
    for _, text, _ in told:
        assert any(each[: len(words(text))] == words(text) for each in left)


# -- in the rows -----------------------------------------------------------------------------------------------------------


def tell(call: CallSession, said: Said) -> bool:
    role, text, ms = said
    at = timezone.now() + timedelta(milliseconds=ms)
    return history.add_line(call=call, vapi_call_id="v1", role=role, text=text, vendor_ms=START + ms, at=at, n=0)


def lines(call: CallSession) -> list[str]:
    return list(call.lines.exclude(role="system").values_list("said", flat=True))


CONVERSATION = [
    user("I already", 2000),
    user("I already tried that", 2600),
    agent("I see.", 4000),
    user("I already", 9000),
]


@pytest.mark.django_db
def test_the_order_of_arrival_plays_no_part() -> None:
    for order in permutations(CONVERSATION):
        call = a_call()
        for said in order:
            assert tell(call, said)
            assert not tell(call, said)
        assert lines(call) == ["I already tried that", "I see.", "I already"], order
        assert TranscriptLine.everything.filter(call=call, vapi_call_id="v1").count() == 4


@pytest.mark.django_db(transaction=True)
def test_finals_told_at_the_same_moment_by_several_threads_settle_as_if_told_in_order() -> None:
    call = a_call()
    told = at_once([partial(tell, call, said) for said in CONVERSATION * 3])
    assert told.count(True) == 4
    assert lines(call) == ["I already tried that", "I see.", "I already"]
    assert call.events.filter(kind="transcript-final", source="vapi").count() == 4


@pytest.mark.django_db
def test_lines_of_our_own_are_never_taken_for_a_repetition() -> None:
    call = a_call()
    for ms in (0, 100):
        history.add_line(call=call, vapi_call_id="", role="system", text="One moment.", vendor_ms=START + ms, at=timezone.now(), n=0)
    assert call.lines.filter(role="system", said="One moment.").count() == 2
