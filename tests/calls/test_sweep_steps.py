"""A step of the sweep that breaks keeps none behind it waiting, and the log tells where it broke and nothing of anybody."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from django.utils import timezone

from calls import consent, lost_reports, missed_sweep, returning, services, sessions, sweep_steps, tasks
from calls.models import CallSession, EndReason, Report, VapiSession, VapiState
from tests.builders import CALLER, FakeVapi, a_call, session_of
from tests.calls.test_tasks import vapi as vapi

pytestmark = pytest.mark.django_db(transaction=True)
NOW = timezone.now()
STEPS = [
    (sweep_steps, "end_silent_calls"),
    (consent, "stop_recordings"),
    (returning, "keep_missed_calls"),
    (sessions, "give_up_reports"),
    (lost_reports, "due"),
    (sessions, "left_over"),
]


def breaks(**asked: object) -> None:
    raise ValueError(f"invalid literal for int() with base 10: '{CALLER}'")


def left_over() -> VapiSession:
    """A session whose call is over, and of which nobody has told Vapi."""
    call = a_call()
    tasks.start_conversation(session_of(call).pk)
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    return session_of(call)


def swept(is_workers: bool) -> None:
    if is_workers:
        tasks.sweep()
    else:
        missed_sweep.somebody_sweeps(now=NOW - timedelta(seconds=76))
        assert missed_sweep.sweep_if_nobody_does(now=NOW)


@pytest.mark.parametrize("is_workers", [True, False], ids=["a worker's", "a serving process's"])
@pytest.mark.parametrize(("module", "name"), STEPS[:-1])
def test_a_step_that_breaks_lets_the_agents_behind_it_be_ended(
    vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: object, name: str, is_workers: bool
) -> None:
    session = left_over()
    monkeypatch.setattr(module, name, breaks)
    with caplog.at_level(logging.ERROR, logger="calls.sweep_steps"):
        swept(is_workers)
    session.refresh_from_db()
    assert (session.state, len(vapi.ended)) == (VapiState.ENDED, 1)
    (told,) = [record for record in caplog.records if record.name == "calls.sweep_steps"]
    assert (told.__dict__["problem"], told.exc_info) == ("ValueError", None)
    assert told.__dict__["where"].startswith("calls.sweep_steps:")
    assert CALLER not in str(told.__dict__)


def test_where_nobody_sweeps_orphans_are_looked_for_though_a_step_before_breaks(vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch) -> None:
    VapiSession.objects.filter(pk=session_of(a_call()).pk).update(maybe_created=True, claimed_at=NOW, state=VapiState.FAILED)
    for module, name in STEPS:
        monkeypatch.setattr(module, name, breaks)
    swept(is_workers=False)
    assert vapi.looks == 1


def test_every_step_is_broken_here() -> None:
    assert len(STEPS) == len(sweep_steps.STEPS)


def test_that_a_report_never_came_is_said_once(vapi: FakeVapi, caplog: pytest.LogCaptureFixture) -> None:
    session = left_over()
    tasks.sweep()
    VapiSession.objects.filter(pk=session.pk).update(report_asks=1)
    CallSession.objects.update(ended_at=NOW - timedelta(minutes=3))
    with caplog.at_level(logging.ERROR, logger="calls.sweep_steps"):
        tasks.sweep()
        tasks.sweep()
    (told,) = [record for record in caplog.records if record.name == "calls.sweep_steps"]
    assert (told.levelname, told.__dict__["calls"]) == ("ERROR", 1)
    assert CallSession.objects.get().report == Report.MISSING


def test_a_serving_process_that_sweeps_begins_nothing_more_at_vapi_when_its_time_is_up(
    vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks next does all of it, and nothing counts as asked that nobody asked for."""
    left, owed, lost = left_over(), left_over(), session_of(a_call())
    VapiSession.objects.filter(pk=owed.pk).update(state=VapiState.ENDED, ended_at=NOW - timedelta(minutes=2))
    VapiSession.objects.filter(pk=lost.pk).update(maybe_created=True, claimed_at=NOW - timedelta(minutes=5), state=VapiState.FAILED)

    def done() -> tuple[int, int, bool]:
        asks, suspects = (VapiSession.objects.values_list(field, flat=True) for field in ("report_asks", "maybe_created"))
        return len(vapi.ended), asks.get(pk=owed.pk), suspects.get(pk=lost.pk)

    with monkeypatch.context() as hurry:
        hurry.setattr(missed_sweep, "ASKED_S", 0.0)
        swept(is_workers=False)
    assert done() == (0, 0, True)
    swept(is_workers=False)
    assert done() == (1, 1, False)
    left.refresh_from_db()
    assert left.state == VapiState.ENDED
