"""What the vendor's `endedReason` means: some 600 values and growing, so they are grouped by their parts. Pure.

The raw value is always kept beside. Vapi's "customer" is the audio socket, which is ours: its ordinary end says nothing of
who wanted it. Whatever leaves a caller without an agent is a failure here, so that somebody else takes the call. Source of
the values: the vendor's published schema, `CallEndedReason`.
"""

from __future__ import annotations

import re
from enum import StrEnum

from calls.models import EndReason


class Group(StrEnum):
    """Who or what ended a Vapi call."""

    AGENT = "agent"
    CALLER = "caller"
    TRANSFERRED = "transferred"
    LIMIT = "limit"
    CANCELLED = "cancelled"
    NOT_STARTED = "not-started"
    TRANSPORT = "transport"
    TRANSFER_FAILED = "transfer-failed"
    PROVIDER = "provider"
    PLATFORM = "platform"
    UNKNOWN = "unknown"


# The first pattern found in the value says which group it is; the order goes from the special to the general.
PATTERNS: tuple[tuple[str, Group], ...] = (
    (r"^assistant-(ended-call|said-end-call-phrase)|^call\.(ending|ringing)\.hook-executed-say", Group.AGENT),
    (r"^customer-ended-call|caller-hungup", Group.CALLER),
    (r"^assistant-forwarded-call|hook-executed-transfer|forwarding-phone-number", Group.TRANSFERRED),
    (r"^(silence-timed-out|exceeded-max-duration)$", Group.LIMIT),
    (r"^(manually-canceled|scheduled-call-deleted|call-deleted)$", Group.CANCELLED),
    (r"warm-transfer|transfer-failed|^call\.forwarding\.", Group.TRANSFER_FAILED),
    (r"^call\.start\.|^call-start-error|^assistant-(not-|request-)", Group.NOT_STARTED),
    (r"transport-|customer-audio|assistant-join|websocket|no-call-received|sip-|twilio|vonage|^customer-|^voicemail", Group.TRANSPORT),
    (r"providerfault|pipeline|configfault", Group.PROVIDER),
    (r"vapifault|worker-|error|fault|fail|timed-out|not-found|not-valid", Group.PLATFORM),
)
_PATTERNS = tuple((re.compile(pattern), found) for pattern, found in PATTERNS)

ORDINARY = frozenset({Group.AGENT, Group.CALLER, Group.CANCELLED, Group.UNKNOWN})

# What people read. `{part}` is the agent's part that a longer value names, `{why}` what its status code means.
SENTENCES: dict[Group, str] = {
    Group.AGENT: "The agent ended the conversation.",
    Group.CALLER: "The conversation was ended from our side of the line.",
    Group.TRANSFERRED: "Vapi meant to pass the caller on by itself, which it cannot do on our line.",
    Group.LIMIT: "A time limit of the agent was reached.",
    Group.CANCELLED: "The conversation was called off.",
    Group.NOT_STARTED: "Vapi did not start the conversation.",
    Group.TRANSPORT: "The sound connection to Vapi failed.",
    Group.TRANSFER_FAILED: "Vapi could not pass the caller on.",
    Group.PROVIDER: "{part} failed{why}.",
    Group.PLATFORM: "{part} failed{why}.",
    Group.UNKNOWN: "Vapi ended the conversation for a reason we do not know.",
}

