"""What Vapi accepts, as one table: ranges, lists of names, shapes. Forms, publishing and import all ask here.

The vendor's own types check no range and let every unknown name through, and it refuses a whole call for one bad value,
so a value outside this table must never be published. Units stand in the field names. Nothing here touches the database.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agents import hours
from agents.addresses import url_problem
from agents.schema import schema_problem as checking_problem


@dataclass(frozen=True, slots=True)
class Range:
    """Both ends belong to it."""

    low: float
    high: float
    unit: str = ""

    def problem(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
            return "Enter a number."
        if not self.low <= value <= self.high:
            return f"Choose from {self}."
        return None

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice provider. `models`: which it offers; `model_needed`: it has no default. `speed` None: it has one speed."""

    models: tuple[str, ...] = ()
    speed: Range | None = None
    model_needed: bool = False


@dataclass(frozen=True, slots=True)
class Transcriber:
    """A transcriber. `words`: it can be told words to listen for. `endpointing`: it can be told its pause."""

    models: tuple[str, ...]
    languages: tuple[str, ...]
    words: bool = False
    endpointing: bool = False


NAME_CHARS = 40
RANGES: Mapping[str, Range] = {
    "temperature": Range(0, 2),
    "max_tokens": Range(50, 10_000, "tokens"),
    "endpointing_ms": Range(10, 500, "ms"),
    "wait_seconds": Range(0, 5, "seconds"),
    "stop_words": Range(0, 10, "words"),
    "stop_voice_seconds": Range(0, 0.5, "seconds"),
    "backoff_seconds": Range(0, 10, "seconds"),
    "keypad_digits": Range(1, 32, "digits"),
    "silence_timeout_s": Range(10, 3600, "seconds"),
    "max_duration_s": Range(10, 43_200, "seconds"),
}
OPTIONAL = {"endpointing_ms", "silence_timeout_s"}
LENGTHS: Mapping[str, int] = {"prompt": 50_000, "first_message": 1000, "end_call_message": 1000, "time_is_up": 1000, "voice_id": 200}
PHRASE_LISTS = ("end_call_phrases", "keyterms", "acknowledgement_phrases", "interruption_phrases")
PHRASES, PHRASE_CHARS = 50, 140

