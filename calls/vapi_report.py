"""What an end-of-call report says: its figures as they are kept, and the words no final had told. Pure.

The report tells a conversation in turns, the finals in pieces of their own; times differ as well (`duration` is in ms,
whatever the vendor's schema says). A turn is compared word by word with the finals of its speaker (`calls.covered`), so
only what they do not have becomes lines. Addresses of recordings open them to anybody: of artifacts only the kinds are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import accumulate
from typing import Any

import orjson

from calls.covered import Told, gaps
from calls.models import Role
from calls.redaction import Rules, Said, redact_talk
from calls.words import tokens, words

ROLES = {"user": Role.USER, "bot": Role.ASSISTANT, "assistant": Role.ASSISTANT}
MS_A_WORD = 300  # about two hundred words a minute
BIGGEST_COST_USD = 10_000
BIGGEST_MS = 3_600_000
LATEST_MS = 10**14
LONGEST_SUMMARY = 20_000
LONGEST_STRUCTURED = 64 * 1024
MOST_LATENCIES = 500
LATENCIES = ("model", "voice", "transcriber", "endpointing", "turn", "fromTransport", "toTransport")
ARTIFACTS: Mapping[str, tuple[str, ...]] = {
    "recording": ("recording", "recordingUrl", "presignedMonoUrl"),
    "stereo-recording": ("stereoRecordingUrl", "presignedStereoUrl"),
    "video": ("videoRecordingUrl", "presignedVideoUrl"),
    "log": ("logUrl", "presignedLogUrl"),
    "packets": ("pcapUrl", "presignedPcapUrl"),
    "transcript": ("transcript",),
    "structured-outputs": ("structuredOutputs",),
    "scorecards": ("scorecards",),
}


@dataclass(frozen=True, slots=True)
class Line:
    """What somebody said; `ms` is the vendor's time at its end, in epoch milliseconds."""

    role: str
    text: str
    ms: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the report, from `start` to `end` in epoch milliseconds."""

    role: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The report beside its words: the fields of `VapiReport`."""

    summary: str
    success: str
    structured: dict[str, Any]
    artifacts: dict[str, bool]
    latencies: dict[str, Any]
    costs: dict[str, float]


# -- the words ---------------------------------------------------------------------------------------------------------


def turns(report: Mapping[str, Any]) -> list[Turn]:
    """What people and the agent said, in the report's order. A turn without times follows the one before it."""
    listed = _part(report, "artifact").get("messages")
    if not isinstance(listed, list):
        listed = report.get("messages")
    found: list[Turn] = []
    for message in listed if isinstance(listed, list) else []:
        turn = _turn(message, after=found[-1].end if found else 0)
        if turn is not None:
            found.append(turn)
    return found


def _turn(message: Any, *, after: int) -> Turn | None:
    if not isinstance(message, dict):
        return None
    said_by, text = message.get("role"), message.get("message")
    role = ROLES.get(said_by) if isinstance(said_by, str) else None
    if role is None or not isinstance(text, str) or not text.strip():
        return None
    start = _whole(message.get("time")) or after
    lasted = _whole(message.get("duration")) or MS_A_WORD * len(text.split())
    end = max(start, _whole(message.get("endTime")) or start + lasted)
    return Turn(role, text.strip(), start, min(end, LATEST_MS))  # else turns without times would add up to no year there is


