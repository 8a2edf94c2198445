"""What the agent says: drafts that managers edit, versions that callers hear, lines that ring.

A template *is* its draft. Publishing copies the draft's words into a `TemplateVersion`, which never changes again:
a call points at the version it was answered with, so "which words did this caller hear?" always has one answer.
Ranges are the vendor's; they are checked by `agents.limits`, not by the database.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q


class BargeIn(models.TextChoices):
    """What happens the moment a caller speaks over the agent (`bridge.barge_in`)."""

    INSTANT = "instant", "Stop at once"
    CONFIRM = "confirm", "Pause, and stop once it is really speech"


class CallersFrom(models.TextChoices):
    """What lines of callers are like; `agents.presets` says what follows from it."""

    QUIET = "quiet", "Quiet offices and homes"
    MOBILE = "mobile", "Mobile phones, on the way"
    NOISY = "noisy", "Noisy lines"


class FirstMessageMode(models.TextChoices):
    AGENT_FIRST = "assistant-speaks-first", "The agent greets with this sentence"
    AGENT_FIRST_GENERATED = "assistant-speaks-first-with-model-generated-message", "The agent greets in its own words"
    CALLER_FIRST = "assistant-waits-for-user", "The agent waits for the caller"


class TurnEnd(models.TextChoices):
    """How Vapi decides that the caller has finished a sentence (`startSpeakingPlan.smartEndpointingPlan`)."""

    OFF = "off", "By pauses"
    LIVEKIT = "livekit", "By meaning (English)"
    VAPI = "vapi", "By meaning (other languages)"


class Sound(models.TextChoices):
    """What the caller's and the agent's sound are to each other on Vapi's socket (`bridge.wideband`)."""

    TELEPHONE = "telephone", "Telephone: exactly as the line carries it"
    WIDEBAND = "wideband", "Wideband: 16 kHz, for transcribers and voices that want it"


class KeypadEnd(models.TextChoices):
    HASH = "#", "The # key"
    STAR = "*", "The * key"
    NONE = "none", "No key: a pause of three seconds"


class AtLongest(models.TextChoices):
    """What becomes of a conversation near the longest time Vapi gives it."""

    GOODBYE = "goodbye", "Says goodbye and hangs up"
    GO_ON = "go-on", "Goes on, in a pause that callers do not notice"


TIME_IS_UP = "We have reached the longest time of a call, so I have to say goodbye now. Please call again if there is more I can do."