FREE = ()  # the provider takes any model name
MODELS: Mapping[str, tuple[str, ...]] = {
    "openai": (
        *("gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna", "gpt-5.5", "chat-latest", "gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano"),
        *("gpt-5.2", "gpt-5.2-chat-latest", "gpt-5.1", "gpt-5.1-chat-latest", "gpt-5", "gpt-5-chat-latest", "gpt-5-mini", "gpt-5-nano"),
        *("gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-4o", "gpt-4o-mini", "gpt-4-turbo", "gpt-4", "gpt-3.5-turbo"),
    ),
    "anthropic": ("claude-sonnet-5", "claude-sonnet-4-6", "claude-sonnet-4-5-20250929", "claude-opus-4-6", "claude-haiku-4-5-20251001"),
    "google": ("gemini-3.5-flash", "gemini-3.1-flash-lite", "gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"),
    "groq": ("openai/gpt-oss-20b", "openai/gpt-oss-120b", "llama-3.3-70b-versatile", "llama-3.1-8b-instant"),
    "xai": ("grok-4.3", "grok-4-fast-non-reasoning", "grok-3"),
    "deep-seek": ("deepseek-chat", "deepseek-reasoner"),
    "openrouter": FREE,
    "together-ai": FREE,
    "deepinfra": FREE,
    "perplexity-ai": FREE,
}
USUAL_SPEED = Range(0.7, 1.2)  # inside what each of them takes
VOICES: Mapping[str, Voice] = {
    "11labs": Voice(
        ("eleven_flash_v2_5", "eleven_flash_v2", "eleven_turbo_v2_5", "eleven_turbo_v2", "eleven_multilingual_v2", "eleven_v3"),
        speed=USUAL_SPEED,
    ),
    "vapi": Voice(speed=Range(0.25, 2)),
    "azure": Voice(speed=USUAL_SPEED),
    "cartesia": Voice(("sonic-3", "sonic-2", "sonic-english", "sonic-multilingual", "sonic")),
    "hume": Voice(("octave", "octave2")),
    "lmnt": Voice(speed=USUAL_SPEED),
    "minimax": Voice(("speech-02-hd", "speech-02-turbo"), speed=USUAL_SPEED),
    "openai": Voice(("gpt-4o-mini-tts", "tts-1", "tts-1-hd"), speed=USUAL_SPEED),
    "playht": Voice(("PlayDialog", "Play3.0-mini", "PlayHT2.0-turbo", "PlayHT2.0"), speed=USUAL_SPEED),
    "rime-ai": Voice(("arcana", "mistv2", "mist"), speed=USUAL_SPEED),
    "sesame": Voice(("csm-1b",), model_needed=True),
    "wellsaid": Voice(("caruso", "legacy")),
}
WORLD_LANGUAGES = "en es fr de it pt nl sv da no fi pl cs ro hu tr uk ru el hi id ja ko vi zh"
WORLD = tuple(WORLD_LANGUAGES.split())
DEEPGRAM_LANGUAGES = (
    "multi en en-US en-GB en-AU en-IN en-NZ es es-419 fr fr-CA de de-CH it pt pt-BR nl nl-BE sv da no fi pl cs sk ro hu bg ca et lt lv "
    "tr uk ru el hi id ms ja ko th vi zh zh-TW"
)
AZURE_LANGUAGES = "en-US en-GB en-AU en-CA en-IE en-IN es-ES es-MX fr-FR fr-CA de-DE de-AT de-CH it-IT pt-PT pt-BR nl-NL nl-BE sv-SE da-DK"
FLUX = "flux-general-en"
USUAL_TRANSCRIBER = "deepgram"
TRANSCRIBERS: Mapping[str, Transcriber] = {
    "deepgram": Transcriber(
        ("nova-3", "nova-3-general", "nova-3-medical", FLUX, "nova-2", "nova-2-general", "nova-2-phonecall"),
        tuple(DEEPGRAM_LANGUAGES.split()),
        words=True,
        endpointing=True,
    ),
    "assembly-ai": Transcriber(("universal-streaming-english", "universal-streaming-multilingual"), ("en", "multi"), words=True),
    "openai": Transcriber(("gpt-4o-transcribe", "gpt-4o-mini-transcribe"), WORLD),
    "11labs": Transcriber(("scribe_v2_realtime", "scribe_v1"), WORLD),
    "gladia": Transcriber(("solaria-1", "fast", "accurate"), WORLD),
    "cartesia": Transcriber(("ink-whisper",), WORLD),
    "soniox": Transcriber(("stt-rt-v4",), WORLD),
    "azure": Transcriber((), tuple(AZURE_LANGUAGES.split())),
}

PHONE_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
COSTLY_NUMBER = re.compile(  # a call there earns somebody money; a country's permission is Twilio's to give
    r"\+(?:"
    r"1(?:900|976|[2-9][0-9]{2}976)|808|87[08]|88[123]|979|"  # premium in North America; shared cost, satellite, "global" networks
    r"3190|3290|3389|348(?:03|06|07)|34905|358[67]00|3989|4190|439[03]|44(?:70|9)|4590|469(?:00|39|44)|4782|4870|49(?:137|900)|61190"
    r")[0-9]*"
)
NORTH_AMERICAN_DIGITS = 11  # with the 1; anything shorter is a short code
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
OTHER_SECRETS = re.compile(r"SECRET_KEY|DATABASE_URL|REDIS_URL|DJANGO_\w+|TWILIO_\w+|VAPI_\w+")
TRANSFER, END_CALL, DO_NOT_RECORD = "transfer_to_human", "end_call", "do_not_record"
TAKE_MESSAGE, PROMISE_CALLBACK = "take_message", "promise_callback"
BUILT_IN_TOOLS = (TRANSFER, END_CALL, DO_NOT_RECORD, TAKE_MESSAGE, PROMISE_CALLBACK)
TOOL_DESCRIPTION_CHARS = 1000
TOOL_TIMEOUT_S = Range(0.5, 4.5, "seconds")  # the webhook that runs it answers within 5 s
RING_SECONDS = Range(5, 120, "seconds")
CALLBACK_HOURS = Range(1, 168, "hours")
TALK_MINUTES = Range(1, 240, "minutes")
MOST_ENTRIES = 100  # of a line's hours, and of its holidays
KEEP_DAYS = Range(0, 36_500, "days")
KEPT = ("keep_days", "keep_sound_days", "keep_bodies_days")
JSON_TYPES = ("string", "number", "integer", "boolean", "array", "object")
JSON_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
JSON_KEYS = ("type", "items", "properties", "description", "pattern", "format", "required", "enum", "title")
SCHEMA_DEPTH = 5