def redacted(report: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """The report without what its speakers told in several turns."""
    artifact = _part(report, "artifact")
    listed = artifact.get("messages")
    messages = listed if isinstance(listed, list) else []
    spoken = [place for place, message in enumerate(messages) if _turn(message, after=0) is not None]
    said = [Said(messages[place]["role"], _whole(messages[place].get("time")), messages[place]["message"]) for place in spoken]
    texts = dict(zip(spoken, redact_talk(said, rules), strict=True))
    told = [{**message, "message": texts[place]} if place in texts else message for place, message in enumerate(messages)]
    return {**report, "artifact": {**artifact, "messages": told}} if texts else report


def missing(told: Sequence[Line], said: Sequence[Turn]) -> list[Line]:
    """The lines to add to the finals `told`, so that nothing of what was `said` is missing and nothing is there twice.

    Their text is the report's own. Each stands between the finals whose words it stood between.
    """
    roles = dict.fromkeys(turn.role for turn in said)
    return [line for role in roles for line in _missing_of(_of(told, role), _of(said, role))]


def _of(lines: Sequence[Any], role: str) -> list[Any]:
    return [line for line in lines if line.role == role]


def _missing_of(told: Sequence[Line], said: Sequence[Turn]) -> list[Line]:
    """`missing` for one speaker."""
    first = [word for number, line in enumerate(told) for word in _words_of_line(number, line)]
    turns_of = [_words_of_turn(number, turn) for number, turn in enumerate(said)]
    second = [word for spoken in turns_of for word in spoken]
    begins = list(accumulate(map(len, turns_of), initial=0))
    lines: list[Line] = []
    for gap in gaps(first, second):
        number = second[gap.begin].line
        turn, place = said[number], gap.begin - begins[number]
        text = _cut(turn.text, place, place + gap.end - gap.begin)
        lower = told[first[gap.before].line].ms if gap.before is not None else None
        upper = told[first[gap.after].line].ms if gap.after is not None else None
        lines.append(Line(turn.role, text, _between(second[gap.end - 1].ms, lower, upper)))
    return _at_times_of_their_own(lines)


def _cut(text: str, begin: int, end: int) -> str:
    """The words `begin` to `end` of a text, with the signs around them."""
    found = tokens(text)
    return text[found[begin].start if begin else 0 : found[end].start if end < len(found) else None].strip()


def _between(ms: int, lower: int | None, upper: int | None) -> int:
    """A moment after the line before and ahead of the line after, which may have clocks of their own."""
    if upper is not None:
        ms = min(ms, upper - 1)
    return ms if lower is None else max(ms, lower)


def _at_times_of_their_own(lines: Sequence[Line]) -> list[Line]:
    """A millisecond later for equal words at one moment: each is a line."""
    taken: set[Line] = set()
    for line in lines:
        while line in taken:
            line = replace(line, ms=line.ms + 1)
        taken.add(line)
    return sorted(taken, key=lambda line: line.ms)


def _words_of_line(number: int, line: Line) -> list[Told]:
    found = words(line.text)
    began = line.ms - MS_A_WORD * (len(found) - 1)
    return [Told(word, number, began + MS_A_WORD * place) for place, word in enumerate(found)]


def _words_of_turn(number: int, turn: Turn) -> list[Told]:
    """Each over at its moment, if they were all equally long."""
    found, lasted = words(turn.text), turn.end - turn.start
    return [Told(word, number, turn.start + lasted * place // len(found)) for place, word in enumerate(found, start=1)]


# -- the figures -------------------------------------------------------------------------------------------------------


def figures(report: Mapping[str, Any]) -> Figures:
    """What is kept beside the words. Whatever is not as documented is left out."""
    analysis, artifact = _part(report, "analysis"), _part(report, "artifact")
    return Figures(
        summary=(_text(analysis.get("summary")) or _text(report.get("summary")))[:LONGEST_SUMMARY],
        success=_text(analysis.get("successEvaluation"))[:200],
        structured=_structured(analysis, artifact),
        artifacts={kind: True for kind, keys in ARTIFACTS.items() if any(artifact.get(key) for key in keys)},
        latencies=_latencies(_part(artifact, "performanceMetrics")),
        costs=_costs(report),
    )


def cost_usd(value: Any) -> Decimal | None:
    """A price, if it can be one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= BIGGEST_COST_USD:
        return None
    return round(Decimal(str(value)), 4)


def _structured(analysis: Mapping[str, Any], artifact: Mapping[str, Any]) -> dict[str, Any]:
    """Structured data and outputs by their names; nothing when it is longer than anybody would read."""
    outputs = _part(artifact, "structuredOutputs")
    found: dict[str, Any] = {}
    for key, output in outputs.items():
        if isinstance(output, dict):
            found[_text(output.get("name"))[:100] or key[:100]] = output.get("result")
    for name, key in (("data", "structuredData"), ("several", "structuredDataMulti")):
        if analysis.get(key):
            found[name] = analysis[key]
    return found if len(orjson.dumps(found)) <= LONGEST_STRUCTURED else {}


def _latencies(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Milliseconds: the average of each part, how often each side was interrupted, and the parts of every turn."""
    averages: dict[str, Any] = {part: measured.get(f"{part}LatencyAverage") for part in LATENCIES}
    found: dict[str, Any] = {part: int(ms) for part, ms in averages.items() if _is_ms(ms)}
    for name, key in (("user_interrupted", "numUserInterrupted"), ("assistant_interrupted", "numAssistantInterrupted")):
        if _is_ms(measured.get(key)):
            found[name] = int(measured[key])
    listed = measured.get("turnLatencies")
    each = listed[:MOST_LATENCIES] if isinstance(listed, list) else []
    parts = [{part: int(turn[f"{part}Latency"]) for part in LATENCIES if _is_ms(turn.get(f"{part}Latency"))} for turn in map(_dict, each)]
    return found | ({"turns": parts} if any(parts) else {})


def _costs(report: Mapping[str, Any]) -> dict[str, float]:
    """US dollars by part: the breakdown, else the list of costs summed up by type."""
    breakdown = _part(report, "costBreakdown")
    found: dict[str, Any] = {part: breakdown.get(part) for part in ("transport", "stt", "llm", "tts", "vapi", "chat")}
    analysis = [price for price in map(cost_usd, _part(breakdown, "analysisCostBreakdown").values()) if price is not None]
    if not any(cost_usd(price) is not None for price in found.values()):
        listed = report.get("costs")
        for cost in map(_dict, listed if isinstance(listed, list) else []):
            kind, price = _text(cost.get("type"))[:40], cost_usd(cost.get("cost"))
            if kind and price is not None:
                found[kind] = float(found.get(kind) or 0) + float(price)
    costs = {part: round(float(price), 4) for part, price in found.items() if cost_usd(price) is not None}
    return costs | ({"analysis": float(sum(analysis))} if any(analysis) else {})


# -- reading -----------------------------------------------------------------------------------------------------------


def _part(whole: Mapping[str, Any], key: str) -> dict[str, Any]:
    return _dict(whole.get(key))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else ""


def _whole(value: Any) -> int:
    """A number of milliseconds; 0 for anything else."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LATEST_MS else 0


def _is_ms(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= BIGGEST_MS