class AgentWords(models.Model):
    """Everything a manager can say about an agent; shared by the draft and by every published version."""

    prompt = models.TextField("instructions")
    first_message = models.TextField("greeting", blank=True)
    first_message_mode = models.CharField(
        "who speaks first", max_length=64, choices=FirstMessageMode.choices, default=FirstMessageMode.AGENT_FIRST
    )
    first_message_interruptible = models.BooleanField("callers may interrupt the greeting", default=True)
    end_call_message = models.CharField("goodbye", max_length=1000, blank=True)
    end_call_phrases = models.JSONField("phrases of the agent that end the call", default=list, blank=True)

    model_provider = models.CharField("model provider", max_length=40, default="openai")
    model_name = models.CharField("model", max_length=100, default="gpt-4.1")
    temperature = models.FloatField("temperature", default=0.3)
    max_tokens = models.PositiveIntegerField("longest answer, in tokens", default=400)

    voice_provider = models.CharField("voice provider", max_length=40, default="11labs")
    voice_id = models.CharField("voice", max_length=200)
    voice_model = models.CharField("voice model", max_length=100, blank=True)
    voice_speed = models.FloatField("speaking speed", null=True, blank=True)

    transcriber_provider = models.CharField("transcriber provider", max_length=40, default="deepgram")
    transcriber_model = models.CharField("transcriber model", max_length=100, default="nova-3", blank=True)
    language = models.CharField("language", max_length=20, default="en")
    keyterms = models.JSONField("words to listen for", default=list, blank=True)
    endpointing_ms = models.PositiveIntegerField("pause that ends a word group, in ms", null=True, blank=True)

    callers_from = models.CharField("where your callers call from", max_length=10, choices=CallersFrom.choices, default=CallersFrom.QUIET)
    barge_in = models.CharField("when the caller speaks over the agent", max_length=10, choices=BargeIn.choices, default=BargeIn.INSTANT)
    wait_seconds = models.FloatField("pause before the agent answers, in seconds", default=0.4)
    turn_end = models.CharField("how the end of a sentence is found", max_length=10, choices=TurnEnd.choices, default=TurnEnd.OFF)
    stop_words = models.PositiveIntegerField("words that make an interruption (0 = any speech)", default=0)
    stop_voice_seconds = models.FloatField("speech that makes an interruption, in seconds", default=0.2)
    backoff_seconds = models.FloatField("silence after an interruption, in seconds", default=1.0)
    acknowledgement_phrases = models.JSONField("phrases that never interrupt", default=list, blank=True)
    interruption_phrases = models.JSONField("phrases that always interrupt", default=list, blank=True)

    tell_heard = models.BooleanField("is told how much of an interrupted sentence was heard", default=True)
    sound = models.CharField("sound quality towards the AI", max_length=10, choices=Sound.choices, default=Sound.TELEPHONE)
    keypad = models.BooleanField("listens to the caller's keypad", default=False)
    keypad_digits = models.PositiveIntegerField("most digits of one entry", default=20)
    keypad_end = models.CharField("key that ends an entry", max_length=4, choices=KeypadEnd.choices, default=KeypadEnd.HASH)

    silence_timeout_s = models.PositiveIntegerField("hang up after silence, in seconds", null=True, blank=True)
    max_duration_s = models.PositiveIntegerField("longest call, in seconds", default=1800)
    at_longest = models.CharField("when that is near, the agent", max_length=10, choices=AtLongest.choices, default=AtLongest.GOODBYE)
    time_is_up = models.CharField("what it says then", max_length=1000, default=TIME_IS_UP)
    denoise = models.BooleanField("filter background noise", default=True)
    may_transfer = models.BooleanField("may hand the caller to a person", default=True)
    may_end_call = models.BooleanField("may hang up when the caller is done", default=True)

    class Meta:
        abstract = True

    @classmethod
    def word_fields(cls) -> list[str]:
        """Names of the fields that publishing copies and that a published version may never change."""
        return [field.name for field in AgentWords._meta.get_fields()]


class Discretion(models.Model):
    """What of a conversation is left out before anything is stored; published with the words, as the rules of its calls."""

    redact_cards = models.BooleanField("leave out card numbers", default=True)
    redact_emails = models.BooleanField("leave out e-mail addresses", default=False)
    redact_phones = models.BooleanField("leave out phone numbers that callers say", default=False)
    redact_patterns = models.JSONField("leave out whatever matches one of these patterns", default=list, blank=True)

    class Meta:
        abstract = True

    @classmethod
    def rule_fields(cls) -> list[str]:
        """Names of the fields that publishing copies beside the words."""
        return [field.name for field in Discretion._meta.get_fields()]


class Edited(models.Model):
    """A row of the editing desk: by `changed_at` a form knows whether somebody else has saved since it was opened."""

    changed_at = models.DateTimeField("last change", auto_now=True)

    class Meta:
        abstract = True

    def touch(self) -> None:
        """Before a change of its lists alone, which the form shows as well: nothing else saves the row then."""
        self.save(update_fields=["changed_at"])


class Team(Edited):
    """Who lines, agents, colleagues and calls belong to; its members see these and no others."""

    slug = models.SlugField("short name", unique=True)
    name = models.CharField(max_length=80)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="teams")

    class Meta:
        ordering: ClassVar = ["name"]
        permissions: ClassVar = [("see_every_team", "Can see what belongs to any team")]

    def __str__(self) -> str:
        return self.name


class Keeping(models.Model):
    """How long what was said is kept, in days from the end of a call. Empty: as long as the installation keeps it.

    0 keeps nothing after the call but counts. Where agent and line both say something, the shorter time holds.
    """

    keep_days = models.PositiveIntegerField("keeps transcripts for, in days", null=True, blank=True)
    keep_sound_days = models.PositiveIntegerField("keeps recordings for, in days", null=True, blank=True)
    keep_bodies_days = models.PositiveIntegerField("keeps raw messages for, in days", null=True, blank=True)

    class Meta:
        abstract = True


