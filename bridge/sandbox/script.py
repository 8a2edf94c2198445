"""Who says what, and when: the scenarios of the sandbox, both sides. It plays nothing and hears nothing.

The caller's side waits for what the caller *hears*; the agent's side answers what the agent *understood*. Neither sees the
other's script, so a call only goes on while the sound in between arrives. Times are seconds of the clock that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.sandbox.alignment import Timed
from bridge.sandbox.ear import Final, Partial, Recogniser, Utterance

# ---- the caller


@dataclass(frozen=True, slots=True)
class Say:
    clip: str


@dataclass(frozen=True, slots=True)
class Press:
    digits: str


@dataclass(frozen=True, slots=True)
class HangUp:
    pass


@dataclass(frozen=True, slots=True)
class Noise:
    """One of `noise.NOISES`, around the caller."""

    name: str


@dataclass(frozen=True, slots=True)
class Echo:
    """From now on the telephone sends back what it plays, 15 dB softer and 200 ms late."""


Deed = Say | Press | HangUp | Noise | Echo


@dataclass(frozen=True, slots=True)
class Heard:
    """A moment in what the caller hears: `into_s` seconds into a clip, or (None) its end; `then_s` seconds after that.

    The end counts however the clip ended: said to its last word or cut.
    """

    clip: str
    into_s: float | None = None
    then_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Start:
    """`after_s` seconds after the caller was connected."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Step:
    when: Heard | Start
    do: Deed


class Caller:
    """Where one caller is in their steps. Steps are taken in order; each waits only for its own moment."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = list(steps)
        self._due: float | None = None

    @property
    def done(self) -> bool:
        return not self._steps

    @property
    def waiting_for(self) -> str:
        """The moment that has not come, in words: what to print when a call is stuck. "" when every step is taken."""
        match self._steps:
            case [Step(when=Heard(clip=clip, into_s=None)), *_]:
                return f"the end of {clip}"
            case [Step(when=Heard(clip=clip, into_s=into_s)), *_]:
                return f"{into_s} s of {clip}"
            case [Step(when=Start(after_s=after_s)), *_]:
                return f"{after_s} s of the call"
        return ""

    def connected(self, now: float) -> None:
        if self._steps and isinstance(when := self._steps[0].when, Start):
            self._due = now + when.after_s

    def heard(self, utterance: Utterance) -> None:
        """Tell the caller what the ear on the playout understood."""
        if self._due is not None or not self._steps or not isinstance(when := self._steps[0].when, Heard):
            return
        match utterance:
            case Partial(clip_name=name, started_at=started) if name == when.clip and when.into_s is not None:
                self._due = started + when.into_s
            case Final(clip_name=name, ended_at=ended) if name == when.clip and when.into_s is None:
                self._due = ended + when.then_s

    def next_deadline(self) -> float | None:
        """When `deeds` wants to be asked again; None while the caller only listens."""
        return self._due

    def deeds(self, now: float) -> list[Deed]:
        """What the caller does by now, in order; each deed is returned once."""
        done: list[Deed] = []
        while self._steps and self._due is not None and self._due <= now:
            step = self._steps.pop(0)
            done.append(step.do)
            self._due = None
            self.connected(now)
        return done


# ---- the agent


@dataclass(frozen=True, slots=True)
class Speak:
    clip: str


@dataclass(frozen=True, slots=True)
class CallTool:
    """Call a tool of the assistant; then speak the clip whose key is in the result, else `otherwise`."""

    name: str
    arguments: Mapping[str, Any]
    answers: Mapping[str, str]
    otherwise: str


@dataclass(frozen=True, slots=True)
class End:
    """The agent ends the call, with its assistant's endCallMessage as the last words, `clip` if it has none; or `silent`."""

    reason: str = "assistant-ended-call"
    clip: str = ""
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Recall:
    """Speak the clip if the assistant was given these words of the caller's with its messages, else `otherwise`."""

    words: str
    clip: str
    otherwise: str


Act = Speak | CallTool | End | Recall
Turn = tuple[Act, ...]


