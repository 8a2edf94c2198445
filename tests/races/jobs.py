"""What the two processes do at once: one service of the product each, by the name a test gives it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from random import Random
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from django.test.utils import override_settings
from django.utils import timezone

from agents import lines
from agents import services as agent_services
from agents.meanwhile import changed_meanwhile
from agents.models import AssistantTemplate, Edited, HandoffTarget, PhoneLine, Team, TemplateVersion, Tool
from bridge.ports import Closing
from calls import admission, breaker, endings, handover, inbox, ladder, leases, person, rescue, services, sessions
from calls.clock import moment
from calls.models import CallSession, EndReason
from calls.sweep import end_silent_calls
from tests.agents.words import EMAIL_TOOL
from tests.browser import fields_of
from tests.builders import ACCOUNT, LINE, FakeVapi, vapi_call
from tests.calls import doors
from tests.races.asking import ask_for_agent, put_through
from tests.races.busy import make_while_busy
from tests.races.leaving import carry, leave
from tests.races.many import MANY
from tests.races.waits import all_wait, wait_for_others

VAPI_ANSWERS_S = 0.004
PROOF = {"X-Vapi-Secret": doors.SECRET}
settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.SECRET_KEY = doors.PUBLIC_URL, [doors.TOKEN], "tests"
settings.VAPI_WEBHOOK_SECRETS = [doors.SECRET]
settings.ALLOWED_HOSTS = ["*"]


class TwilioSaysOver:
    def status(self, call_sid: str, account_sid: str) -> str:
        return "completed"

    def hang_up(self, call_sid: str, account_sid: str) -> bool:
        return True

    def redirect(self, call_sid: str, url: str, account_sid: str) -> bool:
        return True


def ring(sid: str) -> str:
    lines.forget()
    answer = doors.knock(Client(), "/webhook/twilio", doors.incoming(sid, To=LINE, AccountSid=ACCOUNT))
    return f"{answer.status_code} {answer.content.decode()}"


def twilio(path: str, sid: str, status: str) -> int:
    fields = {"CallSid": sid, "AccountSid": ACCOUNT, "From": doors.CALLER, "To": LINE, "CallStatus": status}
    return doors.knock(Client(), path, fields).status_code


def vapi(bodies: list[str], seed: int) -> list[int]:
    """All of these webhooks in an order of one's own; what was answered 503 is sent again, as the vendor does."""
    client, told = Client(), list(bodies)
    Random(seed).shuffle(told)
    statuses: list[int] = []
    for body in told:
        for _ in range(20):
            answer = client.post(
                "/webhook/vapi", data=body.encode(), content_type="application/json", headers={"X-Vapi-Secret": doors.SECRET}
            )
            if answer.status_code != 503:
                break
        statuses.append(answer.status_code)
    return statuses


def start(pk: int) -> dict[str, int]:
    client = FakeVapi(during=lambda: time.sleep(VAPI_ANSWERS_S))
    won = sessions.start_conversation(vapi_session_pk=pk, by="worker", client=client)
    return {"won": won, "created": len(client.created), "ended": len(client.ended)}


def take_session(pk: int) -> dict[str, int]:
    """A stream takes the session from a worker of which it has heard nothing, and makes the agent itself."""
    client = FakeVapi(during=lambda: time.sleep(VAPI_ANSWERS_S), answers=vapi_call(f"taken-over-{pk}"))
    won = sessions.start_conversation(vapi_session_pk=pk, by="consumer", client=client, from_another=True)
    return {"won": won, "created": len(client.created), "ended": len(client.ended)}


def start_as(pk: int, vapi_call_id: str) -> bool:
    """As the worker does it: the agent is created, under this id, and what was told of it before is caught up with."""
    client = FakeVapi(during=lambda: time.sleep(VAPI_ANSWERS_S), answers=vapi_call(vapi_call_id))
    won = sessions.start_conversation(vapi_session_pk=pk, by="worker", client=client)
    inbox.catch_up(vapi_session_pk=pk, at=timezone.now())
    return won


def stream_first(sid: str, pk: int) -> dict[str, Any]:
    """A stream that found no agent: it is let in, and creates the agent itself if nobody does."""
    return {"let_in": admit(sid, "MZ1"), **start(pk)}


def forget_person(number: str) -> int:
    """Tried again, as whoever is asked to erase somebody would."""
    for _ in range(20):
        try:
            return person.erase(number, by="ada", at=timezone.now()).gone.calls
        except OperationalError:
            time.sleep(0.01)
    raise AssertionError("the database never let anybody be erased")


