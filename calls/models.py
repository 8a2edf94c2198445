"""What happened: one row per phone call, and around it everything that was said, heard, decided and asked for.

Nothing here needs a row lock (SQLite has none): unique keys and conditional UPDATEs decide every race.
Which process is alive is `calls.lease_rows`' to say.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import ClassVar, Self

from django.db import models
from django.db.models import Q

from agents.models import PhoneLine, Team, TemplateVersion
from calls.erasure_rows import VendorErasure as VendorErasure  # Django finds the tables of other modules here
from calls.event_rows import CallEvent as CallEvent
from calls.event_rows import Source as Source
from calls.lease_rows import ProcessLease as ProcessLease
from calls.log_in_rows import LogInBrake as LogInBrake
from calls.log_in_rows import SecondFactor as SecondFactor
from calls.missed_sweep_rows import LastRun as LastRun
from calls.post_rows import InboxMessage as InboxMessage
from calls.post_rows import OutboxCommand as OutboxCommand
from calls.queue_rows import AgentPlace as AgentPlace
from calls.queue_rows import LineLimit as LineLimit
from calls.queue_rows import Waiting as Waiting
from calls.returning_rows import Compared as Compared
from calls.spool_rows import SpoolMark as SpoolMark


class Channel(models.TextChoices):
    PHONE = "phone", "Phone"
    BROWSER = "browser", "Browser"


class Status(models.TextChoices):
    """The states of a call; `calls.lifecycle` knows which may follow which."""

    RECEIVED = "received", "Ringing"
    WAITING = "waiting", "Waiting"
    CONNECTING = "connecting", "Connecting"
    STREAMING = "streaming", "Talking"
    RECOVERING = "recovering", "Recovering"
    TRANSFERRING = "transferring", "With a person"
    VOICEMAIL = "voicemail", "Leaving a message"
    ENDED = "ended", "Ended"
    FINALISED = "finalised", "Ended, report complete"


OVER = (Status.ENDED, Status.FINALISED)


class Report(models.TextChoices):
    """How a finalised call came to its last word from the vendor."""

    MERGED = "merged", "Merged"
    MISSING = "missing", "Given up: it never came"


class EndReason(models.TextChoices):
    CALLER_HUNG_UP = "caller_hung_up", "The caller hung up"
    AGENT_ENDED = "agent_ended", "The agent said goodbye"
    HUMAN_ENDED = "human_ended", "The conversation with a person ended"
    VOICEMAIL_LEFT = "voicemail_left", "The caller left a message"
    CALLBACK_PROMISED = "callback_promised", "A call back was promised"
    MAX_DURATION = "max_duration", "The longest call time was reached"
    SILENCE = "silence", "Nobody spoke any more"
    TTL = "ttl", "No sign of life; cleaned up"
    REFUSED = "refused", "The call was refused"
    FAILED = "failed", "Something failed"


class Outcome(models.TextChoices):
    RESOLVED = "resolved", "Resolved"
    HANDED_OVER = "handed_over", "Handed over"
    VOICEMAIL = "voicemail", "Voicemail"
    CALLBACK = "callback", "Call back"
    ABANDONED = "abandoned", "Caller gave up"
    FAILED = "failed", "Failed"
    UNKNOWN = "unknown", "Unknown"


class Rung(models.TextChoices):
    """The lowest rung of the rescue ladder this call has stood on (`calls.ladder`)."""

    AI = "R0", "AI"
    RESUMED = "R1", "AI, resumed"
    BACKUP = "R2", "Backup AI"
    HUMAN = "R3", "Person"
    VOICEMAIL = "R4", "Voicemail"
    STATIC = "R5", "Emergency answer"


class ErasedWhy(models.TextChoices):
    """On whose word what was said on a call is gone."""

    RETENTION = "retention", "the time that such calls are kept is over"
    REQUEST = "request", "somebody asked for it"


class CallSessionQuerySet(models.QuerySet["CallSession"]):
    def live(self) -> Self:
        return self.filter(ended_at=None)

    def silent(self, *, now: datetime, ttl: timedelta) -> Self:
        """Live calls that gave no sign of life for `ttl`: no media, no vendor evidence."""
        return self.live().filter(last_seen_at__lt=now - ttl)


class CallSession(models.Model):
    """One call, from the first webhook to the merged report.

    `epoch` says who owns the stream: +1 at each hand-over, and every write of a bridge carries the epoch it was
    admitted with. `stream_epoch` is the epoch whose one-time token has been used, `closed_epoch` the one whose stream
    is over and `closed_why` the reason the bridge gave (-1: none yet).
    """

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    channel = models.CharField(max_length=10, choices=Channel.choices, default=Channel.PHONE)
    call_sid = models.CharField(max_length=64, unique=True)
    account_sid = models.CharField(max_length=64, blank=True)
    from_number = models.CharField(max_length=64, blank=True)
    to_number = models.CharField(max_length=64, blank=True)
    line = models.ForeignKey(PhoneLine, null=True, on_delete=models.SET_NULL, related_name="calls")
    version = models.ForeignKey(TemplateVersion, null=True, on_delete=models.PROTECT, related_name="calls")
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.PROTECT, related_name="calls")  # the line's, when it rang

    status = models.CharField(max_length=16, choices=Status.choices, default=Status.RECEIVED)
    epoch = models.PositiveIntegerField(default=0)
    stream_epoch = models.IntegerField(default=-1)
    stream_sid = models.CharField(max_length=64, blank=True)
    held_by = models.UUIDField(null=True, blank=True)  # the life of the process that carries the stream, or looks after the call
    carried_by = models.UUIDField(null=True, blank=True)  # of the one that let the stream in, whoever looks after the call since
    closed_epoch = models.IntegerField(default=-1)
    closed_why = models.CharField(max_length=20, blank=True)
    rung = models.CharField(max_length=2, choices=Rung.choices, default=Rung.AI)
    end_reason = models.CharField(max_length=20, choices=EndReason.choices, blank=True)
    outcome = models.CharField(max_length=12, choices=Outcome.choices, default=Outcome.UNKNOWN)
    report = models.CharField(max_length=8, choices=Report.choices, blank=True)

    started_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    last_seen_at = models.DateTimeField()
    clock_boot = models.CharField(max_length=40, blank=True)  # machine boot the origin below belongs to
    clock_origin_ms = models.BigIntegerField(default=0)  # monotonic ms of that machine when we answered
    last_event_seq = models.PositiveIntegerField(default=0)
    tools_sent = models.PositiveIntegerField(default=0)  # requests of tools that were granted; the budget of `calls.tool_runs`

    disclosed_at = models.DateTimeField(null=True, blank=True)
    disclosure_mark = models.CharField(max_length=64, blank=True)  # SHA-256 of the text that was said: which version of it
    agreed_at = models.DateTimeField(null=True, blank=True)  # to being recorded, where the line asks everybody
    unrecorded_at = models.DateTimeField(null=True, blank=True)  # "do not record this": nothing said is kept from here on
    erased_at = models.DateTimeField(null=True, blank=True)  # a tombstone: ids and counts, and what still comes in is erased too
    erased_why = models.CharField(max_length=10, choices=ErasedWhy.choices, blank=True)
    sound_erased_at = models.DateTimeField(null=True, blank=True)
    bodies_erased_at = models.DateTimeField(null=True, blank=True)

    objects = CallSessionQuerySet.as_manager()

    class Meta:
        verbose_name = "call"
        verbose_name_plural = "calls"
        ordering: ClassVar = ["-started_at"]
        permissions: ClassVar = [
            ("read_transcript", "Can read what was said, and hear messages callers left"),
            ("listen", "Can listen to recordings of calls"),
            ("step_in", "Can act on calls: call back, process messages again"),
            ("see_reports", "Can see reports"),
            ("export_calls", "Can export calls"),
            ("erase_person", "Can erase what is known of a caller"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(status__in=OVER, ended_at__isnull=False) | (~Q(status__in=OVER) & Q(ended_at__isnull=True)),
                name="ended_calls_have_an_end_time",
            ),
            models.CheckConstraint(condition=~Q(status__in=OVER) | ~Q(end_reason=""), name="ended_calls_have_a_reason"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["last_seen_at"], condition=Q(ended_at=None), name="live_calls_by_last_seen"),
            models.Index(fields=["held_by"], condition=Q(ended_at=None), name="live_calls_by_process"),
            models.Index(fields=["-started_at"], name="calls_by_start"),
            models.Index(fields=["ended_at"], condition=Q(erased_at=None), name="calls_with_words_by_end"),
        ]

    def __str__(self) -> str:
        return self.short_id

    @property
    def short_id(self) -> str:
        """What log lines and the printed event log call this call; says nothing about the caller."""
        return f"call-{self.public_id.hex[:6]}"

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def newest_session(self) -> VapiSession | None:
        """None before the first one was asked for. Of those that were prefetched, if they were."""
        return max(self.vapi_sessions.all(), key=lambda session: session.n, default=None)

    @property
    def session_to_start(self) -> int | None:
        """Primary key of the Vapi session nobody has claimed yet. A state, not "is it new": a repeat repairs a lost enqueue."""
        asked = self.vapi_sessions.filter(state=VapiState.ASKED, call__ended_at=None)
        return asked.values_list("pk", flat=True).last()


class VapiState(models.TextChoices):
    ASKED = "asked", "Asked for"
    CLAIMED = "claimed", "Being created"
    LIVE = "live", "Live"
    FAILED = "failed", "Could not be created"
    ENDED = "ended", "Ended"


class VapiAccount(models.TextChoices):
    """At which of our accounts a Vapi call was made (`agents.account`)."""

    MAIN = "main", "Main account"
    BACKUP = "backup", "Backup account"


class VapiSession(models.Model):
    """One Vapi call within a phone call; its Vapi name is `<CallSid>.<n>`.

    Only the holder of `claim` may create it. The two URLs open the call to whoever has them: they are kept while the
    session lives and blanked when it ends, and never printed.
    """

    call = models.ForeignKey(CallSession, on_delete=models.CASCADE, related_name="vapi_sessions")
    n = models.PositiveIntegerField()
    account = models.CharField(max_length=6, choices=VapiAccount.choices, default=VapiAccount.MAIN)
    state = models.CharField(max_length=10, choices=VapiState.choices, default=VapiState.ASKED)
    claim = models.UUIDField(null=True, blank=True)
    claimed_by = models.CharField(max_length=10, blank=True)  # worker | consumer
    claimed_at = models.DateTimeField(null=True, blank=True)
    vapi_call_id = models.CharField(max_length=64, null=True, blank=True, unique=True)
    socket_url = models.CharField(max_length=500, blank=True)
    control_url = models.CharField(max_length=500, blank=True)
    failure = models.CharField(max_length=200, blank=True)  # our own words, never the vendor's body
    maybe_created = models.BooleanField(default=False)  # no answer came, so a Vapi call of our name may run all the same
    ended_reason = models.CharField(max_length=200, blank=True)  # the vendor's raw value
    asked_at = models.DateTimeField()
    live_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    report_at = models.DateTimeField(null=True, blank=True)
    report_asks = models.PositiveSmallIntegerField(default=0)  # how often we asked for a report that did not come
    cost_usd = models.DecimalField(max_digits=10, decimal_places=4, null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["n"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["call", "n"], name="one_vapi_session_per_n")]
        indexes: ClassVar = [models.Index(fields=["call"], condition=Q(ended_at=None), name="vapi_sessions_still_open")]

    def __str__(self) -> str:
        return f"{self.call}.{self.n}"


class VendorHealth(models.Model):
    """How an account at Vapi has taken our calls lately, for all processes: the state of `calls.circuit`, changed by `calls.breaker`.

    `version` grows with every change, so that of two who saw the same row one changes it.
    """

    account = models.CharField(max_length=6, choices=VapiAccount.choices, unique=True)
    version = models.PositiveBigIntegerField(default=0)
    failures = models.JSONField(default=list)  # when the last ones were, seconds since 1970
    opened_at = models.DateTimeField(null=True, blank=True)  # null: it takes calls
    why = models.CharField(max_length=8, blank=True)  # key | credit | lines | busy | trouble
    probe_at = models.DateTimeField(null=True, blank=True)  # when the next call may try it

    class Meta:
        default_permissions = ()  # nobody edits it, and no page asks

    def __str__(self) -> str:
        return f"{self.account} account"


class VapiReport(models.Model):
    """What the vendor's end-of-call report says of one session, beside its lines and its cost. No capability URL is kept."""

    session = models.OneToOneField(VapiSession, on_delete=models.CASCADE, related_name="report")
    summary = models.TextField(blank=True)
    success = models.CharField(max_length=200, blank=True)  # the vendor's evaluation, in its own words
    structured = models.JSONField(default=dict)  # structured data and outputs, by name
    artifacts = models.JSONField(default=dict)  # what exists at the vendor: {"recording": True, "log": True, …}
    latencies = models.JSONField(default=dict)  # ms: averages by part, {"turns": [{…}]}
    costs = models.JSONField(default=dict)  # USD by part
    lines_added = models.PositiveIntegerField(default=0)  # words no final had told
    merged_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"report of {self.session}"


