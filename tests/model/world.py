"""One phone call and everybody who has a hand in it, as a state and the steps out of it.

Three kinds of steps. *Fair* ones happen sooner or later: the product's own work, and a Twilio and a Vapi that go on. *Choices*
may happen or not: people, and news that can be lost (a task, a callback). *Faults* may happen too, a given number of times.

The caller is at a place: ringing, on the way into stream e, in it, at the resume door of e, with a person, at the voicemail, told
to hang up, or gone. A bridge is (epoch, twin, phase, n); a creator holds a claim on session n. `farewell`: the agent that had the
caller, or a person, is done with them, so hanging up is no loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from calls import guards, ladder
from tests.model.product import Call, IllegalEdge, Product, Rows, Session, with_session

Name = tuple[str | int, ...]
Bridge = tuple[int, int, str, str]  # epoch, twin, phase, more of it
Creator = tuple[int, str, str]  # n, who, phase
LEFT_OUT = ("caller leaves", "agent ends", "hand over", "claim", "status", "talk", "message left")
WRITTEN_BY_THE_PAST = "somebody of an epoch that is over has written"


class State(NamedTuple):
    call: Call | None = None
    sessions: tuple[Session, ...] = ()
    place: Name = ("ringing",)
    bridges: tuple[Bridge, ...] = ()
    creators: tuple[Creator, ...] = ()
    unwritten: tuple[tuple[int, str], ...] = ()  # ends of streams that the writer still has
    unseen: int = -1  # the process of this epoch's stream is dead, and nobody knows yet
    redirect: int = -1  # the rescuer's word to Twilio is on its way: to the door of this epoch
    farewell: bool = False
    faults: int = 0
    broken: str = ""


Step = tuple[str, Name, State]  # fair | choice | fault


class World:
    """`is_busy`: the database may be, at any stream and for ever, so that the stream is turned away; that is no fault then.

    Nor is it one where the house `is_mortal` that a process dies, whenever it may be and for ever; what people do is left out there.
    """

    def __init__(
        self, *, faults: int, agents: int = 2, off: frozenset[str] = frozenset(), is_busy: bool = False, is_mortal: bool = False
    ) -> None:
        self.product, self.off, self.is_busy, self.is_mortal = Product(off, agents=agents), off, is_busy, is_mortal
        self.start = State(faults=faults)

    def wrong(self, s: State) -> str:
        return wrong(s)

    def wrong_edge(self, before: State, after: State) -> str:
        return wrong_edge(before, after)

    def unsettled(self, s: State) -> str:
        return unsettled(s)

    def steps(self, s: State) -> Iterator[Step]:
        return (step for step in self._steps(s) if not (self.is_mortal and step[0] == "choice" and step[1][0] in LEFT_OUT))

    def _steps(self, s: State) -> Iterator[Step]:
        if s.call is None:
            yield from self._unknown(s)
            return
        yield from self._caller(s, s.call)
        for bridge in s.bridges:
            yield from self._bridge(s, s.call, bridge)
        for creator in s.creators:
            yield from self._creator(s, s.call, creator)
        yield from self._house(s, s.call)

    # -- before anybody knows of the call

    def _unknown(self, s: State) -> Iterator[Step]:
        opened = s._replace(call=Call(), sessions=(Session(),))
        if s.place == ("ringing",):
            yield "fair", ("incoming",), opened._replace(place=("connect", 0))
            yield "choice", ("caller leaves",), s._replace(place=("over",))
        else:
            yield "choice", ("status",), s._replace(call=Call(status="ended", ended_at=1, endings=1))
            yield "choice", ("incoming, late",), opened

    # -- the caller, and Twilio

    def _caller(self, s: State, call: Call) -> Iterator[Step]:
        if s.faults and not any(bridge[1] for bridge in s.bridges):
            for token in range(call.epoch + 1):
                yield "fault", ("admit twin", token), _fault(self._streams(s, call, token, 1))
        if s.place != ("over",):
            yield "choice", ("caller leaves",), s._replace(place=("over",))
            if s.redirect >= 0 and s.place != ("bye",):
                yield "choice", ("redirected", s.redirect), s._replace(place=("ask", s.redirect), redirect=-1)
        match s.place:
            case ("connect", int(epoch)):
                yield "fair", ("admit", epoch), self._streams(s, call, epoch, 0)
                if self.is_busy:
                    yield "choice", ("turned away", epoch), self._turned_away(s, call, epoch)
                if s.faults:
                    yield "fault", ("turned away", epoch), self._turned_away(_fault(s), call, epoch)
                    yield "fault", ("turned away, let in too late", epoch), self._turned_away(_fault(s), call, epoch, late=True)
                    yield "fault", ("stream never opens", epoch), _fault(s)._replace(place=("ask", epoch))
                    yield "fault", ("first webhook again",), _fault(s)
            case ("stream", int(epoch)):
                yield from self._in_stream(s, call, epoch)
            case ("ask", int(epoch)):
                yield "fair", ("door", epoch), self._door(s, epoch)
                if s.faults:  # the answer is lost, and asked for again
                    yield "fault", ("door, unheard", epoch), _fault(self._door(s, epoch))._replace(place=s.place)
            case ("dial", int(epoch), str(target)):
                yield "choice", ("talk", epoch), s._replace(place=("dialled", epoch, target, "talk"), farewell=True)
                yield "choice", ("nobody", epoch), s._replace(place=("dialled", epoch, target, "no"))
            case ("dialled", int(epoch), str(target), str(how)):
                told = s._replace(call=self.product.dial_result(call, epoch, target, how))
                yield "fair", ("dial result", epoch, target, how), self._door(told, epoch)
                if s.faults:
                    again = _fault(self._door(told, epoch))._replace(place=s.place)
                    yield "fault", ("dial result, unheard", epoch, target, how), again
            case ("voicemail", _):
                ended = self.product.end_call(call)
                yield "choice", ("message left",), s._replace(call=ended, place=("bye",), farewell=True)
            case ("bye",):
                yield "fair", ("hangs up",), s._replace(place=("over",))
            case ("over",):
                yield "choice", ("status",), s._replace(call=self.product.end_call(call))
                if "sweep" not in self.off:
                    yield "fair", ("sweep",), s._replace(call=self.product.end_call(call))

    def _in_stream(self, s: State, call: Call, epoch: int) -> Iterator[Step]:
        here = [bridge for bridge in s.bridges if bridge[0] == epoch]
        awake = [bridge for bridge in here if bridge[2] != "frozen"]
        if not here:
            yield "choice", ("Twilio goes on", epoch), s._replace(place=("ask", epoch))
        if not awake and "rescuer" not in self.off:
            claimed = _seen_dead(s, epoch)
            yield "fair", ("rescued", epoch), claimed._replace(place=("ask", epoch))
            if s.faults and call.epoch == epoch and not call.is_over:
                yield "fault", ("rescuer is slow", epoch), _fault(claimed)._replace(redirect=epoch)
        if s.faults:
            yield "fault", ("Twilio drops", epoch), _fault(s)._replace(place=("ask", epoch))

    def _streams(self, s: State, call: Call, epoch: int, twin: int) -> State:
        admitted = self.product.admit(call, epoch)
        if admitted is None:
            return s if twin else s._replace(place=("ask", epoch))
        if call.stream_epoch >= epoch or call.epoch != epoch:
            return s._replace(broken="a second stream was let in, or an old one")
        s = s._replace(call=admitted, bridges=_sorted(s.bridges, (epoch, twin, "waits", "")), farewell=False)
        s = _seen_dead(s, s.unseen)
        return s if twin else s._replace(place=("stream", epoch))

    def _turned_away(self, s: State, call: Call, epoch: int, *, late: bool = False) -> State:
        """By a process whose database was busy; `late`: its row is written all the same, when nobody waits for that any more."""
        written = self.product.admit(call, epoch) if late else None
        marked = self.product.turn_away(written or call, epoch, late=written is not None)
        return s._replace(call=marked, place=("ask", epoch))

    def _door(self, s: State, epoch: int) -> State:
        assert s.call is not None
        try:
            (call, owned), step = self.product.next_step((s.call, s.sessions), epoch)
        except IllegalEdge as problem:
            return s._replace(broken=f"illegal: {problem}")
        if epoch != s.call.epoch and (call, owned) != (s.call, s.sessions):
            return s._replace(broken=WRITTEN_BY_THE_PAST)
        if isinstance(step, ladder.DialHuman) and _might_have_the_agent(s.call, s.sessions):
            return s._replace(broken="a person was rung although the agent waits")
        if isinstance(step, ladder.DialHuman) and self.is_mortal and s.call.wanted < 0 and s.call.deaths < ladder.DEATHS:
            return s._replace(broken="a person was rung although the agent is well")
        s = s._replace(call=call, sessions=owned)
        match step:
            case int(today):
                return s._replace(place=("ask", today))
            case ladder.Resume():
                return s._replace(place=("connect", call.epoch))
            case ladder.DialHuman(target):
                return s._replace(place=("dial", epoch, target.slug))
            case ladder.Voicemail():
                return s._replace(place=("voicemail", epoch))
        return s._replace(place=("bye",), broken="" if s.farewell else "a caller was hung up on")

    # -- bridges

    def _bridge(self, s: State, call: Call, bridge: Bridge) -> Iterator[Step]:
        epoch, twin, phase, more = bridge
        others = tuple(each for each in s.bridges if each is not bridge)

        def becomes(state: State, *phase: str) -> State:
            return state._replace(bridges=_sorted(others, (epoch, twin, *phase)))

        if phase == "frozen":
            before, _, n = more.partition(" ")
            yield "choice", ("thaws", epoch), becomes(s, before, n)
            return
        if s.faults or self.is_mortal:
            yield from self._dies(s, bridge, others)
        if s.faults:
            yield "fault", ("freezes", epoch), becomes(_fault(s), "frozen", f"{phase} {more}")
        if phase == "keeps":
            yield from self._keeping(s, call, epoch, s._replace(bridges=others))
            return
        if phase == "leaves":
            yield from self._leaving(s, bridge, s._replace(bridges=others))
            return
        if s.place != ("stream", epoch):
            yield "fair", ("stream is gone", epoch), becomes(s, "leaves", "caller-left" if s.place == ("over",) else "stream-lost")
            if phase == "talks" and not twin:
                yield "choice", ("stream is gone, and the agent parked", epoch), becomes(s, "leaves", guards.PARKED)
        if call.is_over or call.epoch != epoch:
            yield "fair", ("not ours any more", epoch), becomes(s, "leaves", "caller-left")
            if phase == "waits":
                return
        if phase == "waits" and self.product.is_awaited(call):
            yield from self._looks_for_its_agent(s, call, epoch, twin, others)
            return
        if phase == "waits":
            newest = len(s.sessions) - 1
            match s.sessions[newest].state:
                case "live":
                    yield "fair", ("connects", epoch, newest), becomes(s, "talks", str(newest))
                case "failed" | "ended":
                    yield "fair", ("no agent", epoch), becomes(s, "leaves", "no-agent")
                case "asked":
                    yield "fair", ("claim", newest, "consumer"), self._claimed(s, newest, "consumer")
            return
        yield from self._talking(s, call, bridge, others)

    def _dies(self, s: State, bridge: Bridge, others: tuple[Bridge, ...]) -> Iterator[Step]:
        """Of one whose agent is there it may become known after the resume door was asked, but before the next stream is here."""
        epoch, _, phase, _ = bridge
        kind, dead = ("choice", s) if self.is_mortal else ("fault", _fault(s))
        dead = dead._replace(bridges=others)
        yield kind, ("killed", epoch), _seen_dead(dead, epoch)
        if phase == "talks":
            yield kind, ("killed, unseen", epoch), dead._replace(unseen=max(s.unseen, epoch))

    def _talking(self, s: State, call: Call, bridge: Bridge, others: tuple[Bridge, ...]) -> Iterator[Step]:
        epoch, twin, _, more = bridge
        n = int(more)
        if not s.sessions[n].at_vapi or s.sessions[n].state != "live":
            yield "fair", ("agent lost", epoch), self._lost(s, epoch, twin, others)
        else:
            over = with_session(s.sessions, n, at_vapi=s.sessions[n].at_vapi - 1)
            said = s._replace(sessions=over, farewell=s.farewell or call.epoch == epoch)
            yield "choice", ("agent ends", epoch), said._replace(bridges=_sorted(others, (epoch, twin, "leaves", "agent-ended")))
            if s.faults:
                yield "fault", ("agent breaks", epoch), self._lost(_fault(s), epoch, twin, others)
        if call.epoch == epoch and not call.is_over and call.wanted != epoch:
            wanted = s._replace(call=call._replace(wanted=epoch), bridges=_sorted(others, (epoch, twin, "leaves", "handed-over")))
            yield "choice", ("hand over", epoch), wanted

    def _looks_for_its_agent(self, s: State, call: Call, epoch: int, twin: int, others: tuple[Bridge, ...]) -> Iterator[Step]:
        """The agent of the stream before waits in some process; in this one, if its keeper lives and luck will have it."""
        yield "fair", ("not found", epoch), self._lost(s, epoch, twin, others)
        for keeper in others:
            taken = self.product.taken_up(call, epoch)
            if keeper[0] == epoch - 1 and keeper[2] == "keeps" and taken is not None:
                rest = tuple(each for each in others if each is not keeper)
                talks = _sorted(rest, (epoch, twin, "talks", str(len(s.sessions) - 1)))
                yield "choice", ("taken up", epoch), s._replace(call=taken, bridges=talks)

    def _keeping(self, s: State, call: Call, epoch: int, gone: State) -> Iterator[Step]:
        given_up = self.product.given_up((call, s.sessions), epoch)
        yield "fair", ("parked no more", epoch), gone._replace(call=given_up[0], sessions=given_up[1])

    def _lost(self, s: State, epoch: int, twin: int, others: tuple[Bridge, ...]) -> State:
        """The agent is gone: `resuming.here`, or the way down."""
        assert s.call is not None
        rows = self.product.here((s.call, s.sessions), epoch)
        if rows is None:
            return s._replace(bridges=_sorted(others, (epoch, twin, "leaves", "agent-lost")))
        s = s._replace(call=rows[0], sessions=rows[1], bridges=_sorted(others, (epoch, twin, "waits", "")))
        return s if rows[0].epoch == epoch else s._replace(broken=WRITTEN_BY_THE_PAST)

    def _leaving(self, s: State, bridge: Bridge, gone: State) -> Iterator[Step]:
        epoch, why = bridge[0], bridge[3]
        if why == guards.PARKED:
            gone = gone._replace(bridges=_sorted(gone.bridges, (epoch, bridge[1], "keeps", "")))
        yield "fair", ("closes", epoch, why), _asks(self._close(gone, epoch, why), epoch)
        if s.faults and len(s.unwritten) < 1:
            later = _fault(gone)._replace(unwritten=(*gone.unwritten, (epoch, why)))
            yield "fault", ("closes, unwritten", epoch, why), _asks(later, epoch)
            twice = self._close(later, epoch, why)
            yield "fault", ("closes, and is written again", epoch, why), _asks(twice, epoch)

    def _close(self, s: State, epoch: int, why: str) -> State:
        assert s.call is not None
        try:
            rows = self.product.stream_closed((s.call, s.sessions), epoch, why)
        except IllegalEdge as problem:
            return s._replace(broken=f"illegal: {problem}")
        if rows is None:
            return s
        if epoch != s.call.epoch:
            return s._replace(broken=WRITTEN_BY_THE_PAST)
        return s._replace(call=rows[0], sessions=rows[1], broken="a stream ended twice" if s.call.closed_epoch >= epoch else "")

    # -- whoever creates sessions at Vapi

    def _claimed(self, s: State, n: int, who: str) -> State:
        assert s.call is not None
        rows = self.product.claim((s.call, s.sessions), n, who)
        if rows is None:
            return s
        if s.call.is_over or s.call.closed_epoch >= s.call.epoch:
            return s._replace(broken="an agent was asked for that nobody waits for")
        return s._replace(sessions=rows[1], creators=_sorted(s.creators, (n, who, "asks")))

    def _creator(self, s: State, call: Call, creator: Creator) -> Iterator[Step]:
        n, who, phase = creator
        rows: Rows = call, s.sessions
        gone = s._replace(creators=tuple(each for each in s.creators if each is not creator))
        alive = s.sessions[n].at_vapi
        made = with_session(s.sessions, n, at_vapi=alive + 1)
        if s.faults:
            yield "fault", ("creator dies", n, phase), _fault(gone)
        match phase:
            case "asks":
                created = gone._replace(sessions=made, creators=_sorted(gone.creators, (n, who, "stores")))
                yield "fair", ("created", n), created if not alive else created._replace(broken="two calls at Vapi for one session")
                if s.faults:
                    failed = self.product.session_failed(rows, n, who, maybe=False)
                    yield "fault", ("refused", n, who), _fault(gone)._replace(sessions=failed[1])
                    unanswered = self.product.session_failed((call, made), n, who, maybe=True)
                    yield "fault", ("unanswered", n, who), _fault(gone)._replace(sessions=unanswered[1])
            case "stores":
                kept = self.product.session_live(rows, n, who)
                if kept is not None:
                    creators = _sorted(gone.creators, (n, who, "checks"))
                    yield "fair", ("live", n, who), gone._replace(sessions=kept[1], creators=creators)
                else:  # the claim is not ours any more, so this call of Vapi's is nobody's
                    yield "fair", ("live, too late", n, who), gone._replace(sessions=with_session(s.sessions, n, at_vapi=alive - 1))
            case "checks":
                useless = "check after create" not in self.off and self.product.useless(rows, n)
                ended = self.product.end_session(rows, n) if useless else rows
                left = ended[1][n].state == "live" and self.product.useless(ended, n)
                yield "fair", ("checked", n), gone._replace(sessions=ended[1], broken="a creator left what nobody needs" if left else "")

    # -- the house, from time to time

    def _house(self, s: State, call: Call) -> Iterator[Step]:
        rows: Rows = call, s.sessions
        if s.unseen >= 0:
            yield "fair", ("seen dead", s.unseen), _seen_dead(s, s.unseen)
        for epoch, why in s.unwritten:
            rest = s._replace(unwritten=tuple(each for each in s.unwritten if each != (epoch, why)))
            yield "fair", ("written", epoch, why), self._close(rest, epoch, why)
            if s.faults:
                yield "fault", ("never written", epoch), _fault(rest)
        for n, session in enumerate(s.sessions):
            held = [creator for creator in s.creators if creator[:2] == (n, session.claim)]
            if session.state == "asked":
                yield "choice", ("claim", n, "worker"), self._claimed(s, n, "worker")
            if "claim twice" in self.off and session.state == "claimed" and len(s.creators) < 2:
                yield "choice", ("claim", n, "worker"), self._claimed(s, n, "worker")
            if session.state in ("asked", "live") and self.product.useless(rows, n) and "left over" not in self.off:
                yield "fair", ("end session", n), s._replace(sessions=self.product.end_session(rows, n)[1])
            if session.state == "claimed" and (not held or s.faults):
                failed = self.product.session_failed(rows, n, session.claim, maybe=True)[1]
                given_up = s._replace(sessions=failed)
                yield ("fault", ("given up early", n), _fault(given_up)) if held else ("fair", ("given up", n), given_up)
            extra = session.at_vapi - (session.state == "live")
            if session.maybe_created and extra > 0 and not held and "orphans" not in self.off:
                orphaned = with_session(s.sessions, n, at_vapi=session.at_vapi - extra)
                yield "fair", ("orphan ended", n), s._replace(sessions=orphaned)
        if (final := self.product.finalise(call, s.sessions)) != call:
            yield "fair", ("finalised",), s._replace(call=final)


# -- what must hold ----------------------------------------------------------------------------------------------------


def wrong(s: State) -> str:
    """What is wrong with a state, whatever comes next."""
    if s.broken or s.call is None:
        return s.broken
    if s.call.endings > 1:
        return "a call ended twice"
    if s.call.turned_away > ladder.TURNED_AWAY:
        return "a caller is turned away for ever"
    if s.call.deaths > ladder.DEATHS:
        return "processes die under a call for ever"
    if s.call.is_over and not s.farewell and s.place[0] not in ("over", "bye"):
        return "a call ended under its caller"
    return ""


def wrong_edge(before: State, after: State) -> str:
    """What one step may never do."""
    if before.call is None or after.call is None:
        return ""
    was, now = before.call.status, after.call.status
    if before.call.is_over and now != was and (was, now) != ("ended", "finalised"):
        return "what ended went on"
    return "" if after.call.epoch >= before.call.epoch else "an epoch came back"


def unsettled(s: State) -> str:
    """What is wrong with a state in which nothing more happens by itself."""
    if s.call is None:
        return ""
    used = -1
    if s.place[0] == "stream":
        talks = [bridge for bridge in s.bridges if bridge[0] == s.place[1] == s.call.epoch and bridge[2] == "talks"]
        if not talks:
            return "a caller waits for nobody"
        used = int(talks[0][3])
        if not s.sessions[used].at_vapi:
            return "a caller talks to nobody"
    elif s.place[0] == "over":
        if not s.call.is_over:
            return "a call never ended"
        if s.call.status != "finalised":
            return "its books were never closed"
    elif s.place[0] not in ("dial", "voicemail"):
        return "a caller has no next step"
    open_still = [n for n, session in enumerate(s.sessions) if n != used and (session.at_vapi or session.ended_at is None)]
    return "a Vapi call nobody needs goes on" if open_still else ""


def _might_have_the_agent(call: Call, owned: tuple[Session, ...]) -> bool:
    """Nobody was let in on the stream that is over, not yet too often, and the agent who was asked for waits."""
    is_between_streams = call.status == "connecting" and call.stream_epoch < call.epoch and call.turned_away < ladder.TURNED_AWAY
    is_parked = call.closed_epoch == call.epoch - 1 and call.closed_why == guards.PARKED
    return is_between_streams and not is_parked and owned[-1].state in ("asked", "claimed", "live")


def _fault(s: State) -> State:
    return s._replace(faults=s.faults - 1)


def _seen_dead(s: State, epoch: int) -> State:
    """The process of this epoch's stream is, by a lease: nobody asks for that of a call which is over, or of a stream before the last."""
    assert s.call is not None
    unseen = -1 if epoch >= s.unseen else s.unseen
    if s.call.is_over or epoch < max(s.call.epoch - 1, s.call.gone):
        return s._replace(unseen=unseen)
    return s._replace(call=s.call._replace(gone=epoch), unseen=unseen)


def _asks(s: State, epoch: int) -> State:
    """The socket of this stream is closed: Twilio asks what is next, if it was still there."""
    return s._replace(place=("ask", epoch)) if s.place == ("stream", epoch) else s


def _sorted(those: tuple[Creator, ...] | tuple[Bridge, ...], one: tuple) -> tuple:  # type: ignore[type-arg]
    return tuple(sorted((*those, one)))
