"""From an agent's words to what Vapi is told. Pure: the same words always make the same JSON.

Field names and nesting follow the API of today, not older articles: the instructions are `model.messages`, tools sit inside
`model`, an interruption is `stopSpeakingPlan`, our address is `server`. Only known keys are ever written, because Vapi
refuses a request for a single unknown one. The webhook secret stands in `server.headers` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.limits import DO_NOT_RECORD, END_CALL, FLUX, NAME_CHARS, PROMISE_CALLBACK, TAKE_MESSAGE, TRANSFER

SERVER_TIMEOUT_S = 10  # our webhook answers within 5
SERVER_MESSAGES = (
    "status-update",
    "end-of-call-report",
    "tool-calls",
    'transcript[transcriptType="final"]',
    "speech-update",
    "user-interrupted",
    "hang",
)
CLIENT_MESSAGES = (
    *("status-update", "speech-update", "transcript", "model-output", "user-interrupted", "hang"),
    *("assistant.speechStarted", "tool-calls"),  # word times; the agent works and owes nothing yet
)
AUDIO_FORMATS: Mapping[str, Mapping[str, Any]] = {
    "telephone": {"format": "mulaw", "container": "raw", "sampleRate": 8000},  # Twilio's own: the bytes pass through
    "wideband": {"format": "pcm_s16le", "container": "raw", "sampleRate": 16_000},
}
RESUMED = "Sorry, we were cut off. Please go on."
HANDED_ON = "I am still here. Please go on."  # by one process to another, in good order: nobody need know
LIVEKIT_WAIT = "200 + 8000 * x"  # ms, x the chance that the caller goes on; LiveKit's own default, said aloud


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where Vapi reaches us, and what it must show us there."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of a conversation that was lost; `role` is assistant or user."""

    role: str
    words: str


@dataclass(frozen=True, slots=True)
class TakenUp:
    """How an agent takes up a conversation that another one had.

    `so_far` is what was said, `opening` its first words ("": the first word is the caller's, who is not to notice),
    `told` what the model must know besides ("": nothing).
    """

    so_far: Sequence[Said]
    opening: str = RESUMED
    told: str = ""


@dataclass(frozen=True, slots=True)
class VersionWords:
    """A version's words without the database: the fields of `AgentWords`, plus what it needs of its surroundings.

    `targets` are the slugs the agent may hand callers to, in the order they are tried.
    """

    name: str
    slug: str
    number: int
    prompt: str
    first_message: str
    first_message_mode: str
    first_message_interruptible: bool
    end_call_message: str
    end_call_phrases: list[str]
    model_provider: str
    model_name: str
    temperature: float
    max_tokens: int
    voice_provider: str
    voice_id: str
    voice_model: str
    voice_speed: float | None
    transcriber_provider: str
    transcriber_model: str
    language: str
    keyterms: list[str]
    endpointing_ms: int | None
    callers_from: str
    barge_in: str
    wait_seconds: float
    turn_end: str
    stop_words: int
    stop_voice_seconds: float
    backoff_seconds: float
    acknowledgement_phrases: list[str]
    interruption_phrases: list[str]
    tell_heard: bool
    sound: str
    keypad: bool
    keypad_digits: int
    keypad_end: str
    silence_timeout_s: int | None
    max_duration_s: int
    at_longest: str
    time_is_up: str
    denoise: bool
    may_transfer: bool
    may_end_call: bool
    tools: list[dict[str, Any]]
    targets: tuple[str, ...] = ()