class Agent:
    """What one agent answers, by the clip it understood. Turns for the same clip are used in order, the last one repeats."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._used: dict[str, int] = {}
        self._misses = 0

    def opening(self) -> Turn:
        return self._scenario.opening

    def told(self, words: str) -> Turn:
        """The turn after a message nobody spoke, by what is in it."""
        return next((turn for sign, turn in self._scenario.told.items() if sign in words), ())

    def answer(self, heard: Final) -> Turn:
        """The turn after an utterance. Words that were not understood are asked for again, twice; then not any more."""
        turns = self._scenario.answers.get(heard.clip_name or "")
        if turns is None:
            self._misses += 1
            return (Speak("say_again"),) if self._misses <= 2 else ()
        nth = self._used.get(heard.clip_name or "", 0)
        self._used[heard.clip_name or ""] = nth + 1
        return turns[min(nth, len(turns) - 1)]


# ---- the scenarios

ASKS_AGAIN: Mapping[str, Turn] = {"did not get through": (Speak("say_again"),)}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One telephone conversation. `answers`: clip understood -> the agent's turns; `told`: part of a message -> the turn.

    Most agents hear and speak as their sandbox does; one may have an `ear` and a `voice` of its own, and `times` that go with it.
    """

    name: str
    caller: tuple[Step, ...]
    opening: Turn = (Speak("greeting"),)
    answers: Mapping[str, tuple[Turn, ...]] = field(default_factory=dict)
    told: Mapping[str, Turn] = field(default_factory=lambda: ASKS_AGAIN)
    ear: Callable[[], Recogniser] | None = None
    voice: Callable[[str], bytes] | None = None
    times: Callable[[str], Sequence[Timed]] | None = None


ACCOUNT = CallTool("get_user_account", {"email": "alex@example.com"}, {"locked": "account_locked"}, "tool_failed")
PERSON = CallTool("transfer_to_human", {"reason": "asked for a person", "summary": "The caller asked for a person."}, {}, "transferring")
FAREWELL: Turn = (End(clip="goodbye"),)

ANSWERS: Mapping[str, tuple[Turn, ...]] = {
    "cannot_log_in": ((Speak("reset_steps"),),),
    "already_tried": ((Speak("ask_email"),),),
    "email_is_alex": ((ACCOUNT,),),
    "ask_hours": ((Speak("opening_hours"),),),
    "thanks_goodbye": (FAREWELL,),
    "no_thanks": (FAREWELL,),
    "want_person": ((PERSON,),),
    "mm_hm": ((),),
    "callback_message": ((CallTool("take_message", {}, {}, "one_moment"),),),
    "call_me_back": ((CallTool("promise_callback", {}, {}, "we_call_back"),),),
    "what_did_i_say": ((Recall("log in", "you_cannot_log_in", "not_remembered"),),),
}

TECHFLOW = Scenario(
    name="techflow",
    caller=(
        Step(Heard("greeting"), Say("cannot_log_in")),
        Step(Heard("reset_steps", into_s=3.2), Say("already_tried")),
        Step(Heard("ask_email", then_s=0.6), Say("email_is_alex")),
        Step(Heard("account_locked", then_s=0.6), Say("thanks_goodbye")),
    ),
    answers=ANSWERS,
)

PLAIN = Scenario(
    name="plain",
    caller=(Step(Heard("greeting"), Say("ask_hours")), Step(Heard("opening_hours"), Say("no_thanks"))),
    answers=ANSWERS,
)

THREE_BARGE_INS = Scenario(
    name="three_barge_ins",
    caller=(
        Step(Heard("greeting"), Say("cannot_log_in")),
        Step(Heard("reset_steps", into_s=2.0), Say("already_tried")),
        Step(Heard("another_way", into_s=3.0), Say("wait_please")),
        Step(Heard("reset_steps", into_s=4.0), Say("already_tried")),
        Step(Heard("ask_email", then_s=0.6), Say("no_thanks")),
    ),
    answers={
        **ANSWERS,
        "already_tried": ((Speak("another_way"),), (Speak("ask_email"),)),
        "wait_please": ((Speak("reset_steps"),),),
    },
)

