"""The laboratory's caller: answers what they hear, as often as it is asked, and nothing else."""

from __future__ import annotations

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.ear import Final, Partial, SpeechStarted
from bridge.sandbox.script import Say
from supportvoice.laboratory.judge import LONGEST_SILENCE_S
from supportvoice.laboratory.person import HELLO_S, INTO_S, SORRY_S, THEN_S, WORDS_S, Person


def hears(person: Person, clip: str, *, to_ms: int | None = None, at: float = 10.0) -> None:
    ms = CLIPS[clip].ms if to_ms is None else to_ms
    person.heard(Final(clip, CLIPS[clip].text, at, at - 1, at, 1.0, 0, ms, complete=ms == CLIPS[clip].ms))


def hears_something(person: Person, *, lasts_s: float, until: float) -> None:
    person.heard(SpeechStarted(until - lasts_s))
    person.heard(Final(None, "", until + 0.5, until - lasts_s, until, 0.0))


def test_a_question_that_was_heard_to_its_end_is_answered() -> None:
    person = Person()
    hears(person, "greeting")
    assert person.deeds(10.0) == []
    assert person.deeds(10.0 + THEN_S) == [Say("cannot_log_in")]
    assert person.next_deadline() is None


def test_a_sentence_that_broke_off_is_not_answered_before_the_silence_after_it_counts_as_a_loss() -> None:
    person = Person()
    hears(person, "greeting", to_ms=1000)
    assert person.deeds(10.0 + LONGEST_SILENCE_S + 1) == []
    assert person.deeds(10.0 + HELLO_S) == [Say("cannot_log_in")]


def test_an_answer_of_which_not_a_word_was_understood_is_asked_for_again_once() -> None:
    person = Person()
    hears(person, "ask_email")
    assert person.deeds(11.0) == [Say("email_is_alex")]
    for piece in range(4):
        hears_something(person, lasts_s=WORDS_S / 4, until=20.0 + piece)
    assert person.next_deadline() == 23.0 + SORRY_S
    assert person.deeds(23.0 + SORRY_S) == [Say("email_is_alex")]
    hears_something(person, lasts_s=3 * WORDS_S, until=30.0)
    assert person.next_deadline() is None
    assert person.asked == 1


def test_whoever_is_spoken_to_does_not_ask() -> None:
    person = Person()
    hears_something(person, lasts_s=WORDS_S, until=10.0)
    person.heard(SpeechStarted(11.0))
    assert person.next_deadline() is None
    hears(person, "trouble", at=13.0)
    assert person.next_deadline() is None
    assert person.asked == 0


def test_a_rest_of_a_sentence_is_no_answer() -> None:
    person = Person()
    hears_something(person, lasts_s=WORDS_S / 2, until=10.0)
    assert person.next_deadline() == 10.0 + HELLO_S


def test_a_rest_that_was_not_understood_of_a_sentence_that_broke_off_is_asked_for_again() -> None:
    """Its stream stuttered: half of it was understood, and after a gap of a second nothing of the other half."""
    person = Person()
    hears(person, "cut_off", to_ms=1100)
    hears_something(person, lasts_s=0.98, until=12.0)
    assert person.deeds(12.0 + SORRY_S) == [Say("cannot_log_in")]
    hears_something(person, lasts_s=0.98, until=16.0)
    assert person.next_deadline() is None


def test_whoever_understands_again_may_ask_again() -> None:
    person = Person()
    hears_something(person, lasts_s=WORDS_S, until=10.0)
    assert person.deeds(10.0 + SORRY_S) == [Say("cannot_log_in")]
    hears(person, "ask_email", at=20.0)
    assert person.deeds(21.0) == [Say("email_is_alex")]
    hears_something(person, lasts_s=WORDS_S, until=30.0)
    assert person.deeds(30.0 + SORRY_S) == [Say("email_is_alex")]
    assert person.asked == 2


def test_a_sentence_of_which_the_last_bit_is_missing_is_understood() -> None:
    person = Person()
    hears(person, "account_locked", to_ms=CLIPS["account_locked"].ms - 220)
    assert person.deeds(11.0) == [Say("thanks_goodbye")]


def test_they_interrupt_the_long_explanation_once_and_do_not_answer_it_again() -> None:
    person = Person()
    person.heard(Partial("reset_steps", "No problem.", 21.0, 20.0))
    assert person.deeds(20.0 + INTO_S) == [Say("already_tried")]
    hears(person, "reset_steps")
    assert person.next_deadline() is None


def test_what_was_not_understood_is_said_again() -> None:
    person = Person()
    hears(person, "ask_email")
    assert person.deeds(11.0) == [Say("email_is_alex")]
    hears(person, "say_again", at=20.0)
    assert person.deeds(21.0) == [Say("email_is_alex")]


def test_who_was_cut_off_asks_what_it_was_about() -> None:
    person = Person()
    hears(person, "cut_off")
    assert person.deeds(11.0) == [Say("what_did_i_say")]
    hears(person, "you_cannot_log_in", at=20.0)
    assert person.deeds(21.0) == [Say("no_thanks")]
