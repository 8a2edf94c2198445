"""Which rung next, when the stream of a call is over and the caller may still be there. Pure.

The ladder is entered at the highest healthy rung and only gone down: AI, the same AI resumed, a backup, a person, voicemail.
One step leads up: a caller whom the AI sent to people none of whom came goes back to the AI, which offers what there is instead.
Asked twice with the same facts it gives the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from calls.lifecycle import STREAM_ENDS

LONGEST_WAIT_S = 30.0  # in the queue, from the first word on ...
LONGEST_WAIT_ALONE_S = 180.0  # ... and where the only other way is to hang up
TURN_S = 11.0  # the longest turn of the wait: the place and the ways out are said, and the caller may press a key
RESUMES = 2  # losses within a minute of each other that lead back to the AI
DEATHS = 2  # processes of ours that died under a call, within a minute of each other: no more, lest it be the call that kills them
TURNED_AWAY = 2  # streams in a row that let nobody in, each some three seconds, and lead back to the AI that waits
TAKEN_BACK = 1  # so often, where a message can be left instead ...
TAKEN_BACK_AT_MOST = 3  # ... and where the only other way is to hang up
NOT_RESUMED = ("handed-over", "no-agent")  # a stream that ended so: a person was promised, or no agent can be had


@dataclass(frozen=True, slots=True)
class Target:
    """A person or group as the ladder sees it: by slug; the number is read where it is dialled."""

    slug: str
    ring_seconds: int = 20


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a call at the resume door.

    `closed_why` is the bridge's word on the stream (`bridge.ports.Closing.why`), empty when it could not give one;
    `sent_on`: the caller has been sent to a person or to the voicemail since, and what is told of the stream comes late.
    `wanted` is the target the agent asked for, `tried` those that did not come to talk, `talked` that one did.
    `is_open`: somebody is at work, so people may be rung. `by_wish`: it is for the wish of the agent, or of the caller, that
    this stream is over, not for want of an agent; `message_wanted`: it was for the voicemail. `agent_at_hand`: the AI can have
    the caller again; `taken_back`: so often it had them already, after nobody came.
    `at_voicemail`: the caller stands on the last rung already. `losses` are the conversations lost by now, this one among
    them unless its process left in good order, or died: `deaths` are so many of those in a row, this one among them, and 0 if this
    is none. `resumable`: an agent answers this call and nobody asked for a person.
    `parked`: the agent of this stream is there, and waits for the caller; that is no loss. Nor is it one that nobody was let in on this
    stream, whose agent waits for the next one: `turned_away` are so many streams in a row, this one among them.
    `main`, `backup`: that account at Vapi may be asked for an agent now.
    `waiting_s`: so long the caller has waited for a first agent, None for one who does not; `has_room`: one is free for this caller.
    """

    is_over: bool
    closed_why: str
    targets: tuple[Target, ...] = ()
    wanted: str = ""
    tried: frozenset[str] = frozenset()
    talked: bool = False
    sent_on: bool = False
    at_voicemail: bool = False
    voicemail: bool = False
    losses: int = 0
    deaths: int = 0
    resumable: bool = False
    parked: bool = False
    turned_away: int = 0
    is_open: bool = True
    by_wish: bool = False
    message_wanted: bool = False
    agent_at_hand: bool = False
    taken_back: int = 0
    main: bool = True
    backup: bool = False
    waiting_s: float | None = None
    has_room: bool = True


@dataclass(frozen=True, slots=True)
class Resume:
    """The AI, on a stream of its own, with the conversation so far if there was one; made at the backup account, or at the main one."""

    backup: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Another turn in the queue."""


@dataclass(frozen=True, slots=True)
class TakeBack:
    """The AI again, on a stream of its own, to say that nobody came and what can be done instead."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """The end; with a sentence of apology when we have nothing better."""

    sorry: bool = False


@dataclass(frozen=True, slots=True)
class DialHuman:
    target: Target


@dataclass(frozen=True, slots=True)
class Voicemail:
    pass


Step = Resume | Wait | TakeBack | HangUp | DialHuman | Voicemail


def decide(facts: Facts) -> Step:
    """The highest rung this caller can stand on now."""
    if facts.is_over or facts.talked or (facts.closed_why in STREAM_ENDS and not facts.sent_on):
        return HangUp()
    if facts.waiting_s is not None and (in_the_queue := next_turn(facts, facts.waiting_s)):
        return in_the_queue
    if facts.resumable and not facts.sent_on and facts.closed_why not in NOT_RESUMED and facts.turned_away <= TURNED_AWAY:
        waits = facts.parked or facts.turned_away > 0
        lost = {"losses": facts.losses, "deaths": facts.deaths}
        again = Resume() if waits else next_agent(**lost, main=facts.main, backup=facts.backup)
        if again is not None:
            return again
    target = next_target(facts)
    if target is not None:
        return DialHuman(target)
    if may_be_taken_back(facts):
        return TakeBack()
    return Voicemail() if facts.voicemail else HangUp(sorry=True)


def next_turn(facts: Facts, waiting_s: float) -> Resume | Wait | None:
    """Nobody waits for an agent that is free, nor for one that cannot be had, nor longer than half a minute for somebody else."""
    if facts.has_room:
        return next_agent(losses=0, main=facts.main, backup=facts.backup)
    longest = LONGEST_WAIT_S if facts.voicemail or next_target(facts) else LONGEST_WAIT_ALONE_S
    return Wait() if waiting_s + TURN_S <= longest else None


def next_agent(*, losses: int, deaths: int = 0, main: bool, backup: bool) -> Resume | None:
    """The first loss leads to R1, the second to R2 (R1 without a backup), the third to a person. R2 too when R1 is not to be had.

    The death of a process of ours leads no rung down: the agent is well. The third in a row leads to a person.
    """
    if losses > RESUMES or deaths > DEATHS:
        return None
    if backup and (losses == RESUMES or not main):
        return Resume(backup=True)
    return Resume() if main else None


def may_be_taken_back(facts: Facts) -> bool:
    """A caller who came for want of an agent stays down, and so does one who is at the voicemail or wants it.

    An agent who is not free is no better than the voicemail, but better than nothing.
    """
    if facts.at_voicemail or facts.message_wanted or not (facts.by_wish and facts.agent_at_hand):
        return False
    if facts.voicemail and not facts.has_room:
        return False
    return facts.taken_back < (TAKEN_BACK if facts.voicemail else TAKEN_BACK_AT_MOST)


def next_target(facts: Facts) -> Target | None:
    """The one the agent asked for first, then the others in their order; nobody is rung twice, and nobody who is not at work.

    Who wants to leave a message, or is about to, does not want to be rung through.
    """
    if facts.at_voicemail or not facts.is_open or (facts.message_wanted and facts.voicemail):
        return None
    untried = [target for target in facts.targets if target.slug not in facts.tried]
    return next((target for target in untried if target.slug == facts.wanted), untried[0] if untried else None)