class RecordingKind(models.TextChoices):
    VOICEMAIL = "voicemail", "Message"
    CALL = "call", "Whole call"


class RecordingState(models.TextChoices):
    IN_PROGRESS = "in-progress", "Being recorded"
    COMPLETED = "completed", "Ready"
    ABSENT = "absent", "Empty"
    FAILED = "failed", "Failed"


class Recording(models.Model):
    """A sound file at Twilio, kept by its id: the address would open it to anybody who has it."""

    call = models.ForeignKey(CallSession, on_delete=models.CASCADE, related_name="recordings")
    sid = models.CharField(max_length=34, unique=True)
    kind = models.CharField(max_length=10, choices=RecordingKind.choices)
    state = models.CharField(max_length=12, choices=RecordingState.choices, default=RecordingState.IN_PROGRESS)
    seconds = models.PositiveIntegerField(default=0)
    at = models.DateTimeField()
    erased_at = models.DateTimeField(null=True, blank=True)  # gone for us; that Twilio deletes it is a `VendorErasure`

    class Meta:
        ordering: ClassVar = ["-at"]

    def __str__(self) -> str:
        return f"{self.kind} of {self.call}"


class CallbackRequest(models.Model):
    """Somebody is to be called back by `due_at`. One per call; the number is the call's own."""

    call = models.OneToOneField(CallSession, on_delete=models.CASCADE, related_name="callback")
    asked_at = models.DateTimeField()
    due_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True, blank=True)
    claimed_by = models.CharField(max_length=150, blank=True)  # who says that they will call
    done_at = models.DateTimeField(null=True, blank=True)
    done_by = models.CharField(max_length=150, blank=True)
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = "callback"
        verbose_name_plural = "callbacks"
        ordering: ClassVar = ["due_at"]
        indexes: ClassVar = [models.Index(fields=["due_at"], condition=Q(done_at=None), name="callbacks_still_to_do")]

    def __str__(self) -> str:
        return f"call back {self.call}"


