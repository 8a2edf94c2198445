"""Words for tests: one agent in one line, and every agent our limits allow."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from agents import limits
from agents.models import TIME_IS_UP, AtLongest, BargeIn, FirstMessageMode, KeypadEnd, Sound, TurnEnd
from agents.payload import ServerAddress, VersionWords

SERVER = ServerAddress(url="https://support.example.com/webhook/vapi", secret="hook-secret")
EMAIL_TOOL: dict[str, Any] = {
    "name": "get_user_account",
    "description": "Looks up an account.",
    "url": "https://crm.example.com/account",
    "parameters": {"type": "object", "properties": {"email": {"type": "string"}}, "required": ["email"]},
    "timeout_s": 4.0,
    "waiting_sentence": "",
    "secret_env": "",
}
PLAIN: dict[str, Any] = {
    "name": "TechFlow support",
    "slug": "support",
    "number": 3,
    "prompt": "You help callers.",
    "first_message": "Hi, how can I help?",
    "first_message_mode": FirstMessageMode.AGENT_FIRST.value,
    "first_message_interruptible": True,
    "end_call_message": "",
    "end_call_phrases": [],
    "model_provider": "openai",
    "model_name": "gpt-4.1",
    "temperature": 0.3,
    "max_tokens": 400,
    "voice_provider": "11labs",
    "voice_id": "21m00Tcm4TlvDq8ikWAM",
    "voice_model": "",
    "voice_speed": None,
    "transcriber_provider": "deepgram",
    "transcriber_model": "nova-3",
    "language": "en",
    "keyterms": [],
    "endpointing_ms": None,
    "callers_from": "quiet",
    "barge_in": BargeIn.INSTANT.value,
    "wait_seconds": 0.4,
    "turn_end": TurnEnd.OFF.value,
    "stop_words": 0,
    "stop_voice_seconds": 0.2,
    "backoff_seconds": 1.0,
    "acknowledgement_phrases": [],
    "interruption_phrases": [],
    "tell_heard": True,
    "sound": Sound.TELEPHONE.value,
    "keypad": False,
    "keypad_digits": 20,
    "keypad_end": KeypadEnd.HASH.value,
    "at_longest": AtLongest.GOODBYE.value,
    "time_is_up": TIME_IS_UP,
    "silence_timeout_s": None,
    "max_duration_s": 1800,
    "denoise": True,
    "may_transfer": True,
    "may_end_call": True,
    "tools": [EMAIL_TOOL],
    "targets": ("tier2", "billing"),
}


def words(**changes: Any) -> VersionWords:
    return VersionWords(**(PLAIN | changes))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
SAID = TEXT.filter(str.strip)
PHRASES = st.lists(SAID, max_size=4)


def _within(name: str, *, whole: bool = False) -> st.SearchStrategy[Any]:
    limit = limits.RANGES[name]
    return st.integers(int(limit.low), int(limit.high)) if whole else st.floats(limit.low, limit.high)


def _schemas() -> st.SearchStrategy[dict[str, Any]]:
    leaf = st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "number", "integer", "boolean"])},
        optional={"description": SAID, "enum": st.lists(SAID, max_size=3), "format": st.sampled_from(limits.JSON_FORMATS), "title": SAID},
    )
    part = st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
            st.fixed_dictionaries({"type": st.just("object"), "properties": st.dictionaries(SAID, inner, max_size=2)}),
        ),
        max_leaves=3,
    )
    full = st.fixed_dictionaries({"type": st.just("object"), "properties": st.dictionaries(SAID, part, max_size=3)})
    return st.one_of(st.just({}), full)


TOOLS = st.fixed_dictionaries(
    {
        "name": st.from_regex(limits.TOOL_NAME, fullmatch=True).filter(lambda name: name not in limits.BUILT_IN_TOOLS),
        "description": SAID,
        "url": st.just("https://crm.example.com/"),
        "parameters": _schemas(),
        "timeout_s": st.floats(0.5, 4.5),
        "waiting_sentence": st.one_of(st.just(""), SAID),
        "secret_env": st.sampled_from(["", "CRM_SECRET"]),
    }
)


@st.composite
def every_agent(draw: st.DrawFn) -> VersionWords:
    """Any agent that `limits.word_problems` lets through, with its awkward corners likely."""
    model = draw(st.sampled_from(sorted(limits.MODELS)))
    voice = draw(st.sampled_from(sorted(limits.VOICES)))
    speed = limits.VOICES[voice].speed
    voice_models = limits.VOICES[voice].models + (() if limits.VOICES[voice].model_needed else ("",))
    ear = draw(st.sampled_from(sorted(limits.TRANSCRIBERS)))
    ear_model = draw(st.sampled_from(limits.TRANSCRIBERS[ear].models or ("",)))
    flux = ear_model == limits.FLUX
    return words(
        name=draw(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40).filter(str.strip)),
        prompt=draw(SAID),
        first_message=draw(SAID),
        first_message_mode=draw(st.sampled_from(FirstMessageMode.values)),
        first_message_interruptible=draw(st.booleans()),
        end_call_message=draw(st.one_of(st.just(""), SAID)),
        end_call_phrases=draw(PHRASES),
        model_provider=model,
        model_name=draw(st.sampled_from(limits.MODELS[model] or ("vendor/some-model",))),
        temperature=draw(_within("temperature")),
        max_tokens=draw(_within("max_tokens", whole=True)),
        voice_provider=voice,
        voice_id=draw(SAID),
        voice_model=draw(st.sampled_from(voice_models or ("",))),
        voice_speed=draw(st.one_of(st.none(), st.floats(speed.low, speed.high))) if speed else None,
        transcriber_provider=ear,
        transcriber_model=ear_model,
        language="en" if flux else draw(st.sampled_from(limits.TRANSCRIBERS[ear].languages)),
        keyterms=draw(PHRASES) if limits.TRANSCRIBERS[ear].words else [],
        endpointing_ms=draw(st.one_of(st.none(), _within("endpointing_ms", whole=True))) if limits.TRANSCRIBERS[ear].endpointing else None,
        barge_in=draw(st.sampled_from(BargeIn.values)),
        wait_seconds=draw(_within("wait_seconds")),
        at_longest=draw(st.sampled_from(AtLongest.values)),
        time_is_up=draw(SAID),
        turn_end=TurnEnd.OFF.value if flux else draw(st.sampled_from(TurnEnd.values)),
        stop_words=draw(_within("stop_words", whole=True)),
        stop_voice_seconds=draw(_within("stop_voice_seconds")),
        backoff_seconds=draw(_within("backoff_seconds")),
        acknowledgement_phrases=draw(PHRASES),
        interruption_phrases=draw(PHRASES),
        silence_timeout_s=draw(st.one_of(st.none(), _within("silence_timeout_s", whole=True))),
        max_duration_s=draw(_within("max_duration_s", whole=True)),
        denoise=draw(st.booleans()),
        may_transfer=draw(st.booleans()),
        may_end_call=draw(st.booleans()),
        tools=draw(st.lists(TOOLS, max_size=2)),
        targets=tuple(draw(st.lists(st.sampled_from(["tier2", "billing", "night"]), unique=True))),
    )
