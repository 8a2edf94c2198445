"""The end-of-call report: what Vapi knows of a call once it is over. Prices are the measured ones of 2026, a minute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import mean
from typing import Any

from bridge.sandbox.conversation import in_openai_form
from bridge.sandbox.evidence import Message
from bridge.sandbox.plan import NAMES

STT, LLM, VAPI, TTS = 0.01, 0.0045, 0.05, 0.00007  # dollars a minute; the voice, a letter
LINKS_LIVE_S = 3600
OVER = ("artifact", "analysis", "messages", "cost", "costBreakdown", "costs")  # of the report, also in GET /call/{id}


@dataclass(frozen=True, slots=True)
class Latency:
    """One answer: from the caller's last sound to the decision that they are done, and from there to the agent's first sound. ms."""

    endpointing: int
    answering: int

    def fields(self) -> Message:
        model = self.answering * 2 // 3
        return {
            "modelLatency": model,
            "voiceLatency": self.answering - model,
            "transcriberLatency": 0,
            "endpointingLatency": self.endpointing,
            "turnLatency": self.endpointing + self.answering,
        }


@dataclass(frozen=True, slots=True)
class Over:
    """A call that is over. Times are seconds since 1970."""

    started: float
    ended: float
    messages: list[Message]
    latencies: list[Latency]
    interruptions: int


def report(call_id: str, assistant: Message, variables: Mapping[str, Any], base_url: str, over: Over) -> Message:
    """The fields of an end-of-call-report beyond its reason."""
    seconds = max(over.ended - over.started, 0.0)
    letters = sum(len(each["message"]) for each in over.messages if each["role"] == "bot")
    tokens = {
        "llmPromptTokens": 300 * max(len(over.messages), 1),
        "llmCompletionTokens": letters // 4,
        "llmCachedPromptTokens": 0,
        "ttsCharacters": letters,
    }
    costs = _costs(assistant, seconds / 60, tokens)
    found = artifact(assistant, variables, over.messages)
    found |= {"performanceMetrics": _performance(over), **_outputs(assistant), **_recordings(call_id, assistant, base_url, over.ended)}
    analysis = _analysis(assistant, over)
    return {
        "startedAt": iso(over.started),
        "endedAt": iso(over.ended),
        "durationMs": int(seconds * 1000),
        "durationSeconds": round(seconds, 3),
        "durationMinutes": round(seconds / 60, 4),
        "cost": round(sum(each["cost"] for each in costs), 4),
        "costBreakdown": _breakdown(costs) | tokens,
        "costs": costs,
        "summary": analysis.get("summary", ""),
        "analysis": analysis,
        "transcript": found["transcript"],
        "messages": found["messages"],
        **{key: found[key] for key in ("recordingUrl", "stereoRecordingUrl") if key in found},
        "artifact": found,
        "compliance": {},
    }


def artifact(assistant: Message, variables: Mapping[str, Any], messages: list[Message]) -> Message:
    """The part of it that every webhook carries."""
    return {
        "messages": messages,
        "messagesOpenAIFormatted": in_openai_form(messages),
        "transcript": transcript(messages, assistant.get("artifactPlan", {}).get("transcriptPlan", {})),
        "variableValues": dict(variables),
    }


def transcript(messages: Iterable[Message], plan: Mapping[str, Any]) -> str:
    names = {"bot": plan.get("assistantName", NAMES[0]), "user": plan.get("userName", NAMES[1])}
    return "".join(f"{names[each['role']]}: {each['message']}\n" for each in messages if each["role"] in names)


def iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _costs(assistant: Message, minutes: float, tokens: Mapping[str, int]) -> list[Message]:
    minutes = round(minutes, 4)
    model = {key: assistant.get("model", {}).get(key) for key in ("provider", "model")}
    spoken = {"promptTokens": tokens["llmPromptTokens"], "completionTokens": tokens["llmCompletionTokens"]}
    letters = tokens["ttsCharacters"]
    return [
        {"type": "transport", "provider": "vapi.websocket", "minutes": minutes, "cost": 0},
        {"type": "transcriber", "transcriber": assistant.get("transcriber", {}), "minutes": minutes, "cost": round(minutes * STT, 4)},
        {"type": "model", "model": model, **spoken, "cost": round(minutes * LLM, 4)},
        {"type": "voice", "voice": assistant.get("voice", {}), "characters": letters, "cost": round(letters * TTS, 4)},
        {"type": "vapi", "subType": "normal", "minutes": minutes, "cost": round(minutes * VAPI, 4)},
    ]


def _breakdown(costs: list[Message]) -> Message:
    names = {"transport": "transport", "transcriber": "stt", "model": "llm", "voice": "tts", "vapi": "vapi"}
    parts = {names[each["type"]]: each["cost"] for each in costs}
    analysis = {"summary": 0, "structuredData": 0, "successEvaluation": 0}
    return {**parts, "chat": 0, "total": round(sum(parts.values()), 4), "analysisCostBreakdown": analysis}


def _performance(over: Over) -> Message:
    turns = [latency.fields() for latency in over.latencies]
    averages = {f"{key}Average": round(mean(turn[key] for turn in turns)) for key in (turns[0] if turns else {})}
    return {
        "turnLatencies": turns,
        **averages,
        "fromTransportLatencyAverage": 20,
        "toTransportLatencyAverage": 20,
        "numUserInterrupted": 0,
        "numAssistantInterrupted": over.interruptions,
    }


def _analysis(assistant: Message, over: Over) -> Message:
    plan = assistant.get("analysisPlan", {})
    asked = sum(each["role"] == "user" for each in over.messages)
    found: Message = {}
    if plan.get("summaryPlan", {}).get("enabled", True):
        found["summary"] = f"The caller spoke {asked} times; the agent was interrupted {over.interruptions} times." if asked else ""
    if plan.get("structuredDataPlan", {}).get("enabled"):
        found["structuredData"] = {"callerTurns": asked}
    if plan.get("successEvaluationPlan", {}).get("enabled", True):
        found["successEvaluation"] = "true" if asked else "false"
    return found


def _outputs(assistant: Message) -> Message:
    """What was to be extracted: the model of the sandbox finds nothing, and says so in the vendor's form."""
    wanted = assistant.get("artifactPlan", {}).get("structuredOutputIds", [])
    return {"structuredOutputs": {each: {"name": f"Output {number}", "result": None} for number, each in enumerate(wanted, 1)}}


def _recordings(call_id: str, assistant: Message, base_url: str, ended: float) -> Message:
    if not assistant.get("artifactPlan", {}).get("recordingEnabled", True):
        return {}
    links = {kind: f"{base_url}/recordings/{call_id}-{kind}.wav" for kind in ("mono", "stereo", "assistant", "customer")}
    mono = {"combinedUrl": links["mono"], "assistantUrl": links["assistant"], "customerUrl": links["customer"]}
    return {
        "recordingUrl": links["mono"],
        "stereoRecordingUrl": links["stereo"],
        "recording": {"stereoUrl": links["stereo"], "mono": mono},
        **{f"presigned{kind.title()}Url": f"{link}?sig={call_id[-12:]}" for kind, link in links.items()},
        "presignedUrlsExpiresAt": iso(ended + LINKS_LIVE_S),
    }
