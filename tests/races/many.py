"""What several workers of each process do at once, and the rows they do it to, on whatever database the pair has."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

from django.test import Client
from django.test.utils import override_settings
from django.utils import timezone

from agents import lines
from agents.models import PhoneLine
from calls import inbox, intake, leases, patience, publisher, services, sessions
from calls.models import CallSession, InboxMessage, Status, TranscriptLine, VapiSession, VapiState
from calls.sweep import end_silent_calls
from tests.builders import ACCOUNT, LINE, FakeVapi, QuietPublisher, a_call, a_line, at_once, session_of
from tests.calls import doors

LONG_AGO = timedelta(hours=2)
ASKED_S = 0.004  # until a vendor has answered
PATIENT_S = 30.0
NO_LIMIT = 100_000
IN_PROGRESS, SAID_AGAIN = "in-progress", 4


@contextmanager
def patient() -> Iterator[None]:
    """However busy the machine is, the rows answer: what is said by heart, or kept in the spool, is another race."""
    before = patience.WHERE_A_CALLER_WAITS_S, intake.WITHIN_S
    patience.WHERE_A_CALLER_WAITS_S = intake.WITHIN_S = PATIENT_S
    try:
        yield
    finally:
        patience.WHERE_A_CALLER_WAITS_S, intake.WITHIN_S = before


# -- rows --------------------------------------------------------------------------------------------------------------


def make_line() -> None:
    lines.forget()
    if not PhoneLine.objects.filter(number=LINE).exists():
        a_line(number=LINE)


def make_calls(how_many: int, silent: bool = False, status: str = Status.STREAMING) -> list[str]:
    """Calls on their first stream, with an agent that lives at Vapi."""
    seen = timezone.now() - LONG_AGO if silent else timezone.now()
    with override_settings(MAX_CALLS=NO_LIMIT):
        calls = [a_call(status=Status(status), stream_epoch=0, last_seen_at=seen) for _ in range(how_many)]
    for call in calls:
        VapiSession.objects.filter(call=call).update(state=VapiState.LIVE, vapi_call_id=f"v-{call.call_sid}", live_at=timezone.now())
    return [call.call_sid for call in calls]


def a_process_with_calls(how_many: int) -> str:
    """A process that gives no sign any more, by its boot id, and calls that it carries."""
    boot = uuid.uuid4()
    leases.begin(boot=boot, at=timezone.now())
    for _ in range(how_many):
        a_call(status=Status.STREAMING, stream_epoch=0, held_by=boot)
    return str(boot)


def make_silent_processes(how_many: int) -> list[tuple[str, str]]:
    """Processes of one call each: boot id and CallSid."""
    with override_settings(MAX_CALLS=NO_LIMIT):
        boots = [a_process_with_calls(1) for _ in range(how_many)]
    return [(boot, CallSession.objects.get(held_by=boot).call_sid) for boot in boots]


def how_it_stands(sid: str) -> dict[str, Any]:
    """What the rows tell of a call, but for whom and when."""
    call = CallSession.objects.get(call_sid=sid)
    return {
        "status": str(call.status),
        "is_over": call.is_over,
        "epoch": call.epoch,
        "held_by": str(call.held_by),
        "sessions": list(call.vapi_sessions.values_list("n", flat=True)),
        "events": Counter(call.events.values_list("kind", flat=True)),
    }


# -- R1 ----------------------------------------------------------------------------------------------------------------


def post_at_once(sid: str, times: int) -> dict[str, Any]:
    """So many identical first webhooks, in a thread each; then everything they asked a worker to do, at once too."""
    lines.forget()
    fields, quiet = doors.incoming(sid, To=LINE, AccountSid=ACCOUNT), QuietPublisher()
    before = publisher.install(quiet)
    try:
        with patient():
            answers = at_once([lambda: doors.knock(Client(), "/webhook/twilio", fields)] * times)
    finally:
        publisher.install(before)
    vapi = FakeVapi(during=lambda: time.sleep(ASKED_S))
    asked = [args[0] for name, args in quiet.tasks if name == "calls.tasks.start_conversation"]
    if asked:
        at_once([partial(sessions.start_conversation, vapi_session_pk=pk, by="worker", client=vapi) for pk in asked])
    said = sorted({f"{answer.status_code} {answer.content.decode()}" for answer in answers})
    return {"said": said, "asked": len(asked), "created": len(vapi.created)}


def rows_of(sid: str) -> dict[str, int]:
    sessions_of_it = VapiSession.objects.filter(call__call_sid=sid)
    live = sessions_of_it.filter(state=VapiState.LIVE)
    return {"calls": CallSession.objects.filter(call_sid=sid).count(), "sessions": sessions_of_it.count(), "live": live.count()}


# -- R2 ----------------------------------------------------------------------------------------------------------------


def news(sid: str, how_many: int) -> list[str]:
    """So many webhooks of one call: lines, what was understood meanwhile, its end and its report, and a third of it told again."""
    vapi_call, at = {"id": f"v-{sid}", "name": f"{sid}.0"}, 1_790_000_000_000
    said = [(n, "user" if n % 2 else "assistant", f"{_word(n)} {_word(n + 7)} of parcel {_word(3 * n)}") for n in range(how_many // 3)]
    final = {"type": "transcript", "transcriptType": "final"}
    finals = [{**final, "role": role, "transcript": text, "timestamp": at + 3000 * n} for n, role, text in said]
    partials = [{**each, "transcriptType": "partial", "transcript": "the"} for each in finals]
    over = {"type": "status-update", "status": "ended", "endedReason": "customer-ended-call", "timestamp": at + 9_000_000}
    spoken = [
        {"role": role.replace("assistant", "bot"), "message": text, "time": at + 3000 * n, "duration": 900, "secondsFromStart": 3.0 * n}
        for n, role, text in said
    ]
    report = {"type": "end-of-call-report", "endedReason": "customer-ended-call", "cost": 0.1, "artifact": {"messages": spoken}}
    ends = [over, {**report, "timestamp": at + 9_010_000}] * SAID_AGAIN
    again = (finals * SAID_AGAIN)[: how_many - len(finals) - len(partials) - len(ends)]
    return [json.dumps({"message": {**each, "call": vapi_call}}) for each in (*finals, *partials, *ends, *again)]


def _word(n: int) -> str:
    """No two lines may be taken for one that was said twice."""
    return "".join(chr(ord("a") + int(digit)) for digit in f"{n * 7919 % 100_003:05d}")


def hear_in_order(sid: str, how_many: int) -> list[int]:
    client = Client()
    with patient():
        return sorted({_brought(client, body) for body in news(sid, how_many)})


def hear_at_once(sid: str, how_many: int, seed: int, half: int, workers: int) -> list[int]:
    """One of two halves of a call's news in an order of the seed, dealt to workers who bring them in at once."""
    told = news(sid, how_many)
    Random(seed).shuffle(told)
    mine = told[half::2]

    def bring(bodies: list[str]) -> set[int]:
        client = Client()
        return {_brought(client, body) for body in bodies}

    with patient():
        answered = at_once([partial(bring, mine[number::workers]) for number in range(workers)])
    return sorted(set().union(*answered))