class Tool(Edited):
    """Something the agent may do while talking: an HTTP address of ours that answers with one line of text."""

    name = models.CharField(max_length=64, unique=True)  # ^[A-Za-z0-9_-]+$, checked by agents.limits
    description = models.CharField("what it does, in words for the model", max_length=1000)
    url = models.URLField("address", max_length=500)
    parameters = models.JSONField("what the model must tell it (JSON Schema)", default=dict, blank=True)
    timeout_s = models.FloatField("longest wait, in seconds", default=4.0)
    waiting_sentence = models.CharField("said while it works", max_length=300, blank=True)
    secret_env = models.CharField("environment variable with its signing secret (empty: TOOL_SIGNING_SECRET)", max_length=100, blank=True)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class AssistantTemplate(AgentWords, Discretion, Keeping, Edited):
    """An agent as its manager edits it. What callers hear is `published`, never this draft."""

    slug = models.SlugField("short name", unique=True)
    name = models.CharField(max_length=40)  # Vapi refuses longer assistant names
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.PROTECT, related_name="templates")
    tools = models.ManyToManyField(Tool, blank=True, related_name="templates")
    published = models.ForeignKey("TemplateVersion", null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        verbose_name = "agent"
        verbose_name_plural = "agents"
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """Saving a draft never touches what is published: somebody may have published since it was read."""
        if update_fields is None and not self._state.adding:
            update_fields = [field.name for field in self._meta.concrete_fields if field.name not in ("id", "published")]
        super().save(*args, update_fields=update_fields, **kwargs)


class Premade(models.TextChoices):
    """Whether the version's own assistant exists at Vapi; until it does, calls carry the assistant inline."""

    WAITING = "waiting", "Being prepared"
    READY = "ready", "Ready"
    FAILED = "failed", "Could not be prepared"


class VersionIsPublished(Exception):
    """A published version's words are history; publish a new version instead."""


class TemplateVersion(AgentWords, Discretion):
    """The words of a template at one moment. Immutable but for its `premade` figures."""

    PREMADE_FIELDS: ClassVar = {"premade", "vapi_assistant_id", "premade_targets", "premade_error", "premade_at"}

    template = models.ForeignKey(AssistantTemplate, on_delete=models.PROTECT, related_name="versions", verbose_name="agent")
    number = models.PositiveIntegerField()
    name = models.CharField(max_length=40)
    tools = models.JSONField(default=list)  # [{name, description, url, parameters, timeout_s, waiting_sentence}], frozen
    note = models.CharField("why", max_length=200, blank=True)
    published_at = models.DateTimeField()
    published_by = models.CharField(max_length=150, blank=True)

    premade = models.CharField(max_length=10, choices=Premade.choices, default=Premade.WAITING)
    vapi_assistant_id = models.CharField(max_length=64, blank=True)
    premade_targets = models.JSONField(default=list)  # slugs it may hand over to; a line with others gets the words inline
    premade_error = models.CharField(max_length=200, blank=True)
    premade_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "published version"
        verbose_name_plural = "published versions"
        ordering: ClassVar = ["-number"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["template", "number"], name="one_version_per_number")]

    def __str__(self) -> str:
        return f"{self.name} v{self.number}"

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """Raises VersionIsPublished when a stored version's words would be written again."""
        if self.pk is not None and not set(update_fields or ["everything"]) <= self.PREMADE_FIELDS:
            raise VersionIsPublished(f"{self} is published and cannot change.")
        super().save(*args, update_fields=update_fields, **kwargs)


class HandoffTarget(Edited):
    """A person or group a caller can be handed to. Models choose targets by slug, never by number."""

    slug = models.SlugField("short name", unique=True)
    name = models.CharField(max_length=80)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.PROTECT, related_name="targets")
    number = models.CharField("phone number", max_length=16)  # E.164, checked by agents.limits
    order = models.PositiveIntegerField("tried in this order", default=1)
    ring_seconds = models.PositiveIntegerField("rings for, in seconds", default=20)
    talk_minutes = models.PositiveIntegerField("talks for at most, in minutes", default=240)

    class Meta:
        verbose_name = "colleague"
        verbose_name_plural = "colleagues"
        ordering: ClassVar = ["order", "name"]

    def __str__(self) -> str:
        return self.name