def word_problems(words: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with an agent's words, as {field: sentence}; empty when Vapi will take them.

    `words` maps the fields of `AgentWords`, and `name`; a field that is missing is not looked at.
    """
    found: dict[str, str | None] = {}
    for name, limit in RANGES.items():
        if name in words and not (name in OPTIONAL and words[name] is None):
            found[name] = limit.problem(words[name])
    for name, most in {**LENGTHS, "name": NAME_CHARS}.items():
        if len(words.get(name) or "") > most:
            found[name] = f"Use at most {most:,} characters."
    for name in PHRASE_LISTS:
        if name in words:
            found[name] = phrases_problem(words[name])
    for name in ("prompt", "voice_id", "name"):
        if name in words and not str(words[name] or "").strip():
            found[name] = "Write something here."
    found |= _opening_problems(words) | _model_problems(words) | _voice_problems(words) | _transcriber_problems(words)
    return {name: sentence for name, sentence in found.items() if sentence}


def phrases_problem(value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(phrase, str) and phrase.strip() for phrase in value):
        return "Write one phrase a line."
    if len(value) > PHRASES:
        return f"Use at most {PHRASES} phrases."
    if any(len(phrase) > PHRASE_CHARS for phrase in value):
        return f"Keep each phrase within {PHRASE_CHARS} characters."
    return None


def _opening_problems(words: Mapping[str, Any]) -> dict[str, str | None]:
    if words.get("first_message_mode") == "assistant-speaks-first" and not str(words.get("first_message") or "").strip():
        return {"first_message": "Write the greeting, or let the agent greet in its own words."}
    return {}


def _one_of(value: Any, known: Iterable[str], what: str) -> str | None:
    known = tuple(known)
    return None if value in known else f"Choose {what}: {', '.join(known)}."


def _model_problems(words: Mapping[str, Any]) -> dict[str, str | None]:
    if "model_provider" not in words:
        return {}
    provider, model = words["model_provider"], words.get("model_name") or ""
    if provider not in MODELS:
        return {"model_provider": _one_of(provider, MODELS, "a provider")}
    if MODELS[provider]:
        return {"model_name": _one_of(model, MODELS[provider], f"a model of {provider}")}
    return {"model_name": None if model.strip() else "Name the model."}


def _voice_problems(words: Mapping[str, Any]) -> dict[str, str | None]:
    if "voice_provider" not in words:
        return {}
    provider, model, speed = words["voice_provider"], words.get("voice_model") or "", words.get("voice_speed")
    if provider not in VOICES:
        return {"voice_provider": _one_of(provider, VOICES, "a provider")}
    voice, found = VOICES[provider], dict[str, str | None]()
    if model and not voice.models:
        found["voice_model"] = f"Leave this empty: {provider} has one model only."
    elif model or voice.model_needed:
        found["voice_model"] = _one_of(model, voice.models, f"a model of {provider}")
    if speed is not None:
        found["voice_speed"] = voice.speed.problem(speed) if voice.speed else f"Leave this empty: {provider} has one speed only."
    return found


def _transcriber_problems(words: Mapping[str, Any]) -> dict[str, str | None]:
    if "transcriber_provider" not in words:
        return {}
    provider, model = words["transcriber_provider"], words.get("transcriber_model") or ""
    if provider not in TRANSCRIBERS:
        return {"transcriber_provider": _one_of(provider, TRANSCRIBERS, "a provider")}
    transcriber, found = TRANSCRIBERS[provider], dict[str, str | None]()
    if transcriber.models:
        found["transcriber_model"] = _one_of(model, transcriber.models, f"a model of {provider}")
    elif model:
        found["transcriber_model"] = f"Leave this empty: {provider} has one model only."
    found["language"] = _one_of(words.get("language"), transcriber.languages, f"a language of {provider}")
    if words.get("keyterms") and not transcriber.words:
        found["keyterms"] = f"Leave this empty: {provider} cannot be told words to listen for."
    if words.get("endpointing_ms") is not None and not transcriber.endpointing:
        found["endpointing_ms"] = f"Leave this empty: {provider} cannot be told its pause."
    if model == FLUX and words.get("language") != "en":
        found["language"] = f"{FLUX} understands English only: choose en."
    if model == FLUX and words.get("turn_end", "off") != "off":
        found["turn_end"] = f"{FLUX} finds the end of a sentence itself: choose pauses."
    return found


def number_problem(number: str) -> str | None:
    return None if PHONE_NUMBER.fullmatch(number) else "Write the number with + and country code, digits only, like +15550100100."


def target_number_problem(number: str) -> str | None:
    """As `number_problem`, and whether calling it could run up a bill: a hand-over dials it on somebody's word."""
    if problem := number_problem(number):
        return problem
    if COSTLY_NUMBER.fullmatch(number):
        return "Callers cannot be handed to premium, shared-cost or satellite numbers: a call there may cost a lot."
    if number.startswith("+1") and len(number) != 1 + NORTH_AMERICAN_DIGITS:
        return "A number that starts with +1 has ten more digits; short codes cannot be called."
    return None


def line_problems(line: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with a phone line, as {field: sentence}; a field that is missing is not looked at."""
    found: dict[str, str | None] = {}
    if "number" in line:
        found["number"] = number_problem(str(line["number"] or ""))
    if "callback_hours" in line:
        found["callback_hours"] = CALLBACK_HOURS.problem(line["callback_hours"])
    if line.get("record_calls") and not str(line.get("disclosure") or "").strip():
        found["record_calls"] = "Callers must be told before they are recorded: write the announcement first."
    found |= _hours_problems(line)
    return {field: sentence for field, sentence in found.items() if sentence}


def _hours_problems(line: Mapping[str, Any]) -> dict[str, str | None]:
    """What is wrong with when people are at work: each field is read alone, and hours mean nothing without a zone."""
    zone, times, days = line.get("time_zone") or "", line.get("hours") or [], line.get("holidays") or []
    found: dict[str, str | None] = {"hours": _entries_problem(times, []), "holidays": _entries_problem([], days)}
    try:
        hours.zone_of(str(zone))
    except hours.NotUnderstood as wrong:
        found["time_zone"] = str(wrong)
    if not zone and (times or days) and "time_zone" in line:
        found["time_zone"] = "Hours and holidays need to know whose clock they mean, like Europe/Berlin."
    return found


def _entries_problem(times: Any, days: Any) -> str | None:
    entries = times or days
    if not isinstance(entries, list) or not all(isinstance(each, str) for each in entries):
        return "Write a list of texts."
    if len(entries) > MOST_ENTRIES:
        return f"Write at most {MOST_ENTRIES} of them."
    for entry in entries:
        try:
            hours.read([entry] if times else [], [entry] if days else [], "")
        except hours.NotUnderstood as wrong:
            return f"“{entry[:40]}”: {wrong}"
    return None


def keeping_problems(kept: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with how long something is kept, as {field: sentence}; a field that is missing or empty is not looked at."""
    given = {name: kept[name] for name in KEPT if kept.get(name) is not None}
    found = {name: KEEP_DAYS.problem(days) for name, days in given.items()}
    if not any(found.values()) and "keep_days" in given:
        found |= {name: "This may go before the transcript, not after it." for name, days in given.items() if days > given["keep_days"]}
    return {field: sentence for field, sentence in found.items() if sentence}


def target_problems(target: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with a hand-over target, as {field: sentence}; a field that is missing is not looked at."""
    found: dict[str, str | None] = {}
    if "number" in target:
        found["number"] = target_number_problem(str(target["number"] or ""))
    if "ring_seconds" in target:
        found["ring_seconds"] = RING_SECONDS.problem(target["ring_seconds"])
    if "talk_minutes" in target:
        found["talk_minutes"] = TALK_MINUTES.problem(target["talk_minutes"])
    return {field: sentence for field, sentence in found.items() if sentence}


def secret_problem(name: str) -> str | None:
    """Whether an environment variable may hold a tool's signing secret; empty means the one of all tools."""
    if name and not ENVIRONMENT_NAME.fullmatch(name):
        return "Write the name of an environment variable: letters, digits and _, like CRM_SECRET. Never the secret itself."
    return "This variable holds another secret of this server; give the tool one of its own." if OTHER_SECRETS.fullmatch(name) else None


def tool_problems(tool: Mapping[str, Any], *, allowed_private: Iterable[str] = ()) -> dict[str, str]:
    """What is wrong with a tool, as {field: sentence}. `allowed_private`: host:port that may be called without https."""
    name, url = str(tool.get("name") or ""), str(tool.get("url") or "")
    found = {
        "name": None if TOOL_NAME.fullmatch(name) else "Use letters, digits, _ and -, at most 64.",
        "description": _text_problem(tool.get("description"), TOOL_DESCRIPTION_CHARS),
        "url": url_problem(url, allowed_private=allowed_private),
        "parameters": schema_problem(tool.get("parameters") or {}),
        "timeout_s": TOOL_TIMEOUT_S.problem(tool.get("timeout_s")),
        "secret_env": secret_problem(str(tool.get("secret_env") or "")),
    }
    if name in BUILT_IN_TOOLS:
        found["name"] = "This name belongs to a tool every agent has."
    return {field: sentence for field, sentence in found.items() if sentence}


def _text_problem(text: Any, most: int) -> str | None:
    if not str(text or "").strip():
        return "Write something here."
    return f"Use at most {most:,} characters." if len(str(text)) > most else None


def schema_problem(schema: Any) -> str | None:
    """What is wrong with a tool's parameters: Vapi takes a small part of JSON Schema, and we must be able to check against it."""
    if not isinstance(schema, dict):
        return "Write a JSON object."
    if not schema:
        return None
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        return 'The outermost part needs "type": "object" and "properties".'
    if extra := set(schema) - {"type", "properties", "required"}:
        return f"Vapi does not know “{min(extra)}” here."
    return _part_problem(schema, SCHEMA_DEPTH) or checking_problem(schema) or None


def _part_problem(part: Any, depth: int) -> str | None:
    if depth < 0:
        return f"Nest at most {SCHEMA_DEPTH} levels."
    if not isinstance(part, dict) or part.get("type") not in JSON_TYPES:
        return f"Each part needs a type: {', '.join(JSON_TYPES)}."
    if extra := {str(key) for key in part} - set(JSON_KEYS):
        return f"Vapi does not know “{min(extra)}”."
    if part.get("format", "email") not in JSON_FORMATS:
        return f"Choose a format: {', '.join(JSON_FORMATS)}."
    for key in ("description", "pattern", "title"):
        if not isinstance(part.get(key, ""), str):
            return f"“{key}” must be text."
    for key in ("required", "enum"):
        value = part.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return f"“{key}” must be a list of texts."
    properties = part.get("properties", {})
    if not isinstance(properties, dict) or not set(part.get("required", [])) <= set(properties):
        return "“required” may only name “properties”."
    below = [*properties.values(), *([part["items"]] if "items" in part else [])]
    return next((problem for each in below if (problem := _part_problem(each, depth - 1))), None)
