"""A process that is gone loses its calls to one other, which has Twilio ask what is next; one that is well loses none."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from bridge.ports import Closing
from calls import by_heart, handover, leases, rescue, services
from calls.leases import LEASE_S, RENEW_EVERY_S, Beat, Sign
from calls.models import CallSession, OutboxCommand, ProcessLease, Status
from calls.rescue import ASKED_WITHIN_S
from calls.spoken import AGAIN
from tests.builders import ACCOUNT
from tests.calls.carriers import A, B, Redirects, carried


def claimed(boot: uuid.UUID = A, by: uuid.UUID = B, counter: int = 7) -> list[rescue.Rescue] | None:
    return rescue.claim(Sign(Beat(boot, counter), 10.0), by=by, at=timezone.now(), now=12.0)


# -- what becomes of its calls -----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_one_claims_a_lease_and_has_its_calls_and_every_other_gets_nothing() -> None:
    call = carried()
    jobs = claimed()
    assert jobs is not None
    assert [(job.call_sid, job.epoch) for job in jobs] == [(call.call_sid, 0)]
    assert claimed(by=uuid.uuid4()) is None
    assert CallSession.objects.get().held_by == B
    assert not leases.renew(boot=A)


@pytest.mark.django_db
@pytest.mark.parametrize(("is_dead", "waits_s"), [(True, ASKED_WITHIN_S), (False, 0.0)], ids=["seen to die", "silent for a lease"])
def test_twilio_is_left_time_to_ask_by_itself_unless_it_has_had_it(is_dead: bool, waits_s: float) -> None:
    carried()
    [job] = rescue.claim(Sign(Beat(A, 7, is_dead), 10.0), by=B, at=timezone.now(), now=12.0) or []
    assert job.due == 12.0 + waits_s


def test_a_lease_is_longer_than_twilio_is_left_after_the_last_sign() -> None:
    assert LEASE_S >= RENEW_EVERY_S + ASKED_WITHIN_S


@pytest.mark.django_db
def test_a_process_that_gave_a_sign_since_it_was_looked_at_keeps_its_calls() -> None:
    carried()
    assert leases.renew(boot=A)
    assert claimed(counter=7) is None
    assert CallSession.objects.get().held_by == A


@pytest.mark.django_db
def test_a_process_that_is_known_to_be_dead_is_claimed_whatever_it_counted_last_and_counts_no_more() -> None:
    carried()
    leases.died(boot=A, at=timezone.now())
    assert not leases.renew(boot=A)
    assert claimed(counter=6) is not None
    assert ProcessLease.objects.get(boot=A).counter == 7


@pytest.mark.django_db
def test_when_the_rescuer_dies_too_the_next_one_finds_the_calls_with_it() -> None:
    call = carried()
    ProcessLease.objects.create(boot=B, born_at=timezone.now())
    claimed()
    jobs = claimed(boot=B, by=uuid.uuid4(), counter=0)
    assert jobs is not None
    assert [job.call_sid for job in jobs] == [call.call_sid]


@pytest.mark.django_db
def test_a_process_started_again_has_a_lease_of_its_own_and_its_calls_are_not_mistaken_for_those_before() -> None:
    carried()
    leases.died(boot=A, at=timezone.now())
    leases.begin(boot=B, at=timezone.now())
    later = carried(B)
    assert claimed(by=B) is not None
    assert leases.renew(boot=B)
    assert CallSession.objects.get(pk=later.pk).held_by == B


@pytest.mark.django_db
def test_a_call_that_is_where_it_was_is_sent_to_the_resume_door_of_its_epoch() -> None:
    call, twilio = carried(), Redirects()
    [job] = claimed() or []
    assert rescue.rescue(job, twilio=twilio, clock=lambda: 12.7) is None
    assert [(sid, url.rsplit("/webhook", 1)[1]) for sid, url in twilio.asked] == [(call.call_sid, f"/twilio/resume/0#{AGAIN}")]
    event = call.events.get(kind="call-rescued")
    assert event.detail == {"how": "redirected", "ms": 2700}


@pytest.mark.django_db
def test_a_call_that_twilio_asked_for_by_itself_is_left_alone() -> None:
    call, twilio = carried(), Redirects()
    [job] = claimed() or []
    handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    assert rescue.rescue(job, twilio=twilio, clock=lambda: 12.7) is None
    assert twilio.asked == []
    assert call.events.get(kind="call-rescued").detail["how"] == "asked"


@pytest.mark.django_db
def test_a_call_about_which_a_busy_door_is_asked_just_now_is_not_sent_there_once_more() -> None:
    call, twilio = carried(), Redirects()
    (job,) = claimed() or []
    with by_heart.being_asked(call.call_sid, call.epoch):
        again = rescue.rescue(job, twilio=twilio, clock=lambda: 20.0)
        assert twilio.asked == []
        assert again is not None
        assert (again.due, again.tries) == (20.0 + rescue.LOOK_EVERY_S, 0)
        assert not by_heart.is_being_asked(call.call_sid, call.epoch + 1, now=time.time())
        assert not by_heart.is_being_asked(call.call_sid, call.epoch, now=time.time() + 3.5), "whoever answered is gone"
    assert rescue.rescue(again, twilio=twilio) is None
    assert len(twilio.asked) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["over", "dialled", "at the voicemail", "not yet streaming"])
def test_a_caller_who_is_looked_after_is_not_disturbed(how: str) -> None:
    states = {"dialled": Status.TRANSFERRING, "at the voicemail": Status.VOICEMAIL}
    call = carried(status=states.get(how, Status.STREAMING), stream_epoch=-1 if how == "not yet streaming" else 0)
    if how == "over":
        services.end_call(call_sid=call.call_sid, at=timezone.now(), reason="caller_hung_up")  # type: ignore[arg-type]
    if how == "dialled":
        OutboxCommand.objects.create(call=call, key="dial:x", to="twilio", verb="dial", asked_at=timezone.now())
    assert claimed() == []


@pytest.mark.django_db
@pytest.mark.parametrize("status", [Status.STREAMING, Status.RECOVERING, Status.TRANSFERRING], ids=str)
def test_whoever_was_on_the_stream_is_looked_after_also_when_a_person_was_only_promised(status: Status) -> None:
    call = carried(status=status)
    assert [job.call_sid for job in claimed() or []] == [call.call_sid]


@pytest.mark.django_db
def test_a_call_that_another_process_carries_by_then_is_left_alone() -> None:
    call, twilio = carried(), Redirects()
    [job] = claimed() or []
    handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    services.admit_stream(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ2", epoch=1, at=timezone.now(), held_by=uuid.uuid4())
    assert rescue.rescue(job, twilio=twilio, clock=lambda: 12.7) is None
    assert twilio.asked == []


@pytest.mark.django_db
def test_a_redirect_that_twilio_does_not_take_is_tried_again_and_then_given_up() -> None:
    carried()
    twilio, [job], tries = Redirects(away=99), claimed() or [], 0
    again: rescue.Rescue | None = job
    while again is not None:
        tries += 1
        again = rescue.rescue(again, twilio=twilio, clock=lambda: 0.0)
    assert tries == 1 + len(rescue.TRY_AGAIN_S)


@pytest.mark.django_db
def test_a_process_told_to_be_frozen_loses_its_calls_whatever_it_counted_last_and_twilio_is_asked_at_once() -> None:
    carried()
    leases.frozen(boot=A, at=timezone.now())
    [beat] = leases.beats(but=B)
    [job] = rescue.claim(Sign(beat._replace(counter=6), 10.0), by=B, at=timezone.now(), now=12.0) or []
    assert (beat.is_frozen, beat.is_dead, job.due) == (True, False, 12.0)
    assert not leases.renew(boot=A)


@pytest.mark.django_db
def test_a_frozen_process_that_wakes_before_anybody_took_its_calls_keeps_them() -> None:
    carried()
    leases.frozen(boot=A, at=timezone.now())
    assert leases.renew(boot=A)
    assert leases.beats(but=B) == [Beat(A, 8)]
    assert claimed(counter=7) is None


# -- calls this process itself knows of --------------------------------------------------------------------------------


def told(life: rescue.Life) -> list[rescue.Rescue]:
    jobs: list[rescue.Rescue] = []
    life.look_after, life.clock = jobs.append, lambda: 10.0
    return jobs


@pytest.mark.django_db
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(("why", "wait_s"), [("stream-dead", 0.2), ("stream-lost", ASKED_WITHIN_S), ("agent-lost", 2.0)])
def test_a_caller_whose_stream_was_left_is_sent_on_unless_twilio_came_by_itself(asked: bool, why: str, wait_s: float) -> None:
    call, twilio, life = carried(account_sid="AC" + "7" * 32), Redirects(), rescue.Life()
    jobs = told(life)
    life.left(call.call_sid, call.short_id, 0, why)
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing(why), at=timezone.now())
    if asked:
        handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    [job] = jobs
    assert job.due == 10.0 + wait_s
    assert rescue.rescue(job, twilio=twilio, clock=lambda: job.due) is None
    assert [url.rsplit("/webhook", 1)[1].partition("#")[0] for _, url in twilio.asked] == ([] if asked else ["/twilio/resume/0"])
    assert call.events.filter(kind="call-rescued").count() == (0 if asked else 1)


def promised(call: CallSession, why: str) -> CallSession:
    """Twilio was told to open the next stream."""
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing(why), at=timezone.now())
    handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    return CallSession.objects.get(pk=call.pk)


@pytest.mark.django_db
@pytest.mark.parametrize(("why", "said_s"), [("stream-dead", rescue.SAID_WITHIN_S), ("stream-lost", 0.0)])
def test_a_further_stream_that_does_not_open_is_waited_for_three_seconds(why: str, said_s: float) -> None:
    call, twilio, life = promised(carried(), why), Redirects(), rescue.Life()
    jobs = told(life)
    life.promised(call)
    [job] = jobs
    assert job.due == 13.0 + rescue.IS_BEING_TOLD_S + said_s
    assert rescue.rescue(job, twilio=twilio, clock=lambda: job.due) is None
    assert [url.rsplit("/webhook", 1)[1].partition("#")[0] for _, url in twilio.asked] == ["/twilio/resume/1"]


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["opened", "down already", "over"])
def test_a_further_stream_that_opened_or_is_wanted_no_more_is_not_disturbed(how: str) -> None:
    call, twilio, life = promised(carried(), "stream-dead"), Redirects(), rescue.Life()
    jobs = told(life)
    life.promised(call)
    match how:
        case "opened":
            sid, account = call.call_sid, call.account_sid
            assert services.admit_stream(call_sid=sid, account_sid=account, stream_sid="MZ2", epoch=1, at=timezone.now())
        case "down already":
            handover.next_step(call_sid=call.call_sid, epoch=1, at=timezone.now(), only_down=True)
        case "over":
            services.end_call(call_sid=call.call_sid, at=timezone.now(), reason="caller_hung_up")  # type: ignore[arg-type]
    assert rescue.rescue(jobs[0], twilio=twilio, clock=lambda: 13.0) is None
    assert twilio.asked == []


@pytest.mark.django_db
def test_old_leases_are_cleared_away() -> None:
    carried()
    long_ago = timezone.now() - timedelta(hours=2)
    ProcessLease.objects.create(boot=uuid.uuid4(), born_at=long_ago, claimed_by=B, claimed_at=long_ago)
    claimed()
    assert list(ProcessLease.objects.values_list("boot", flat=True)) == [A]