class Role(models.TextChoices):
    ASSISTANT = "assistant", "Agent"
    USER = "user", "Caller"
    HUMAN = "human", "Colleague"
    SYSTEM = "system", "Announcement"


class Heard(models.TextChoices):
    FULL = "full", "Heard"
    PART = "part", "Heard in part"
    NONE = "none", "Not heard"


class ShownLines(models.Manager["TranscriptLine"]):
    """The lines that stand for what was said; those told again by another line are left out."""

    def get_queryset(self) -> models.QuerySet[TranscriptLine]:
        return super().get_queryset().filter(retold=False)


class TranscriptLine(models.Model):
    """One final line: what was said, and how much of it the caller heard. Order: (n, vendor_ms, id).

    Every final the vendor ever told has a row; `retold` says that another line has its words too. Which ones are is
    decided by all lines together, so it does not matter in which order they came. `everything` holds the retold as well.
    """

    call = models.ForeignKey(CallSession, on_delete=models.CASCADE, related_name="lines")
    n = models.PositiveIntegerField(default=0)
    vapi_call_id = models.CharField(max_length=64, blank=True)
    role = models.CharField(max_length=10, choices=Role.choices)
    said = models.TextField()
    heard = models.CharField(max_length=4, choices=Heard.choices, default=Heard.FULL)
    heard_text = models.TextField(blank=True)
    vendor_ms = models.BigIntegerField(default=0)  # epoch ms of the vendor's own timestamp; ours for our own lines
    text_hash = models.CharField(max_length=64)
    at = models.DateTimeField()
    from_report = models.BooleanField(default=False)  # no final told it; found in the end-of-call report
    retold = models.BooleanField(default=False)

    objects = ShownLines()
    everything: ClassVar[models.Manager[TranscriptLine]] = models.Manager()

    class Meta:
        ordering: ClassVar = ["n", "vendor_ms", "id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["call", "vapi_call_id", "role", "vendor_ms", "text_hash", "from_report"], name="one_row_per_final_line"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.call} {self.role} {self.pk}"


class ToolRun(models.Model):
    """One tool call of the model. The unique id makes a repeated webhook return the first answer."""

    call = models.ForeignKey(CallSession, on_delete=models.CASCADE, related_name="tool_runs")
    tool_call_id = models.CharField(max_length=100, unique=True)
    name = models.CharField(max_length=64)
    arguments = models.JSONField(default=dict)
    sent = models.JSONField(default=dict)  # what went out: {"to": host, "bytes": n, "signed": bool, "status": n}; never a secret
    result = models.TextField(blank=True)
    problem = models.CharField(max_length=200, blank=True)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        return f"{self.call} {self.name}"


class CallMetrics(models.Model):
    """The figures of one call in one place: what the caller felt, what each hop carried, what it cost."""

    call = models.OneToOneField(CallSession, on_delete=models.CASCADE, related_name="metrics")
    first_audio_ms = models.PositiveIntegerField(null=True, blank=True)  # stream start to the agent's first sound
    interruptions = models.PositiveIntegerField(default=0)
    time_to_silence_ms = models.JSONField(default=list)
    turn_latency_ms = models.JSONField(default=list)
    audio = models.JSONField(default=dict)  # counters of the bridge, bytes and messages per hop: docs/sound.md
    cost_usd = models.DecimalField(max_digits=10, decimal_places=4, null=True, blank=True)

    def __str__(self) -> str:
        return f"metrics of {self.call}"
