"""Streams on which nobody was let in: nothing was said there, so nothing was lost, and the agent that was asked for waits for the next one.

Such a stream came to a process of ours that could neither write it down nor let it in by heart, as when thirty come at once: that is
known by the mark it leaves on this machine (`let_in.turn_away`). Or it never came: then Twilio alone knows why, and who has waited
long enough for it is led down. `calls.ladder` says how many in a row there may be.
"""

from __future__ import annotations

from datetime import datetime

from calls import ladder, let_in, parked, resuming
from calls.models import CallSession


def in_a_row(call: CallSession) -> int:
    """So many streams, up to the newest one. 0: somebody was let in on that, or no agent waits for the next one.

    An agent that was parked for it waits no longer: that conversation is lost.
    """
    agent = call.newest_session
    if agent is None or agent.ended_at is not None or parked.is_awaited(call) or _is_in(call):
        return 0
    before = call.events.filter(kind=resuming.TURNED_AWAY).order_by("-seq").values_list("detail__epoch", flat=True)
    expected = range(call.epoch - 1, call.epoch - 1 - ladder.TURNED_AWAY, -1)
    matching = [epoch == its for epoch, its in zip(before[: ladder.TURNED_AWAY], expected, strict=False)]
    return 1 + (matching.index(False) if False in matching else len(matching))


def _is_in(call: CallSession) -> bool:
    """Somebody was let in on the newest stream. One may be written down as such a moment after it was refused."""
    if call.stream_epoch < call.epoch:
        return let_in.is_let_in(call.call_sid, call.epoch)
    refused = let_in.turned_away(call.call_sid, call.epoch)
    return not refused or refused != call.stream_sid


def never_came(call: CallSession, at: datetime) -> bool:
    """The newest stream should be here by now, and no process of this machine has seen it: one may be let in by heart before its row is."""
    return not let_in.was_seen(call.call_sid, call.epoch) and resuming.stream_is_missing(call, at)


def next_stream(call: CallSession, *, at: datetime) -> bool:
    """Give a held call its next epoch, for the agent that waits. False when somebody else did, or the call may not go on."""
    if not resuming.on_another_stream(call, at):
        return False
    resuming.turned_away(call, epoch=call.epoch, at=at)
    return True
