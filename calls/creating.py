"""An agent for a stream, made by the stream's own process when no worker is there to do it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from bridge.errors import VapiError
from bridge.ports import CallRef
from bridge.vapi_answers import VapiCall
from calls import entries, inbox, publisher, sessions, tasks, whereabouts
from calls.entries import Created
from calls.models import VapiAccount, VapiSession
from calls.storing import the_keeper

log = logging.getLogger(__name__)


def create(ref: CallRef, n: int, clients: Mapping[VapiAccount, sessions.Vapi], *, from_another: bool = False) -> bool:
    """Nobody awaits this thread, so it raises nothing and says itself what went wrong. `from_another`: whoever was at it died.

    True when an agent was made that the database did not take: it is kept, and stored later.
    """
    kept: list[VapiCall] = []
    try:
        mine = VapiSession.objects.filter(call__call_sid=ref.call_sid, call__epoch=ref.epoch, n=n)
        for pk in mine.values_list("pk", flat=True):
            if _start(ref, n, pk, clients, kept, from_another=from_another):
                _end_former(ref.call_sid, clients)
    except Exception as problem:
        log.error("The consumer's own start of a conversation broke", extra={"call": ref.short_id, **whereabouts.of(problem)})
    return bool(kept)


def _start(
    ref: CallRef, n: int, pk: int, clients: Mapping[VapiAccount, sessions.Vapi], kept: list[VapiCall], *, from_another: bool = False
) -> bool:
    """This session, or the one that is asked for instead when it fails. True when one of them lives, by our hand."""
    started, client, keep = False, _client_of(pk, clients), partial(_keep, ref, n, kept)
    try:
        started = sessions.start_conversation(vapi_session_pk=pk, by="consumer", client=client, from_another=from_another, keep=keep)
    finally:
        if not started:
            publisher.task(tasks.clear_up, pk)
    if started:
        inbox.catch_up(vapi_session_pk=pk, at=datetime.now(tz=UTC))
    elif (instead := sessions.asked_instead(pk=pk)) is not None:
        return _start(ref, n + 1, instead, clients, kept)
    return started


def _keep(ref: CallRef, n: int, kept: list[VapiCall], made: VapiCall) -> bool:
    """It goes where all goes that the database does not take: another one would be made if it was ended."""
    told = Created(ref, n, time.time(), made.id, made.socket_url, made.control_url)
    if not the_keeper().append([entries.kept(told)]):
        return False
    kept.append(made)
    return True


def _end_former(call_sid: str, clients: Mapping[VapiAccount, sessions.Vapi]) -> None:
    """What the worker that is not there would have done too: the agent before may go on at Vapi, with a process that stands still."""
    for pk in sessions.open_sessions(call_sid=call_sid):
        with suppress(VapiError):  # the sweep tries again
            sessions.end_session(pk=pk, client=_client_of(pk, clients), at=datetime.now(tz=UTC))


def _client_of(pk: int, clients: Mapping[VapiAccount, sessions.Vapi]) -> sessions.Vapi:
    return clients.get(VapiAccount(sessions.account_of(pk=pk)), clients[VapiAccount.MAIN])