PERSON_PLEASE = Scenario(
    name="person_please",
    caller=(Step(Heard("greeting"), Say("want_person")),),
    answers=ANSWERS,
)

LEAVE_A_MESSAGE = Scenario(
    name="leave_a_message",
    caller=(*PERSON_PLEASE.caller, Step(Heard("nobody_free"), Say("callback_message"))),
    answers=ANSWERS,
)

CALL_ME_BACK = Scenario(
    name="call_me_back",
    caller=(
        *PERSON_PLEASE.caller,
        Step(Heard("nobody_free"), Say("call_me_back")),
        Step(Heard("we_call_back", then_s=0.6), Say("no_thanks")),
    ),
    answers=ANSWERS,
)


CUT_OFF = Scenario(
    name="cut_off",
    caller=(
        Step(Heard("greeting"), Say("cannot_log_in")),
        Step(Heard("cut_off", then_s=0.6), Say("what_did_i_say")),
        Step(Heard("you_cannot_log_in", then_s=0.6), Say("no_thanks")),
    ),
    answers=ANSWERS,
)


TYPES_A_NUMBER = Scenario(
    name="types_a_number",
    caller=(
        Step(Heard("greeting"), Press("471108#")),
        Step(Heard("account_locked", then_s=0.6), Say("thanks_goodbye")),
    ),
    answers=ANSWERS,
    told={**ASKS_AGAIN, "471108": (Speak("account_locked"),)},
)


def misspoken(scenario: Scenario, *, instead_of: str, clip: str) -> Scenario:
    """The same conversation with a caller who says another clip than the one expected."""
    steps = (replace(step, do=Say(clip)) if step.do == Say(instead_of) else step for step in scenario.caller)
    return replace(scenario, caller=tuple(steps))


def impatient(scenario: Scenario, after_s: float) -> Scenario:
    """The same with a caller who begins to speak so long after connect, whatever was heard: for agents with a greeting of their own."""
    first, *rest = scenario.caller
    return replace(scenario, caller=(replace(first, when=Start(after_s)), *rest))


def _ten_minutes() -> Scenario:
    """Rounds of question, long answer, interruption and pause, until ten minutes are full; then goodbye."""
    rounds = 24  # 25 s each
    steps = [Step(Heard("greeting"), Say("cannot_log_in"))]
    for _ in range(rounds):
        steps += [
            Step(Heard("reset_steps", into_s=3.2), Say("already_tried")),
            Step(Heard("ask_email", then_s=3.0), Say("ask_hours")),
            Step(Heard("opening_hours", then_s=2.0), Say("cannot_log_in")),
        ]
    steps[-1] = Step(Heard("opening_hours", then_s=2.0), Say("no_thanks"))
    return Scenario(name="ten_minutes", caller=tuple(steps), answers=ANSWERS)


TEN_MINUTES = _ten_minutes()


def _with_noise(name: str) -> Scenario:
    """Noise in the middle of both of the agent's sentences."""
    steps = (
        Step(Heard("greeting", into_s=0.6), Noise(name)),
        Step(Heard("greeting", then_s=1.2), Say("ask_hours")),
        Step(Heard("opening_hours", into_s=1.0), Noise(name)),
        Step(Heard("opening_hours", then_s=1.2), Say("no_thanks")),
    )
    return Scenario(name=name, caller=steps, answers=ANSWERS)


HOLD_MUSIC = _with_noise("hold_music")
STREET = _with_noise("street")
ECHO = Scenario(
    name="echo",
    caller=(
        Step(Start(0.0), Echo()),
        Step(Heard("greeting", then_s=1.2), Say("ask_hours")),
        Step(Heard("opening_hours", then_s=1.2), Say("no_thanks")),
    ),
    answers=ANSWERS,
)
NOISY = (HOLD_MUSIC, STREET, ECHO)

SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for each in (
        TECHFLOW,
        PLAIN,
        THREE_BARGE_INS,
        PERSON_PLEASE,
        LEAVE_A_MESSAGE,
        CALL_ME_BACK,
        CUT_OFF,
        TYPES_A_NUMBER,
        TEN_MINUTES,
        *NOISY,
    )
}