def admit(sid: str, stream: str, epoch: int = 0) -> bool:
    return services.admit_stream(call_sid=sid, account_sid=ACCOUNT, stream_sid=stream, epoch=epoch, at=timezone.now())


def hang_up(sid: str) -> dict[str, int]:
    """Twilio's word that the caller is gone, and what the worker does then."""
    client = FakeVapi()
    endings.leg_over(call_sid=sid, status="completed", at=timezone.now())
    for pk in sessions.open_sessions(call_sid=sid):
        sessions.end_session(pk=pk, client=client, at=timezone.now())
    return {"ended": len(client.ended)}


def resume(sid: str, epoch: int) -> str:
    return type(handover.next_step(call_sid=sid, epoch=epoch, at=timezone.now())).__name__


def knock_at_resume(sid: str, epoch: int) -> str:
    """What Twilio is told when it asks what is next by itself."""
    fields = doors.incoming(sid, To=LINE, AccountSid=ACCOUNT)
    answer = doors.knock(Client(), f"/webhook/twilio/resume/{epoch}", fields)
    return f"{answer.status_code} {answer.content.decode()}"


def rescue_all(boot: str, by: str) -> list[str]:
    """What Twilio is told where it is sent when this process takes the calls of one that gives no sign, and looks after them."""
    led: list[str] = []

    class Obedient:
        def redirect(self, call_sid: str, url: str, account_sid: str = "") -> bool:
            led.append(knock_at_resume(call_sid, int(urlsplit(url).path.rpartition("/")[2])))
            return True

    silent = leases.Sign(leases.Beat(uuid.UUID(boot), 0), 0.0)
    for job in rescue.claim(silent, by=uuid.UUID(by), at=timezone.now(), now=2.0) or []:
        again: rescue.Rescue | None = job
        while again is not None:  # while the door is busy with Twilio's own question
            again = rescue.rescue(again, twilio=Obedient())
    return led


def sweep(ttl_s: float) -> list[str]:
    return end_silent_calls(now=timezone.now(), ttl=timedelta(seconds=ttl_s), twilio=TwilioSaysOver())


def beat(sid: str) -> bool:
    return services.heartbeat(call_sid=sid, epoch=0, at=timezone.now())


def edit(slug: str, prompt: str) -> int:
    AssistantTemplate.objects.filter(slug=slug).update(prompt=prompt)
    template = AssistantTemplate.objects.get(slug=slug)
    return agent_services.publish(template=template, note="", by="ann", at=timezone.now()).number


def whole_call(sid: str) -> list[str]:
    """A call that loses its agent: the words of the version it began with, and those each of its agents was given."""
    lines.forget()
    call = services.open_call(sid=sid, account_sid=ACCOUNT, from_number=doors.CALLER, to_number=LINE, at=timezone.now())
    assert call is not None
    client = FakeVapi()
    for epoch in range(ladder.RESUMES + 1):
        pk = CallSession.objects.get(call_sid=sid).session_to_start
        assert pk is not None
        assert sessions.start_conversation(vapi_session_pk=pk, by="worker", client=client)
        admit(sid, f"MZ{epoch}", epoch)
        if epoch < ladder.RESUMES:
            services.stream_closed(call_sid=sid, epoch=epoch, closing=Closing("stream-lost"), at=timezone.now())
            assert isinstance(handover.next_step(call_sid=sid, epoch=epoch, at=timezone.now()), ladder.Resume)
    assert call.version_id is not None
    prompt = TemplateVersion.objects.get(pk=call.version_id).prompt
    return [prompt, *(request["assistant"]["model"]["messages"][0]["content"] for request in client.created)]


def queue(path: str, sid: str, most: int) -> str:
    """What a caller gets where the AI carries no more than so many: the agent, or a turn in the queue."""
    lines.forget()
    with override_settings(MAX_CALLS=most):
        answer = doors.knock(Client(), path, doors.incoming(sid, To=LINE, AccountSid=ACCOUNT))
    return "agent" if b"<Connect>" in answer.content else "waits" if b"<Gather" in answer.content else answer.content.decode()


def take_place(sid: str, most: int) -> bool:
    with override_settings(MAX_CALLS=most):
        return admission.take(CallSession.objects.get(call_sid=sid), at=timezone.now())