# Where the group's sentence says too little. The first pattern found counts.
FINER: tuple[tuple[str, str], ...] = (
    (r"^assistant-said-end-call-phrase$", "The agent said one of its closing phrases."),
    (r"^silence-timed-out$", "Nobody spoke for so long that the agent ended the conversation."),
    (r"^exceeded-max-duration$", "The longest time for one conversation was reached."),
    (r"^(scheduled-)?call-deleted$", "The conversation was deleted at Vapi."),
    (r"insufficient-credits|wallet", "The Vapi account has no credit left."),
    (r"subscription-frozen|subscription-upgrade-failed", "The Vapi account is blocked; its billing needs a look."),
    (r"concurrency-limit", "The Vapi account had no free line."),
    (r"fraud-check", "Vapi's fraud check stopped the conversation."),
    (r"assistant-not-|get-assistant|error-validation|resources-validation|configfault", "Vapi does not accept the agent as it is set up."),
    (r"transport-never-connected|transport-missing|no-call-received|join-timed-out", "The sound connection to Vapi never came about."),
    (r"customer-audio", "Vapi heard nothing from our side."),
    (r"^phone-call-provider-closed-websocket$", "The sound connection to Vapi broke."),
    (r"^voicemail$", "Vapi took the caller for an answering machine."),
    (r"forwarding\.(no-answer|operator-busy)", "Nobody answered where Vapi wanted to pass the caller on."),
)
LIMITS = (
    (r"^call\.start\.error-subscription-concurrency-limit", "lines"),
    (r"^call\.start\.error-subscription-(insufficient-credits|frozen|upgrade-failed|wallet)", "credit"),
)
_LIMITS = tuple((re.compile(pattern), found) for pattern, found in LIMITS)
_FINER = tuple((re.compile(pattern), sentence) for pattern, sentence in FINER)

PARTS: tuple[tuple[str, str], ...] = (
    (r"voice|eleven-?labs|11labs|playht|cartesia|lmnt|rime|hume|neuphonic|smallest|wellsaid|sesame|inworld|tavus", "The agent's voice"),
    (r"transcriber|deepgram|assembly|gladia|speechmatics|talkscriber|soniox", "The agent's hearing"),
    (r"llm|model|openai|anthropic|google|groq|xai|azure|mistral|together|openrouter|perplexity", "The agent's thinking"),
    (r"deep-?infra|deep-seek|cerebras|anyscale|inflection|baseten|runpod|minimax|vapi-[0-9]{3}", "The agent's thinking"),
    (r"outbound-sip", "The telephone connection"),
)
WHYS: tuple[tuple[str, str], ...] = (
    (r"-402|insufficient|insufficent|quota|paid-only", " because the account with that provider is used up"),
    (r"-429|rate-limit|concurrent|busy", " because its provider had too much to do"),
    (r"-401|-403|unauthorized|auth-failed|credentials|access-denied|api-key", " because its provider did not accept the key"),
    (r"-400|-404|-422|invalid|validation|not-found|unsupported", " because its provider did not accept how it is set up"),
    (r"-5[0-9][0-9]|server-error|overloaded|unavailable|time-?out", " because its provider had trouble"),
)


def group(raw: str) -> Group:
    """Which group a value belongs to; UNKNOWN for an ordinary-looking one nobody has seen."""
    return next((found for pattern, found in _PATTERNS if pattern.search(raw)), Group.UNKNOWN)


def end_reason(raw: str) -> EndReason:
    """Our word for a value, as the end of a call: FAILED when the caller is left without an agent."""
    if raw == "silence-timed-out":
        return EndReason.SILENCE
    if raw == "exceeded-max-duration":
        return EndReason.MAX_DURATION
    return EndReason.AGENT_ENDED if group(raw) in ORDINARY else EndReason.FAILED


def limit(raw: str) -> str:
    """Which limit of our whole account a value tells of: credit, lines, or none. An account of the agent's providers is not ours."""
    return next((found for pattern, found in _LIMITS if pattern.search(raw)), "")


def plain(raw: str) -> str:
    """One sentence for people who do not know Vapi. Never repeats the value; empty when there is none."""
    if not raw:
        return ""
    finer = next((sentence for pattern, sentence in _FINER if pattern.search(raw)), None)
    return finer or SENTENCES[group(raw)].format(part=_first(PARTS, raw, "Vapi"), why=_first(WHYS, raw, ""))


def _first(table: tuple[tuple[str, str], ...], raw: str, otherwise: str) -> str:
    return next((words for pattern, words in table if re.search(pattern, raw)), otherwise)
