"""The AI once more, on another stream, while the database is away: rung R1 from what Twilio asks with and what this machine knows.

The line and its agent are in this process's memory, the rest is marks on the disk (`calls.by_heart`): why the last stream was
over, that it was turned away, or whose it was, should that process be dead; how often a conversation was lost; and that the call was
sent on, which is said once. So a repeat gets the same answer, and `calls.ladder` counts as with rows. When the database is back the
mark becomes the row's next epoch, before anything is told of that stream; whoever had the one before writes nothing any more, but
what was told of it until then is stored.
"""

from __future__ import annotations

from datetime import datetime

from agents import account, lines
from calls import by_heart, ladder, let_in, resuming
from calls.clock import moment
from calls.guards import PARKED
from calls.models import VapiAccount

NO_LOSS = (PARKED, resuming.DRAINED, resuming.TURNED_AWAY, resuming.GONE)


def elsewhere(*, call_sid: str, account_sid: str, to_number: str, epoch: int, at: datetime) -> tuple[lines.Answer, datetime] | None:
    """Send a call whose stream of this epoch is over on to the next one: who answers there, and since when that is decided.

    None: nobody, so the ladder leads down.
    """
    answer = lines.remembered(to_number, draw=lines.draw_of(call_sid))
    if answer is None or answer.version is None:
        return None
    sent, why = by_heart.sent_on(call_sid, epoch + 1), _why_over(call_sid, epoch)
    if sent is None and (again := _another_agent(call_sid, epoch, why, at)) is not None:
        its = {"to_number": to_number, "account_sid": account_sid, "at": at.timestamp(), "why": why}
        at_account = VapiAccount.BACKUP if again.backup else VapiAccount.MAIN
        sent = by_heart.send_on(call_sid, epoch + 1, {**its, "account": at_account.value, "is_loss": why not in NO_LOSS})
    return (answer, moment(sent["at"])) if sent is not None else None


def _another_agent(call_sid: str, epoch: int, why: str, at: datetime) -> ladder.Resume | None:
    if let_in.turned_away_in_a_row(call_sid, epoch) > ladder.TURNED_AWAY:
        return None
    if why in ladder.NOT_RESUMED or by_heart.is_wished(call_sid, now=at.timestamp()) or _stream_is_missing(call_sid, epoch, at):
        return None
    losses = by_heart.losses(call_sid, at=at, counts=why not in NO_LOSS)
    deaths = by_heart.deaths(call_sid, at=at) if why == resuming.GONE else 0
    return ladder.next_agent(losses=losses, deaths=deaths, main=True, backup=account.has_backup())


def _why_over(call_sid: str, epoch: int) -> str:
    """The bridge's word on the stream, if it was let in; ours if its process died before it had one; else nobody knows."""
    if why := by_heart.why_closed(call_sid, epoch):
        return why
    if let_in.turned_away(call_sid, epoch):
        return resuming.TURNED_AWAY
    return resuming.GONE if by_heart.carrier_is_gone(call_sid, epoch) else ""


def _stream_is_missing(call_sid: str, epoch: int, at: datetime) -> bool:
    """The stream of this epoch was asked for by heart and did not come in time: the way to the AI is what failed."""
    sent = by_heart.sent_on(call_sid, epoch)
    if sent is None or let_in.was_seen(call_sid, epoch):
        return False
    return resuming.should_have_come(call_sid, epoch, moment(sent["at"]), at)
