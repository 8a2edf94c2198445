"""Which rung next, when the stream of a call is over and the caller may still be there. Pure.

The ladder is entered at the highest healthy rung and only gone down: AI, the same AI resumed, a backup, a person, voicemail.
(R2 will be a further `Step`: until there is a backup, the AI is resumed twice.) Asked twice with the same facts it gives the
same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from calls.lifecycle import STREAM_ENDS

LONGEST_WAIT_S = 30.0  # in the queue, from the first word on
TURN_S = 8.0  # the longest turn of the wait: the place is said, and the caller may press a key
RESUMES = 2  # losses within a minute of each other that lead back to the AI
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
    `at_voicemail`: the caller stands on the last rung already. `losses` are the conversations lost by now, this one among
    them; `resumable`: an agent answers this call and nobody asked for a person. `waiting_s`: since when the caller waits for
    the AI, None for one who does not; `has_room`: it has a place for this caller.
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
    resumable: bool = False
    waiting_s: float | None = None
    has_room: bool = True


@dataclass(frozen=True, slots=True)
class Resume:
    """The AI, on a stream of its own; with the conversation so far, if there was any."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Another turn in the queue."""


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


Step = Resume | Wait | HangUp | DialHuman | Voicemail


def decide(facts: Facts) -> Step:
    """The highest rung this caller can stand on now."""
    if facts.is_over or facts.talked or (facts.closed_why in STREAM_ENDS and not facts.sent_on):
        return HangUp()
    if facts.waiting_s is not None and facts.has_room:
        return Resume()
    if facts.waiting_s is not None and facts.waiting_s + TURN_S <= LONGEST_WAIT_S:
        return Wait()
    if facts.resumable and not facts.sent_on and facts.closed_why not in NOT_RESUMED and may_resume(facts.losses):
        return Resume()
    target = None if facts.at_voicemail else next_target(facts)
    if target is not None:
        return DialHuman(target)
    return Voicemail() if facts.voicemail else HangUp(sorry=True)


def may_resume(losses: int) -> bool:
    """The first loss and the second lead to R1 (the second to R2, once there is a backup), the third to a person."""
    return losses <= RESUMES


def next_target(facts: Facts) -> Target | None:
    """The one the agent asked for first, then the others in their order; nobody is rung twice."""
    untried = [target for target in facts.targets if target.slug not in facts.tried]
    return next((target for target in untried if target.slug == facts.wanted), untried[0] if untried else None)
