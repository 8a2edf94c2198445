"""The vendor's 604 reasons, every one of them: grouped, made into our own word, and into a sentence for people."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from calls import ended_reasons
from calls.ended_reasons import Group
from calls.models import EndReason


def published() -> list[str]:
    """The values of the vendor's published enum, read from its file: importing the package takes six seconds."""
    spec = find_spec("vapi")
    assert spec is not None
    assert spec.submodule_search_locations
    listing = Path(spec.submodule_search_locations[0]) / "types" / "call_ended_reason.py"
    return sorted(set(re.findall(r'^ {8}"([^"]+)",$', listing.read_text(), re.MULTILINE)))


def test_every_published_reason_has_a_group_and_a_sentence() -> None:
    reasons = published()
    assert len(reasons) > 590
    assert [raw for raw in reasons if ended_reasons.group(raw) is Group.UNKNOWN] == []
    for raw in reasons:
        sentence = ended_reasons.plain(raw)
        assert sentence.endswith(".")
        assert "{" not in sentence
        assert raw not in sentence


def test_only_a_few_ordinary_reasons_are_no_failure() -> None:
    ordinary = {raw for raw in published() if ended_reasons.end_reason(raw) is not EndReason.FAILED}
    assert len(ordinary) == 16
    assert not any(word in raw for raw in ordinary for word in ("error", "fault", "fail"))


@pytest.mark.parametrize(
    ("raw", "group", "reason"),
    [
        ("assistant-ended-call", Group.AGENT, EndReason.AGENT_ENDED),
        ("assistant-ended-call-with-hangup-task", Group.AGENT, EndReason.AGENT_ENDED),
        ("assistant-said-end-call-phrase", Group.AGENT, EndReason.AGENT_ENDED),
        ("customer-ended-call", Group.CALLER, EndReason.AGENT_ENDED),
        ("assistant-forwarded-call", Group.TRANSFERRED, EndReason.FAILED),
        ("silence-timed-out", Group.LIMIT, EndReason.SILENCE),
        ("exceeded-max-duration", Group.LIMIT, EndReason.MAX_DURATION),
        ("manually-canceled", Group.CANCELLED, EndReason.AGENT_ENDED),
        ("call.start.error-subscription-concurrency-limit-reached", Group.NOT_STARTED, EndReason.FAILED),
        ("call.start.error-vapifault-database-error", Group.NOT_STARTED, EndReason.FAILED),
        ("assistant-not-found", Group.NOT_STARTED, EndReason.FAILED),
        ("assistant-join-timed-out", Group.TRANSPORT, EndReason.FAILED),
        ("phone-call-provider-closed-websocket", Group.TRANSPORT, EndReason.FAILED),
        ("call.in-progress.error-providerfault-transport-never-connected", Group.TRANSPORT, EndReason.FAILED),
        ("call.in-progress.error-vapifault-worker-died", Group.PLATFORM, EndReason.FAILED),
        ("worker-shutdown", Group.PLATFORM, EndReason.FAILED),
        ("pipeline-error-openai-401-unauthorized", Group.PROVIDER, EndReason.FAILED),
        ("call.in-progress.error-providerfault-openai-500-server-error", Group.PROVIDER, EndReason.FAILED),
        ("call.in-progress.error-warm-transfer-max-duration", Group.TRANSFER_FAILED, EndReason.FAILED),
        ("call.in-progress.error-of-next-year", Group.PLATFORM, EndReason.FAILED),
        ("a value of next year", Group.UNKNOWN, EndReason.AGENT_ENDED),
        ("", Group.UNKNOWN, EndReason.AGENT_ENDED),
    ],
)
def test_the_vendors_reasons_become_ours(raw: str, group: Group, reason: EndReason) -> None:
    assert ended_reasons.group(raw) is group
    assert ended_reasons.end_reason(raw) is reason


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("call.start.error-subscription-insufficient-credits", "The Vapi account has no credit left."),
        ("pipeline-error-openai-429-exceeded-quota", "The agent's thinking failed because the account with that provider is used up."),
        ("pipeline-error-eleven-labs-invalid-api-key", "The agent's voice failed because its provider did not accept the key."),
        ("pipeline-error-soniox-transcriber-server-error", "The agent's hearing failed because its provider had trouble."),
        ("call.in-progress.error-vapifault-worker-died", "Vapi failed."),
        ("<script>alert(1)</script>", "Vapi ended the conversation for a reason we do not know."),
        ("", ""),
    ],
)
def test_a_support_manager_reads_a_sentence(raw: str, sentence: str) -> None:
    assert ended_reasons.plain(raw) == sentence
