"""Rows for tests, each in one line; what a test does not care about is not its to say."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.contrib.auth.models import Group, Permission, User
from django.db import connections
from django.utils import timezone

from agents.models import AssistantTemplate, HandoffTarget, PhoneLine, Rollout, Team, TemplateVersion
from bridge.errors import VapiError, VapiRefused
from bridge.vapi_answers import ListedCall, VapiCall
from calls import publisher, roles, services
from calls.models import (
    CallbackRequest,
    CallSession,
    InboxMessage,
    Recording,
    RecordingKind,
    RecordingState,
    Status,
    VapiReport,
    VapiSession,
)

LINE = "+15550100100"
CALLER = "+15550100199"
ACCOUNT = "AC" + "0" * 32
EPOCH = datetime(2026, 3, 1, 14, 47, 3, 120_000, tzinfo=UTC)

R = TypeVar("R")
_numbers = itertools.count(1)


def call_sid() -> str:
    return f"CA{uuid.uuid4().hex}"


def a_person(role: str = "supervisor", name: str = "olga", *, teams: tuple[Team, ...] = (), password: str = "x", **fields: Any) -> User:
    """A log-in with a role; "" for none."""
    at_desk = {"is_staff": role in roles.AT_THE_DESK}
    person = User.objects.create_user(name, password=password, **(at_desk | fields))
    if role:
        person.groups.add(roles.make(role, groups=Group, permissions=Permission))
    person.teams.set(teams)
    return person


def a_team(slug: str = "north") -> Team:
    return Team.objects.get_or_create(slug=slug, defaults={"name": slug.title()})[0]


def a_line(*, number: str = LINE, targets: tuple[str, ...] = (), **words: Any) -> PhoneLine:
    """A line whose agent is published; `words` are fields of the line."""
    version = a_version()
    line, _ = PhoneLine.objects.get_or_create(number=number, defaults={"template": version.template, **words})
    Rollout.objects.create(line=line, version=version)
    for order, slug in enumerate(targets, start=1):
        line.handoff.add(a_target(slug, order=order))
    return line


def a_version(**words: Any) -> TemplateVersion:
    number = next(_numbers)
    said: dict[str, Any] = {"prompt": "You help.", "first_message": "Hello.", "voice_id": "sam"} | words
    template = AssistantTemplate.objects.create(slug=f"support-{number}", name=f"Support {number}", **said)
    version = TemplateVersion.objects.create(template=template, number=1, name=template.name, published_at=timezone.now(), **said)
    AssistantTemplate.objects.filter(pk=template.pk).update(published=version)
    return version


def a_target(slug: str = "tier2", *, order: int = 1) -> HandoffTarget:
    target, _ = HandoffTarget.objects.get_or_create(slug=slug, defaults={"name": slug.title(), "number": "+15550100111", "order": order})
    return target


def a_call(*, sid: str = "", to: str = LINE, status: Status = Status.CONNECTING, at: datetime | None = None, **fields: Any) -> CallSession:
    """A call as `open_call` leaves it, moved to `status`; makes the line when there is none yet."""
    if not PhoneLine.objects.filter(number=to).exists():
        a_line(number=to)
    call = services.open_call(sid=sid or call_sid(), account_sid=ACCOUNT, from_number=CALLER, to_number=to, at=at or timezone.now())
    assert call is not None
    changes = {"status": status, **fields}
    CallSession.objects.filter(pk=call.pk).update(**changes)
    call.refresh_from_db()
    return call


def session_of(call: CallSession) -> VapiSession:
    session = call.vapi_sessions.last()
    assert session is not None
    return session


def a_recording(call: CallSession, **fields: Any) -> Recording:
    """A voicemail of a call, ready to be heard."""
    ready: dict[str, Any] = {"kind": RecordingKind.VOICEMAIL, "state": RecordingState.COMPLETED, "seconds": 14, "at": timezone.now()}
    return Recording.objects.create(call=call, **({"sid": f"RE{uuid.uuid4().hex}"} | ready | fields))


def a_callback(call: CallSession, *, due_in: timedelta = timedelta(hours=4), **fields: Any) -> CallbackRequest:
    now = timezone.now()
    return CallbackRequest.objects.create(call=call, asked_at=now, due_at=now + due_in, **fields)


def a_report(call: CallSession, **fields: Any) -> VapiReport:
    """The vendor's report of a call's last session."""
    return VapiReport.objects.create(session=session_of(call), merged_at=timezone.now(), **fields)


def a_message(call: CallSession | None = None, *, kind: str = "status-update", body: Any = None, **fields: Any) -> InboxMessage:
    """A stored webhook of Vapi; of no call when none is given."""
    told = {"type": kind} if body is None else body
    unique = {"source": "vapi", "key": uuid.uuid4().hex, "received_at": timezone.now()}
    return InboxMessage.objects.create(call=call, kind=kind, body=told, **(unique | fields))


def vapi_call(call_id: str = "") -> VapiCall:
    name = call_id or str(uuid.uuid4())
    return VapiCall(id=name, socket_url=f"wss://vapi.test/{name}/transport", control_url=f"https://vapi.test/{name}/control")


class FakeVapi:
    """A Vapi account in memory; `problem` is raised instead of creating, `during` runs while a create is on its way.

    A create is answered with `answers`, else with a call of a new id.
    """

    def __init__(
        self, *, problem: VapiError | None = None, during: Callable[[], object] = lambda: None, answers: VapiCall | None = None
    ) -> None:
        self.problem, self.during, self.answers = problem, during, answers
        self.created: list[Mapping[str, Any]] = []
        self.ended: list[str] = []
        self.looks = 0
        self._lock = threading.Lock()

    def create_call(self, request: Mapping[str, Any]) -> VapiCall:
        self.during()
        if self.problem is not None:
            raise self.problem
        with self._lock:
            self.created.append(request)
        return self.answers or vapi_call()

    def end_call(self, control_url: str) -> None:
        with self._lock:
            self.ended.append(control_url)

    def end_by_socket(self, socket_url: str) -> None:
        self.end_call(socket_url)

    def call(self, call_id: str) -> dict[str, Any]:
        """It remembers no conversation; whoever wants one asks the sandbox."""
        raise VapiRefused("Vapi refused with 404.", status=404)

    def list_calls(self, *, since: datetime) -> list[ListedCall]:
        """Whoever wants calls to be found asks the sandbox."""
        self.looks += 1
        return []


class QuietPublisher(publisher.Publisher):
    """Publishes nothing and remembers everything."""

    def __init__(self) -> None:
        super().__init__(layer=lambda: None)
        self.items: list[Any] = []

    def _put(self, item: Any) -> bool:
        self.items.append(item)
        return True

    def rows(self, public_id: uuid.UUID, seq: int) -> None:
        self.items.append((public_id, seq))

    @property
    def tasks(self) -> list[tuple[str, tuple[Any, ...]]]:
        return [(item.task.name, item.args) for item in self.items if isinstance(item, publisher.TaskCall)]

    @property
    def hints(self) -> list[tuple[str, str]]:
        return [(item.call_sid, item.hint) for item in self.items if isinstance(item, publisher.Hint)]


def at_once(jobs: list[Callable[[], R]]) -> list[R]:
    """Run all jobs in threads of their own that start together; each gives its database connection back."""
    gate = threading.Barrier(len(jobs))

    def run(job: Callable[[], R]) -> R:
        gate.wait()
        try:
            return job()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(run, jobs))


def a_body(*, kind: str, at: datetime, source: str = "vapi", key: str = "k", body: Any = None, vapi_call_id: str = "") -> InboxMessage:
    """Stored, and not processed yet."""
    return InboxMessage.objects.create(source=source, key=key, kind=kind, body=body or {}, vapi_call_id=vapi_call_id, received_at=at)