def assistant(words: VersionWords, *, server: ServerAddress, recording: bool = False) -> dict[str, Any]:
    """The assistant, for `POST /assistant` or inline in `POST /call`. `recording` needs the caller's consent."""
    body: dict[str, Any] = {
        "name": words.name[:NAME_CHARS],
        "firstMessageMode": words.first_message_mode,
        "firstMessageInterruptionsEnabled": words.first_message_interruptible,
        "model": _model(words),
        "voice": _voice(words),
        "transcriber": _transcriber(words),
        "startSpeakingPlan": _start_speaking(words),
        "stopSpeakingPlan": _stop_speaking(words),
        "maxDurationSeconds": words.max_duration_s,
        "backgroundSound": "off",
        "backgroundSpeechDenoisingPlan": {"smartDenoisingPlan": {"enabled": words.denoise}},
        "voicemailDetection": "off",
        "monitorPlan": {"listenEnabled": False, "controlEnabled": True},
        "metadata": {"template": words.slug, "version": words.number},
        **_connection(server, recording=recording),
    }
    if words.first_message_mode == "assistant-speaks-first":  # with another mode Vapi would say it later, out of place
        body["firstMessage"] = words.first_message
    if words.end_call_message:
        body["endCallMessage"] = words.end_call_message
    if words.end_call_phrases:
        body["endCallPhrases"] = list(words.end_call_phrases)
    if words.silence_timeout_s is not None:  # documented, but missing from the vendor's own types: only when asked for
        body["silenceTimeoutSeconds"] = words.silence_timeout_s
    return body


def resumed(body: Mapping[str, Any], taken_up: TakenUp) -> dict[str, Any]:
    """An inline assistant that goes on where another one left off: it knows what was said, and does not greet again."""
    model = dict(body["model"])
    model["messages"] = [*model["messages"], *({"role": said.role, "content": said.words} for said in taken_up.so_far)]
    if taken_up.told:
        model["messages"].append({"role": "system", "content": taken_up.told})
    first: dict[str, Any] = {"firstMessageMode": "assistant-waits-for-user"}
    if taken_up.opening:
        first = {"firstMessageMode": "assistant-speaks-first", "firstMessage": taken_up.opening}
    same = {key: value for key, value in body.items() if key != "firstMessage"}
    return {**same, **first, "firstMessageInterruptionsEnabled": True, "model": model}


def call_request(
    *,
    call_sid: str,
    n: int,
    epoch: int,
    server: ServerAddress,
    assistant_id: str = "",
    inline: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    recording: bool = False,
    sound: str = "telephone",
    claim: str = "",
) -> dict[str, Any]:
    """The body of `POST /call` for the n-th Vapi session of a phone call: a stored assistant by id, or one `inline`.

    `claim` is this create's own: Vapi shows it again with all that the call tells.

    No number to dial is ever in it: telephony is Twilio's side. Raises ValueError unless exactly one assistant is given
    and the name `<CallSid>.<n>` fits what Vapi allows.
    """
    name = f"{call_sid}.{n}"
    if bool(assistant_id) == (inline is not None):
        raise ValueError("Give a stored assistant or an inline one.")
    if len(name) > NAME_CHARS:
        raise ValueError(f"A Vapi call's name has at most {NAME_CHARS} characters.")
    return {
        **({"assistantId": assistant_id} if assistant_id else {"assistant": dict(inline or {})}),
        "name": name,
        "transport": {"provider": "vapi.websocket", "audioFormat": dict(AUDIO_FORMATS[sound])},
        "assistantOverrides": {
            "variableValues": dict(variables or {}),
            "metadata": {"call_sid": call_sid, "epoch": epoch, "n": n, **({"claim": claim} if claim else {})},
            **_connection(server, recording=recording),
        },
    }


def _connection(server: ServerAddress, *, recording: bool) -> dict[str, Any]:
    """How Vapi talks back; in the overrides too, so that a stored assistant never calls an address of yesterday."""
    return {
        "server": {
            "url": server.url,
            "timeoutSeconds": SERVER_TIMEOUT_S,
            "headers": {"X-Vapi-Secret": server.secret} if server.secret else {},
            "backoffPlan": {
                "type": "exponential",
                "maxRetries": 3,
                "baseDelaySeconds": 1,
                "excludedStatusCodes": [400, 401, 403, 404, 413, 422],
            },
        },
        "serverMessages": list(SERVER_MESSAGES),
        "clientMessages": list(CLIENT_MESSAGES),
        "artifactPlan": {"recordingEnabled": recording, "pcapEnabled": False},  # a packet capture holds the voice too
    }


