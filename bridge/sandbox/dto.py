"""What Vapi's REST API takes: every key it knows and the range of its value; anything else is a 400 that names it.

Written from the vendor's published schema, on purpose stricter than the vendor's SDK, whose models accept any extra key.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.sandbox.checking import URL, Check, by_key, either, flag, items, mapping, number, one_of, shape, text


def _words(*lines: str) -> list[str]:
    return " ".join(lines).split()


MODEL_PROVIDERS = _words(
    "openai anthropic anthropic-bedrock google groq xai custom-llm together-ai openrouter perplexity-ai deepinfra deep-seek",
    "cerebras anyscale inflection-ai minimax vapi",
)
VOICE_PROVIDERS = _words(
    "11labs azure cartesia custom-voice deepgram hume lmnt neuphonic openai playht wellsaid rime-ai smallest-ai tavus vapi",
    "sesame inworld minimax xai microsoft",
)
TRANSCRIBERS = _words(
    "deepgram assembly-ai azure google gladia speechmatics talkscriber openai 11labs cartesia soniox xai custom-transcriber vapi"
)
CLIENT_DEFAULTS = _words(
    "conversation-update function-call hang model-output speech-update status-update transfer-update transcript tool-calls",
    "user-interrupted voice-input workflow.node.started assistant.started",
)
CLIENT_MESSAGES = [
    *CLIENT_DEFAULTS,
    *_words("function-call-result language-changed metadata tool-calls-result tool.completed assistant.speechStarted"),
]
SERVER_DEFAULTS = _words(
    "conversation-update end-of-call-report function-call hang speech-update status-update tool-calls",
    "transfer-destination-request handoff-destination-request user-interrupted assistant.started",
)
FINAL_TRANSCRIPTS = 'transcript[transcriptType="final"]'
SERVER_MESSAGES = [
    *SERVER_DEFAULTS,
    *_words("assistant.speechStarted language-changed language-change-detected model-output phone-call-control transcript"),
    *_words("transfer-update voice-input chat.created chat.deleted session.created session.updated session.deleted"),
    *_words("call.deleted call.delete.failed call.artifact.upload"),
    FINAL_TRANSCRIPTS,
]

BACKOFF = shape(
    {
        "type": one_of("fixed", "exponential"),
        "maxRetries": number(0, 10),
        "baseDelaySeconds": number(0, 10),
        "excludedStatusCodes": items(number(100, 599)),
    }
)
SERVER = shape(
    {
        "url": URL,
        "timeoutSeconds": number(1, 300),
        "credentialId": text(),
        "headers": mapping,
        "staticIpAddressesEnabled": flag,
        "encryptedPaths": items(text()),
        "backoffPlan": BACKOFF,
    }
)
TOOL_MESSAGE = shape(
    {
        "type": one_of("request-start", "request-complete", "request-failed", "request-response-delayed"),
        "content": text(1000),
        "contents": items(mapping),
        "blocking": flag,
        "role": one_of("assistant", "system"),
        "endCallAfterSpokenEnabled": flag,
        "timingMilliseconds": number(100, 120_000),
        "conditions": items(mapping),
    },
    required=("type",),
)
FUNCTION = shape(
    {"name": text(64, shortest=1, pattern=r"[A-Za-z0-9_-]+"), "description": text(1000), "parameters": mapping, "strict": flag},
    required=("name",),
)
FUNCTION_TOOL = shape(
    {
        "type": one_of("function"),
        "async": flag,
        "function": FUNCTION,
        "messages": items(TOOL_MESSAGE),
        "server": SERVER,
        "parameters": items(mapping),
        "variableExtractionPlan": mapping,
        "rejectionPlan": mapping,
    },
    required=("type", "function"),
)
OTHER_TOOLS = one_of(
    *_words("apiRequest bash code computer dtmf endCall gohighlevel google handoff mcp query slack sms textEditor transferCall voicemail")
)
TOOL = by_key(
    "type",
    {"function": FUNCTION_TOOL},
    shape({"type": OTHER_TOOLS, "function": FUNCTION, "messages": items(TOOL_MESSAGE)}, required=("type",)),
)

MODEL = shape(
    {
        "provider": one_of(*MODEL_PROVIDERS),
        "model": text(shortest=1),
        "messages": items(
            shape({"role": one_of("system", "user", "assistant", "function", "tool"), "content": text()}, required=("role",))
        ),
        "temperature": number(0, 2),
        "maxTokens": number(50, 10_000),
        "tools": items(TOOL),
        "toolIds": items(text()),
        "toolRefs": items(mapping),
        "knowledgeBase": mapping,
        "fallbackModels": items(text()),
        "numFastTurns": number(0, 1_000),
        "emotionRecognitionEnabled": flag,
        "promptCacheRetention": one_of("in_memory", "24h"),
        "promptCacheKey": text(64),
        "reasoningEffort": one_of("none", "minimal", "low", "medium", "high", "xhigh"),
    },
    required=("provider", "model"),
)
ELEVENLABS = shape(
    {
        "provider": one_of("11labs"),
        "voiceId": text(shortest=1),
        "model": text(),
        "stability": number(0, 1),
        "similarityBoost": number(0, 1),
        "style": number(0, 1),
        "speed": number(0.7, 1.2),
        "optimizeStreamingLatency": number(0, 4),
        "useSpeakerBoost": flag,
        "enableSsmlParsing": flag,
        "autoMode": flag,
        "language": text(),
        "cachingEnabled": flag,
        "chunkPlan": mapping,
        "fallbackPlan": mapping,
        "pronunciationDictionaryLocators": items(mapping),
    },
    required=("provider", "voiceId"),
)
VAPI_VOICE = shape(
    {
        "provider": one_of("vapi"),
        "voiceId": text(shortest=1),
        "version": one_of("1", "2", "latest"),
        "speed": number(0.25, 2),
        "language": text(),
        "cachingEnabled": flag,
        "chunkPlan": mapping,
        "fallbackPlan": mapping,
    },
    required=("provider", "voiceId"),
)


def _other_provider(*providers: str) -> Check:
    """Providers whose own fields the sandbox does not know: only the provider is checked."""

    def check(value: object, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} must be an object"
        else:
            yield from one_of(*providers)(value.get("provider"), f"{path}.provider")

    return check


VOICE = by_key("provider", {"11labs": ELEVENLABS, "vapi": VAPI_VOICE}, _other_provider(*VOICE_PROVIDERS))
DEEPGRAM = shape(
    {
        "provider": one_of("deepgram"),
        "model": text(),
        "language": text(),
        "languages": items(text()),
        "keywords": items(text()),
        "keyterm": items(text()),
        "endpointing": number(10, 500),
        "confidenceThreshold": number(0, 1),
        "numerals": flag,
        "smartFormat": flag,
        "profanityFilter": flag,
        "redaction": items(one_of("pci", "pii", "phi", "numbers")),
        "mipOptOut": flag,
        "eotThreshold": number(0.5, 0.9),
        "eotTimeoutMs": number(500, 10_000),
        "fallbackPlan": mapping,
    },
    required=("provider",),
)
TRANSCRIBER = by_key("provider", {"deepgram": DEEPGRAM}, _other_provider(*TRANSCRIBERS))
START_SPEAKING = shape(
    {
        "waitSeconds": number(0, 5),
        "smartEndpointingPlan": shape(
            {"provider": one_of("livekit", "vapi", "custom-endpointing-model"), "waitFunction": text(), "server": SERVER},
            required=("provider",),
        ),
        "smartEndpointingEnabled": either(flag, one_of("livekit")),
        "customEndpointingRules": items(
            shape(
                {
                    "type": one_of("assistant", "customer", "both"),
                    "regex": text(),
                    "regexOptions": items(mapping),
                    "assistantRegex": text(),
                    "customerRegex": text(),
                    "timeoutSeconds": number(0, 15),
                },
                required=("type", "timeoutSeconds"),
            )
        ),
        "transcriptionEndpointingPlan": shape(
            {"onPunctuationSeconds": number(0, 3), "onNoPunctuationSeconds": number(0, 3), "onNumberSeconds": number(0, 3)}
        ),
    }
)
STOP_SPEAKING = shape(
    {
        "numWords": number(0, 10),
        "voiceSeconds": number(0, 0.5),
        "backoffSeconds": number(0, 10),
        "acknowledgementPhrases": items(text()),
        "interruptionPhrases": items(text()),
    }
)
ARTIFACTS = shape(
    {
        "recordingEnabled": flag,
        "recordingFormat": one_of("wav;l16", "mp3"),
        "recordingUseCustomStorageEnabled": flag,
        "videoRecordingEnabled": flag,
        "loggingEnabled": flag,
        "loggingUseCustomStorageEnabled": flag,
        "loggingPath": text(),
        "pcapEnabled": flag,
        "pcapS3PathPrefix": text(),
        "pcapUseCustomStorageEnabled": flag,
        "transcriptPlan": shape({"enabled": flag, "assistantName": text(), "userName": text()}),
        "recordingPath": text(),
        "structuredOutputIds": items(text()),
        "structuredOutputs": items(mapping),
        "scorecardIds": items(text()),
        "scorecards": items(mapping),
        "fullMessageHistoryEnabled": flag,
    }
)
ASSISTANT_FIELDS: dict[str, Check] = {
    "name": text(40),
    "firstMessage": text(),
    "firstMessageMode": one_of("assistant-speaks-first", "assistant-speaks-first-with-model-generated-message", "assistant-waits-for-user"),
    "firstMessageInterruptionsEnabled": flag,
    "model": MODEL,
    "voice": VOICE,
    "transcriber": TRANSCRIBER,
    "startSpeakingPlan": START_SPEAKING,
    "stopSpeakingPlan": STOP_SPEAKING,
    "silenceTimeoutSeconds": number(10, 3600),
    "maxDurationSeconds": number(10, 43_200),
    "backgroundSound": either(one_of("off", "office"), URL),
    "backgroundSpeechDenoisingPlan": shape({"smartDenoisingPlan": shape({"enabled": flag}), "fourierDenoisingPlan": mapping}),
    "voicemailDetection": either(one_of("off"), _other_provider("google", "openai", "twilio", "vapi")),
    "voicemailMessage": text(1000),
    "endCallMessage": text(1000),
    "endCallPhrases": items(text()),
    "server": SERVER,
    "serverMessages": items(one_of(*SERVER_MESSAGES)),
    "clientMessages": items(one_of(*CLIENT_MESSAGES)),
    "analysisPlan": mapping,
    "artifactPlan": ARTIFACTS,
    "monitorPlan": shape(
        {
            "listenEnabled": flag,
            "listenAuthenticationEnabled": flag,
            "controlEnabled": flag,
            "controlAuthenticationEnabled": flag,
            "monitorIds": items(text()),
        }
    ),
    "compliancePlan": shape({"hipaaEnabled": flag, "pciEnabled": flag, "securityFilterPlan": mapping, "recordingConsentPlan": mapping}),
    "keypadInputPlan": shape(
        {"enabled": flag, "timeoutSeconds": number(0, 10), "delimiters": either(one_of("#", "*", ""), items(one_of("#", "*", "")))}
    ),
    "hooks": items(mapping),
    "modelOutputInMessagesEnabled": flag,
    "transportConfigurations": items(mapping),
    "observabilityPlan": mapping,
    "credentials": items(mapping),
    "credentialIds": items(text()),
    "metadata": mapping,
}
ASSISTANT = shape(ASSISTANT_FIELDS)
OVERRIDES = shape({**ASSISTANT_FIELDS, "variableValues": mapping, "tools:append": items(TOOL)})
TRANSPORT = shape(
    {
        "provider": one_of("vapi.websocket"),
        "audioFormat": shape(
            {"format": one_of("pcm_s16le", "mulaw"), "container": one_of("raw"), "sampleRate": number(0, 192_000)},
            required=("format", "sampleRate"),
        ),
    },
    required=("provider",),
)
CALL = shape(
    {
        "assistantId": text(shortest=1),
        "assistant": ASSISTANT,
        "assistantVersion": text(),
        "assistantOverrides": OVERRIDES,
        "squadId": text(),
        "squad": mapping,
        "squadOverrides": mapping,
        "workflowId": text(),
        "workflow": mapping,
        "workflowOverrides": mapping,
        "transport": TRANSPORT,
        "name": text(40),
        "customer": mapping,
        "customerId": text(),
        "customers": items(mapping),
        "phoneNumberId": text(),
        "phoneNumber": mapping,
        "schedulePlan": mapping,
    }
)
CALL_UPDATE = shape({"name": text(40)})
