"""Bad answers to what we ask of others: Vapi's REST and the tools' addresses, as bytes on real sockets."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pytest

from agents import tools
from bridge.errors import VapiError
from bridge.sandbox.hostile import Hostile
from bridge.vapi_answers import VapiCall
from bridge.vapi_http import VapiClient
from tests.bridge.http_server import Act, Handler, Server, reply
from tests.fuzz.conftest import Cases

VAPI_SAYS: dict[str, Any] = {
    "id": "0198c5a0-0000-7000-8000-000000000001",
    "status": "queued",
    "monitor": {"listenUrl": "wss://x.vapi.ai/1/listen", "controlUrl": "https://x.vapi.ai/1/control"},
    "transport": {"provider": "vapi.websocket", "websocketCallUrl": "wss://api.vapi.ai/1/transport"},
    "subscriptionLimits": {"concurrencyBlocked": False, "concurrencyLimit": 10},
}
TOOL_SAYS = {"name": "Alex", "plan": "pro", "seats": [1, 2, 3], "note": "All is well."}
WITHIN_S = 1.0


def bad(hostile: Hostile, sample: object) -> Act:
    def act(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(hostile.http_answer(sample))

    return act


def test_a_bad_answer_to_a_create_is_a_call_or_a_plain_error(cases: Cases) -> None:
    with Server(reply(200)) as server:
        client = VapiClient(base_url=server.url, api_key="k", socket_hosts=["*.vapi.ai"])
        said: defaultdict[type, set[str]] = defaultdict(set)
        for hostile in cases("vapi-answer", share=0.6):
            server.acts = [bad(hostile, VAPI_SAYS)]
            try:
                made = client.create_call({"name": "x"}, deadline_s=WITHIN_S, pause=lambda seconds: None)
            except VapiError as problem:
                said[type(problem)].add(str(problem))
            else:
                said[VapiCall].add(made.socket_url)
        client.close()
    assert len(said) == 3, "the cases do not reach every end"
    assert all(re.fullmatch(r"wss://[a-z0-9.-]+\.vapi\.ai(/\S*)?", url) for url in said.pop(VapiCall))
    assert all(sentence.endswith(".") for sentences in said.values() for sentence in sentences)


def test_a_bad_answer_of_a_tool_is_one_line_for_the_model(cases: Cases) -> None:
    with Server(reply(200)) as server:
        allowed = [f"127.0.0.1:{server.port}"]
        tool = {"name": "look_up", "url": f"{server.url}/x"}
        worked = 0
        for hostile in cases("tool-answer", share=0.6):
            server.acts = [bad(hostile, TOOL_SAYS)]
            answer = tools.run(tool, {"email": "a@b.example"}, call={"call_sid": "CA1"}, timeout=WITHIN_S, allowed=allowed)
            said = answer.text or answer.problem
            assert said, "the model hears nothing"
            assert not answer.text or not answer.problem
            assert said.splitlines() == [said]
            assert len(said) <= tools.MAX_TEXT_CHARS
            worked += bool(answer.text)
    assert worked, "no answer got through: the cases are too coarse to find anything"


@pytest.mark.parametrize("door", ["vapi-answer", "tool-answer"])
def test_a_case_can_be_had_again(door: str) -> None:
    assert Hostile(3, door, 7).http_answer(TOOL_SAYS) == Hostile(3, door, 7).http_answer(TOOL_SAYS)
    assert Hostile(3, door, 7).http_answer(TOOL_SAYS) != Hostile(4, door, 7).http_answer(TOOL_SAYS)