def end(sid: str, reason: str) -> bool:
    try:
        return services.end_call(call_sid=sid, at=timezone.now(), reason=EndReason(reason))
    except OperationalError:
        return False


def hear(news: list[tuple[str, Any]]) -> list[int]:
    """A part of what both vendors tell of a call, in this order: (door, fields) of Twilio's, ("", body) of Vapi's."""
    lines.forget()
    client, answered = Client(), list[int]()
    for door, told in news:
        answered += [doors.knock(client, door, told).status_code] if door else vapi([told], 0)
    return answered


def look_after(boot: str, by: str) -> int | None:
    """How many calls of a process that gave no sign since the first of its counter this one has now; None when it has not got it."""
    sign = leases.Sign(leases.Beat(uuid.UUID(boot), 0), 0.0)
    jobs = rescue.claim(sign, by=uuid.UUID(by), at=timezone.now(), now=2.0)
    return None if jobs is None else len(jobs)


def give_sign(boot: str) -> bool:
    return leases.renew(boot=uuid.UUID(boot))


def rows_of_the_desk() -> dict[str, Edited]:
    """One of each kind that managers edit; whoever comes first makes them."""
    said = {"name": "Support", "prompt": "Help.", "first_message": "Hello.", "voice_id": "sam"}
    template, _ = AssistantTemplate.objects.get_or_create(slug="support", defaults=said)
    rows: list[Edited] = [
        template,
        PhoneLine.objects.get_or_create(number=LINE, defaults={"template": template})[0],
        HandoffTarget.objects.get_or_create(slug="tier2", defaults={"name": "Tier2", "number": "+15550100111"})[0],
        Tool.objects.get_or_create(name=EMAIL_TOOL["name"], defaults=EMAIL_TOOL)[0],
        Team.objects.get_or_create(slug="north", defaults={"name": "North"})[0],
    ]
    return {str(row._meta.model_name): row for row in rows}


def browser_of(by: str) -> Client:
    manager, _ = User.objects.get_or_create(username=by, defaults={"is_staff": True, "is_superuser": True})
    browser = Client()
    browser.force_login(manager)
    return browser


def open_row(by: str, kind: str) -> dict[str, Any]:
    """What a manager's browser holds of the one row of this kind."""
    page = f"/admin/agents/{kind}/{rows_of_the_desk()[kind].pk}/change/"
    return {"page": page, "form": fields_of(browser_of(by).get(page))}


def open_colleagues(by: str) -> dict[str, Any]:
    """As `open_row`, of the list of two."""
    rows_of_the_desk()
    HandoffTarget.objects.get_or_create(slug="tier3", defaults={"name": "Tier3", "number": "+15550100112"})
    page = "/admin/agents/handofftarget/"
    return {"page": page, "form": fields_of(browser_of(by).get(page)) | {"_save": ["1"]}}


def save_page(by: str, page: str, form: dict[str, Any], kind: str) -> str:
    answer = browser_of(by).post(page, form)
    told = changed_meanwhile(rows_of_the_desk()[kind])
    return "told" if told in unescape(answer.content.decode()) else str(answer.status_code)


def stored(kind: str, field: str) -> str:
    return str(getattr(rows_of_the_desk()[kind], field))


def stored_orders() -> list[int]:
    return [*HandoffTarget.objects.order_by("pk").values_list("order", flat=True)]


def may_ask(account: str, at: float) -> bool:
    """Whether this process makes a call at an account, `at` seconds since 1970."""
    return breaker.may_ask(account, at=moment(at))


def fail(account: str, kind: str, times: int, at: float) -> int:
    """So many calls that an account does not take: how many of them raised the alarm."""
    return sum(breaker.failed(account, kind, at=moment(at)) for _ in range(times))


def work(account: str, at: float) -> bool:
    return breaker.worked(account, at=moment(at))


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job
    for job in (
        ring,
        twilio,
        vapi,
        start,
        take_session,
        start_as,
        stream_first,
        forget_person,
        admit,
        hang_up,
        resume,
        knock_at_resume,
        rescue_all,
        sweep,
        beat,
        edit,
        whole_call,
        queue,
        take_place,
        end,
        hear,
        look_after,
        give_sign,
        open_row,
        open_colleagues,
        save_page,
        stored,
        stored_orders,
        may_ask,
        fail,
        work,
        wait_for_others,
        all_wait,
        carry,
        leave,
        put_through,
        ask_for_agent,
        make_while_busy,
    )
} | MANY