def _model(words: VersionWords) -> dict[str, Any]:
    tools = [_tool(tool) for tool in words.tools]
    if words.may_transfer and words.targets:
        tools.append(_transfer(words.targets))
    if words.may_transfer:  # for when nobody comes
        tools += [_take_message(), _promise_callback()]
    if words.may_end_call:
        tools.append(_end_call())
    tools.append(_do_not_record())  # every caller may ask for that, of every agent
    return {
        "provider": words.model_provider,
        "model": words.model_name,
        "messages": [{"role": "system", "content": words.prompt}],
        "temperature": words.temperature,
        "maxTokens": words.max_tokens,
        "tools": tools,
    }


def _voice(words: VersionWords) -> dict[str, Any]:
    voice: dict[str, Any] = {"provider": words.voice_provider, "voiceId": words.voice_id}
    if words.voice_model:
        voice["model"] = words.voice_model
    if words.voice_speed is not None:
        voice["speed"] = words.voice_speed
    return voice


def _transcriber(words: VersionWords) -> dict[str, Any]:
    provider, model = words.transcriber_provider, words.transcriber_model
    transcriber: dict[str, Any] = {"provider": provider, "language": words.language}
    if model:
        transcriber["speechModel" if provider == "assembly-ai" else "model"] = model
    if words.endpointing_ms is not None:
        transcriber["endpointing"] = words.endpointing_ms
    if words.keyterms:
        takes_keyterm = model.startswith("nova-3") or model == FLUX
        key = "keytermsPrompt" if provider == "assembly-ai" else "keyterm" if takes_keyterm else "keywords"
        transcriber[key] = list(words.keyterms)
    return transcriber


def _start_speaking(words: VersionWords) -> dict[str, Any]:
    plan: dict[str, Any] = {"waitSeconds": words.wait_seconds}
    if words.turn_end == "livekit":
        plan["smartEndpointingPlan"] = {"provider": "livekit", "waitFunction": LIVEKIT_WAIT}
    elif words.turn_end == "vapi":
        plan["smartEndpointingPlan"] = {"provider": "vapi"}
    return plan


def _stop_speaking(words: VersionWords) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "numWords": words.stop_words,
        "voiceSeconds": words.stop_voice_seconds,
        "backoffSeconds": words.backoff_seconds,
    }
    if words.acknowledgement_phrases:
        plan["acknowledgementPhrases"] = list(words.acknowledgement_phrases)
    if words.interruption_phrases:
        plan["interruptionPhrases"] = list(words.interruption_phrases)
    return plan


def _function(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A tool that our webhook answers: `server` of the assistant applies."""
    schema = dict(parameters) or {"type": "object", "properties": {}}
    return {"type": "function", "async": False, "function": {"name": name, "description": description, "parameters": schema}}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    body = _function(tool["name"], tool["description"], tool.get("parameters") or {})
    if tool.get("waiting_sentence"):
        body["messages"] = [{"type": "request-start", "content": tool["waiting_sentence"]}]
    return body


def _transfer(targets: tuple[str, ...]) -> dict[str, Any]:
    return _function(
        TRANSFER,
        "Hand the caller to a person of the support team. Tell the caller in one short sentence before you do it.",
        {
            "type": "object",
            "properties": {
                "reason": {"type": "string", "description": "Why a person is needed, in a few words."},
                "summary": {"type": "string", "description": "One sentence for that person: who calls, what is wrong, what was tried."},
                "target": {"type": "string", "description": "Who should take over, if it matters.", "enum": list(targets)},
            },
            "required": ["reason", "summary"],
        },
    )


def _take_message() -> dict[str, Any]:
    return _function(TAKE_MESSAGE, "Let the caller leave a spoken message, when nobody can take the call and they want to leave one.", {})


def _promise_callback() -> dict[str, Any]:
    return _function(
        PROMISE_CALLBACK,
        "Have a person call the caller back, when nobody can take the call and they want that. The answer says by when: tell the caller.",
        {},
    )


def _end_call() -> dict[str, Any]:
    return _function(END_CALL, "Hang up, after both of you have said goodbye.", {})


def _do_not_record() -> dict[str, Any]:
    return _function(DO_NOT_RECORD, "Keep nothing of this call: use it when the caller does not want to be recorded or written down.", {})
