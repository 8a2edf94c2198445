"""What the product does to the rows of one call, one verb per transaction, on plain values.

Conditions and decisions are the product's own (`calls.guards`, `calls.lifecycle`, `calls.ladder`, `sessions.OF_NO_USE`). What
is told again here is which columns a verb sets; `test_conformance` holds that against the real services, step by step.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from django.db.models import Q

from calls import guards, ladder, lifecycle, sessions
from calls.models import Status
from tests.model.conditions import Condition, compiled

TARGETS = (ladder.Target("tier2"),)
CONDITIONS: dict[str, Any] = {
    "live": guards.LIVE,
    "owner": guards.owner,
    "live_owner": guards.live_owner,
    "may_become": guards.may_become,
    "token_unused": guards.token_unused,
    "stream_not_closed": guards.stream_not_closed,
    "awaited_after": guards.awaited_after,
    "agent_wanted": guards.AGENT_WANTED,
    "unclaimed": guards.UNCLAIMED,
    "claimed_with": guards.claimed_with,
    "session_open": guards.SESSION_OPEN,
    "of_no_use": sessions.OF_NO_USE,
}
OF_A_SESSION = {"unclaimed", "claimed_with", "session_open", "of_no_use"}


class Call(NamedTuple):
    status: str = "connecting"
    epoch: int = 0
    stream_epoch: int = -1
    closed_epoch: int = -1
    closed_why: str = ""
    ended_at: int | None = None
    endings: int = 0
    wanted: int = -1  # the last epoch in which a person was asked for
    taken_back: int = 0
    refused: tuple[int, bool] = (-1, False)  # the mark of a stream that was turned away: its epoch, and whether the row lets it in too late
    turned_away: int = 0  # streams that let nobody in, in a row before this one
    gone: int = -1  # the epoch whose stream a process carried that is known to be dead, or taken for dead
    deaths: int = 0  # of such processes, after which another agent was asked for
    dials: tuple[tuple[str, str], ...] = ()  # (target, "" | "no" | "talk")

    @property
    def is_over(self) -> bool:
        return self.status in ("ended", "finalised")


class Session(NamedTuple):
    state: str = "asked"
    claim: str = ""
    ended_at: int | None = None
    maybe_created: bool = False
    at_vapi: int = 0  # calls of its name that are alive there: the world's, not a column


Rows = tuple[Call, tuple[Session, ...]]


class IllegalEdge(Exception):
    """Somebody asked for a change of state that there is not; in the product a test fails on it."""


class Product:
    """`off`: guards that are removed, as "condition.term" or as the name of a step."""

    def __init__(self, off: frozenset[str] = frozenset(), *, agents: int = 2) -> None:
        self.off = off
        self.spent = ladder.RESUMES + 1 - agents  # losses before the model begins: so many agents are to be had
        self._made: dict[tuple[Any, ...], Condition] = {}

    def holds(self, name: str, call: Call, *args: Any, session: Session | None = None, later: bool = False) -> bool:
        key = (name, *args)
        if key not in self._made:
            q = CONDITIONS[name] if isinstance(CONDITIONS[name], Q) else CONDITIONS[name](*args)
            without = [term for where, _, term in (each.partition(".") for each in self.off) if where == name and term]
            self._made[key] = compiled(q, without=without, of_session=name in OF_A_SESSION)
        return self._made[key](call, session, later)

    # -- states

    def end_call(self, call: Call) -> Call:
        if not self.holds("live", call):
            return call
        return call._replace(status="ended", ended_at=1, endings=call.endings + 1, gone=-1, deaths=0)

    def transition(self, call: Call, to: Status, epoch: int) -> Call:
        if self.holds("may_become", call, to, epoch):
            return call._replace(status=to.value)
        if call.epoch == epoch and call.status != to.value and lifecycle.may(Status(call.status), Status.ENDED):
            raise IllegalEdge(f"{call.status} to {to.value}")
        return call

    def finalise(self, call: Call, owned: tuple[Session, ...]) -> Call:
        if call.status != "ended" or any(session.ended_at is None for session in owned):
            return call
        return call._replace(status="finalised")

    # -- streams

    def admit(self, call: Call, epoch: int) -> Call | None:
        if not self.holds("token_unused", call, epoch):
            return None
        return call._replace(stream_epoch=epoch, status="streaming")

    def stream_closed(self, rows: Rows, epoch: int, why: str) -> Rows | None:
        """None: nothing was written."""
        call, owned = rows
        if why == "agent-ended" and call.wanted == epoch:
            why = "handed-over"
        if not self.holds("stream_not_closed", call, epoch):
            return None
        call = call._replace(closed_epoch=epoch, closed_why=why)
        if call.status not in ("connecting", "streaming"):
            return call, owned
        if why in lifecycle.STREAM_ENDS:
            return self.end_call(call), owned
        return self.transition(call, Status.TRANSFERRING if why == "handed-over" else Status.RECOVERING, epoch), owned

    def turn_away(self, call: Call, epoch: int, *, late: bool) -> Call:
        """`let_in.turn_away`: the first mark of an epoch stands."""
        return call if call.refused[0] >= epoch else call._replace(refused=(epoch, late))

    def turned_away(self, call: Call, owned: tuple[Session, ...]) -> int:
        """`turned_away.in_a_row`."""
        is_in = call.stream_epoch == call.epoch and call.refused != (call.epoch, True)
        if "let-in" in self.off or not owned or owned[-1].ended_at is not None or self.is_awaited(call) or is_in:
            return 0
        return 1 + min(call.turned_away, ladder.TURNED_AWAY - ("turned-away" in self.off))

    # -- the ladder

    def died(self, call: Call) -> bool:
        """`resuming.died`."""
        if "died" in self.off:
            return False
        is_unsaid = call.closed_epoch < call.epoch == call.stream_epoch
        return (is_unsaid and call.gone == call.epoch) or (self.is_awaited(call) and call.gone >= call.epoch - 1)

    def losses(self, call: Call, owned: tuple[Session, ...]) -> int:
        return len(owned) + self.spent - call.deaths - (self.died(call) or self.is_parked(call))

    def deaths(self, call: Call) -> int:
        return call.deaths + 1 if self.died(call) and "deaths" not in self.off else 0

    def another(self, call: Call, owned: tuple[Session, ...]) -> bool:
        """An agent is to be had in the place of the one that is lost."""
        lost = {"losses": self.losses(call, owned), "deaths": self.deaths(call)}
        again = ladder.next_agent(**lost, main=self.main_is_left(owned), backup=False)
        return self.may_be_resumed(call, owned) and again is not None

    def counted(self, call: Call) -> Call:
        """`resuming._next_session`, of what is lost; what is known of the process has been told with it."""
        return call._replace(deaths=call.deaths + self.died(call), gone=call.gone if call.gone == call.epoch else -1)

    def is_parked(self, call: Call) -> bool:
        """The agent of the newest stream, which is closed."""
        return call.closed_epoch == call.epoch and call.closed_why == guards.PARKED

    def is_awaited(self, call: Call) -> bool:
        """A parked agent, by the newest stream."""
        return call.closed_epoch == call.epoch - 1 and call.closed_why == guards.PARKED

    def may_be_resumed(self, call: Call, owned: tuple[Session, ...]) -> bool:
        return self.agent_at_hand(owned) and call.wanted != call.epoch

    def agent_at_hand(self, owned: tuple[Session, ...]) -> bool:
        return bool(owned) and owned[-1].state != "failed"

    def main_is_left(self, owned: tuple[Session, ...]) -> bool:
        """`accounts.left`: an account that could not make an agent for this call is not asked again."""
        return not any(session.state == "failed" for session in owned)

    def here(self, rows: Rows, epoch: int) -> Rows | None:
        """`resuming.here`: another agent on the same stream."""
        call, owned = rows
        if not self.holds("owner", call, epoch) or call.is_over or call.closed_epoch >= epoch:
            return None
        if not self.another(call, owned):
            return None
        counted = self.counted(call)
        return (self.decided(counted, epoch - 1) or counted), (*owned, Session())

    # -- agents that are parked

    def decided(self, call: Call, epoch: int) -> Call | None:
        """`parked.decided`. None: somebody else has."""
        if call.is_over or call.closed_epoch != epoch or call.closed_why != guards.PARKED or call.epoch not in (epoch, epoch + 1):
            return None
        return call._replace(closed_why="stream-lost")

    def taken_up(self, call: Call, epoch: int) -> Call | None:
        return self.decided(call, epoch - 1) if self.holds("owner", call, epoch) else None

    def given_up(self, rows: Rows, epoch: int) -> Rows:
        call, owned = rows
        decided = self.decided(call, epoch)
        if decided is None or call.epoch == epoch:
            return decided or call, owned
        if not self.another(call, owned):
            return decided, owned
        counted = self.counted(call)
        return decided._replace(deaths=counted.deaths, gone=counted.gone), (*owned, Session())

    def next_step(self, rows: Rows, epoch: int) -> tuple[Rows, ladder.Step | int]:
        """`handover.next_step`; a number says at the door of which epoch to ask."""
        call, owned = rows
        if not self.holds("owner", call, epoch):
            if self.holds("awaited_after", call, epoch):
                return rows, ladder.Resume()
            if epoch < call.epoch and not call.is_over and "ask-anew" not in self.off:
                return rows, call.epoch
            return rows, ladder.HangUp()
        empty = self.turned_away(call, owned)
        step = _decide(
            call.is_over,
            call.closed_why if call.closed_epoch == call.epoch else "",
            call.dials,
            call.status in ("transferring", "voicemail"),
            call.status == "voicemail",
            self.losses(call, owned),
            self.deaths(call),
            self.may_be_resumed(call, owned),
            self.is_parked(call),
            empty,
            self.main_is_left(owned),
            call.wanted == call.epoch,
            self.agent_at_hand(owned) and self.main_is_left(owned),
            call.taken_back,
        )
        match step:
            case ladder.Resume():
                return self._elsewhere(rows, may_wait=True, stays=empty > 0)
            case ladder.TakeBack():
                return self._elsewhere((call._replace(taken_back=call.taken_back + 1), owned))
            case ladder.DialHuman(target):
                return (self._move(self._asked(call, target.slug), Status.TRANSFERRING), owned), step
            case ladder.Voicemail():
                return (self._move(call, Status.VOICEMAIL), owned), step
        return (self.end_call(call), owned), step

    def _elsewhere(self, rows: Rows, *, may_wait: bool = False, stays: bool = False) -> tuple[Rows, ladder.Step]:
        """`stays`: the agent does, for the next stream (`turned_away.next_stream`)."""
        call, owned = rows
        unsaid = call.closed_epoch < call.epoch == call.stream_epoch and bool(owned) and owned[-1].state == "live"
        waits = may_wait and (self.is_parked(call) or (unsaid and call.gone != call.epoch))
        counted = self.counted(call).deaths if may_wait and not (stays or waits) else call.deaths
        from_here = ("recovering", "transferring")
        ways = (Status.CONNECTING,) if call.status in from_here else (Status.RECOVERING, Status.CONNECTING)
        for to in ways:
            call = self.transition(call, to, call.epoch)
        if not self.holds("live_owner", call, call.epoch):
            return (call, owned), ladder.HangUp()
        raised = call.epoch + ("next-epoch" not in self.off)
        call = call._replace(turned_away=call.turned_away + 1 if stays else 0, deaths=counted)
        if stays:
            return (call._replace(epoch=raised), owned), ladder.Resume()
        if waits:
            return (call._replace(epoch=raised, closed_epoch=call.epoch, closed_why=guards.PARKED), owned), ladder.Resume()
        return (call._replace(epoch=raised, gone=-1), (*owned, Session())), ladder.Resume()

    def _asked(self, call: Call, target: str) -> Call:
        return call if target in dict(call.dials) else call._replace(dials=(*call.dials, (target, "")), gone=-1)

    def _move(self, call: Call, to: Status) -> Call:
        return call if call.status == to.value else self.transition(call, to, call.epoch)

    def dial_result(self, call: Call, epoch: int, target: str, how: str) -> Call:
        if not self.holds("owner", call, epoch):
            return call
        dials = dict(self._asked(call, target).dials)
        return call._replace(dials=tuple((dials | {target: dials[target] or how}).items()))

    # -- Vapi sessions

    def useless(self, rows: Rows, n: int) -> bool:
        call, owned = rows
        return self.holds("of_no_use", call, session=owned[n], later=n + 1 < len(owned))

    def claim(self, rows: Rows, n: int, who: str) -> Rows | None:
        call, owned = rows
        if not self.holds("agent_wanted", call) or not self.holds("unclaimed", call, session=owned[n]):
            return None
        return call, with_session(owned, n, state="claimed", claim=who)

    def session_live(self, rows: Rows, n: int, who: str) -> Rows | None:
        call, owned = rows
        if not self.holds("claimed_with", call, who, session=owned[n]):
            return None
        return call, with_session(owned, n, state="live")

    def session_failed(self, rows: Rows, n: int, who: str, *, maybe: bool) -> Rows:
        call, owned = rows
        if not self.holds("claimed_with", call, who, session=owned[n]):
            return rows
        return call, with_session(owned, n, state="failed", ended_at=1, maybe_created=maybe)

    def end_session(self, rows: Rows, n: int) -> Rows:
        call, owned = rows
        session = owned[n]
        if self.holds("unclaimed", call, session=session):
            return call, with_session(owned, n, state="ended", ended_at=1)
        if session.state != "live" or not self.holds("session_open", call, session=session):
            return rows
        return call, with_session(owned, n, state="ended", ended_at=1, at_vapi=max(0, session.at_vapi - 1))


def with_session(owned: tuple[Session, ...], n: int, **changes: Any) -> tuple[Session, ...]:
    return (*owned[:n], owned[n]._replace(**changes), *owned[n + 1 :])


@cache
def _decide(
    over: bool,
    why: str,
    dials: tuple[tuple[str, str], ...],
    sent_on: bool,
    at_voicemail: bool,
    losses: int,
    deaths: int,
    resumable: bool,
    parked: bool,
    turned_away: int,
    main: bool,
    wished: bool,
    agent_at_hand: bool,
    taken_back: int,
) -> ladder.Step:
    return ladder.decide(
        ladder.Facts(
            is_over=over,
            closed_why=why,
            targets=TARGETS,
            tried=frozenset(target for target, how in dials if how),
            talked=any(how == "talk" for _, how in dials),
            sent_on=sent_on,
            at_voicemail=at_voicemail,
            voicemail=True,
            losses=losses,
            deaths=deaths,
            resumable=resumable,
            parked=parked,
            turned_away=turned_away,
            main=main,
            by_wish=wished or why == "handed-over",
            agent_at_hand=agent_at_hand,
            taken_back=taken_back,
        )
    )