def _brought(client: Client, body: str) -> int:
    """What is answered 503 is sent again, as the vendor does."""
    for _ in range(20):
        proof = {"X-Vapi-Secret": doors.SECRET}
        status: int = client.post("/webhook/vapi", data=body.encode(), content_type="application/json", headers=proof).status_code
        if status != 503:
            break
    return status


def caught_up(sid: str) -> dict[str, Any]:
    """The end of a call, after what was left to a worker was read as the schedule does it."""
    for pk in inbox.inbox_to_do(now=timezone.now() + timedelta(minutes=1)):
        inbox.reprocess(pk=pk, at=timezone.now())
    call = CallSession.objects.get(call_sid=sid)
    session, told = session_of(call), InboxMessage.objects.filter(call=call)
    said = TranscriptLine.objects.filter(call=call).exclude(vapi_call_id="")
    numbers = list(call.events.order_by("seq").values_list("seq", flat=True))
    return {
        "lines": list(said.order_by("vendor_ms", "pk").values_list("role", "said", "vendor_ms")),
        "session": [session.state, session.ended_reason, session.report_at is not None, str(session.cost_usd)],
        "events": Counter(call.events.values_list("kind", flat=True)),
        "numbered": numbers == list(range(1, call.last_event_seq + 1)),
        "bodies": Counter(told.values_list("kind", flat=True)),
        "waiting": InboxMessage.objects.filter(processed_at=None).count(),
    }


# -- R6 ----------------------------------------------------------------------------------------------------------------


class TwilioSays:
    """Takes a moment to say "in progress" of these calls, and "completed" of all others."""

    def __init__(self, alive: list[str], says_after_s: float = 0.0) -> None:
        self._alive, self._says_after_s = alive, says_after_s

    def status(self, call_sid: str, account_sid: str) -> str:
        time.sleep(self._says_after_s)
        return IN_PROGRESS if call_sid in self._alive else "completed"

    def hang_up(self, call_sid: str, account_sid: str) -> bool:
        return True

    def redirect(self, call_sid: str, url: str, account_sid: str) -> bool:
        return True


def sweep_at_once(workers: int, at: str, ttl_s: float, alive: list[str], says_after_s: float = 0.0) -> list[str]:
    """Whom these sweeps, of one moment, have ended."""
    now, twilio = datetime.fromisoformat(at), TwilioSays(alive, says_after_s)
    swept = at_once([partial(end_silent_calls, now=now, ttl=timedelta(seconds=ttl_s), twilio=twilio)] * workers)
    return [sid for sids in swept for sid in sids]


def sound_and_sweep(sid: str, sounds: bool, **sweeps: Any) -> dict[str, Any]:
    """A second on the process that carries a call: a sign of its sound, if it is time for one, beside the sweeps."""
    heard = not sounds or services.heartbeat(call_sid=sid, epoch=0, at=datetime.fromisoformat(sweeps["at"]))
    return {"ended": sweep_at_once(**sweeps), "heard": heard}


def beat_each(sids: list[str], at: str, each_s: float) -> list[str]:
    """Whose stream still owns its call, of streams that give a sign one after the other."""
    owning: list[str] = []
    for sid in sids:
        time.sleep(each_s)
        if services.heartbeat(call_sid=sid, epoch=0, at=datetime.fromisoformat(at)):
            owning.append(sid)
    return owning


MANY: dict[str, Callable[..., Any]] = {
    job.__name__: job
    for job in (
        make_line,
        make_calls,
        make_silent_processes,
        how_it_stands,
        post_at_once,
        rows_of,
        hear_in_order,
        hear_at_once,
        caught_up,
        sweep_at_once,
        sound_and_sweep,
        beat_each,
    )
}
