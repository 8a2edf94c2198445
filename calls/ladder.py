"""Which rung next, when the stream of a call is over and the caller may still be there. Pure.

The ladder is entered at the highest healthy rung and only gone down: AI, the same AI resumed, a backup, a person, voicemail.
Asked twice with the same facts it gives the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from calls.lifecycle import STREAM_ENDS

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
    them; `resumable`: an agent answers this call and nobody asked for a person.
    `main`, `backup`: that account at Vapi may be asked for an agent now.
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
    main: bool = True
    backup: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """The AI again, on a stream of its own, with the conversation so far; made at the backup account, or at the main one."""

    backup: bool = False


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


Step = Resume | HangUp | DialHuman | Voicemail


def decide(facts: Facts) -> Step:
    """The highest rung this caller can stand on now."""
    if facts.is_over or facts.talked or (facts.closed_why in STREAM_ENDS and not facts.sent_on):
        return HangUp()
    if facts.resumable and not facts.sent_on and facts.closed_why not in NOT_RESUMED:
        again = next_agent(losses=facts.losses, main=facts.main, backup=facts.backup)
        if again is not None:
            return again
    target = None if facts.at_voicemail else next_target(facts)
    if target is not None:
        return DialHuman(target)
    return Voicemail() if facts.voicemail else HangUp(sorry=True)


def next_agent(*, losses: int, main: bool, backup: bool) -> Resume | None:
    """The first loss leads to R1, the second to R2 (R1 without a backup), the third to a person. R2 too when R1 is not to be had."""
    if losses > RESUMES:
        return None
    if backup and (losses == RESUMES or not main):
        return Resume(backup=True)
    return Resume() if main else None


def next_target(facts: Facts) -> Target | None:
    """The one the agent asked for first, then the others in their order; nobody is rung twice."""
    untried = [target for target in facts.targets if target.slug not in facts.tried]
    return next((target for target in untried if target.slug == facts.wanted), untried[0] if untried else None)