DISCLOSURE = "You are speaking with an AI agent. This call may be transcribed."


class PhoneLine(Keeping, Edited):
    """One of our phone numbers: which agent answers it, and who does when the agent cannot."""

    number = models.CharField("phone number", max_length=16, unique=True)
    name = models.CharField(max_length=80, blank=True)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.PROTECT, related_name="lines")
    template = models.ForeignKey(AssistantTemplate, on_delete=models.PROTECT, related_name="lines", verbose_name="answered by")
    handoff = models.ManyToManyField(HandoffTarget, blank=True, related_name="lines", verbose_name="hands over to")
    zero_for_person = models.BooleanField("pressing 0 calls a person", default=True)
    voicemail = models.BooleanField("offers voicemail when nobody can talk", default=True)
    callback_hours = models.PositiveIntegerField("promises to call back within, in hours", default=4)
    time_zone = models.CharField("time zone", max_length=64, blank=True)
    hours = models.JSONField("people are at work", default=list, blank=True)  # as `agents.hours` reads them; none: always
    holidays = models.JSONField("nobody is at work on", default=list, blank=True)
    disclosure = models.CharField("said before the agent speaks (empty: nothing)", max_length=500, blank=True, default=DISCLOSURE)
    record_calls = models.BooleanField("records calls, once the disclosure has been said", default=False)
    all_party_consent = models.BooleanField("records only callers who agreed to it", default=False)

    class Meta:
        ordering: ClassVar = ["number"]

    def __str__(self) -> str:
        return self.name or self.number


class Rollout(models.Model):
    """Which share of a line's calls a version answers. Shares of one line are weights; they need not add up to 100."""

    line = models.ForeignKey(PhoneLine, on_delete=models.CASCADE, related_name="rollouts")
    version = models.ForeignKey(TemplateVersion, on_delete=models.PROTECT, related_name="rollouts")
    share = models.PositiveIntegerField(default=100)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["line", "version"], name="one_share_per_version"),
            models.CheckConstraint(condition=Q(share__gte=1, share__lte=100), name="share_is_a_percentage"),
        ]

    def __str__(self) -> str:
        return f"{self.line}: {self.version} {self.share} %"


class TrailIsKept(Exception):
    """A line of the trail is never changed and never taken out."""


class AuditEntries(models.QuerySet["AuditEntry"]):
    """Lines to be read; `agents.trail` alone adds one."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TrailIsKept("The trail is only added to.")

    update = delete = bulk_create = bulk_update = _refuse


class AuditEntry(models.Model):
    """One line of the trail: who did what to which thing. Append only; each carries the hash of the one before it.

    `number` has no gaps, so that a missing line shows. `detail` names ids and fields, never what was said or a secret.
    """

    number = models.PositiveBigIntegerField(unique=True)
    at = models.DateTimeField()
    actor = models.CharField(max_length=150, blank=True)  # user name; empty: the house itself, or a command
    address = models.CharField(max_length=45, blank=True)  # where the browser was
    action = models.CharField(max_length=40)
    subject = models.CharField(max_length=200, blank=True)  # "call-6a0f9c", "agent support v3", "user ada"
    detail = models.JSONField(default=dict)
    before = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    objects = AuditEntries.as_manager()

    class Meta:
        ordering: ClassVar = ["-number"]
        indexes: ClassVar = [
            models.Index(fields=["action", "-number"], name="trail_by_action"),
            models.Index(fields=["actor", "-number"], name="trail_by_actor"),
            models.Index(fields=["subject", "-number"], name="trail_by_subject"),
            models.Index(fields=["at"], name="trail_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.action}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raises TrailIsKept for a line that is stored already."""
        if not self._state.adding:
            raise TrailIsKept("The trail is only added to.")
        super().save(force_insert=True)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        raise TrailIsKept("The trail is only added to.")
