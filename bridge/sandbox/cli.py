"""The sandbox's commands, for any bridge between Twilio and Vapi: serve, call, faults. Nothing of Django, nothing of this project."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.sandbox.calling import NotPossible, Order, place
from bridge.sandbox.faults import NAMED, Fault, Faults
from bridge.sandbox.script import SCENARIOS, Scenario, impatient
from bridge.sandbox.serving import Stand, serve
from bridge.sandbox.sphinx import EARS

GOOD, COMPLAINED, MISUSED = 0, 1, 2
VERBS = ("serve", "call", "faults")

Say = Callable[[str], None]


class Misused(Exception):
    """The command cannot be done as it was given; the text says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a project knows of itself, so that it need not be typed."""

    webhook_url: str = ""
    status_url: str = ""
    auth_token: str = ""
    account_sid: str = "AC" + "1" * 32
    to_number: str = "+18005550199"
    vapi_url: str = "http://127.0.0.1:8090"
    api_key: str = "sandbox-vapi-key"
    twilio_url: str = "http://127.0.0.1:8091"
    wavs: Path | None = None


def add_verbs(verbs: Any, known: Known) -> None:
    """Declare serve, call and faults on argparse's sub-parsers."""
    serving = verbs.add_parser("serve", help="a Vapi to call, the customer database its tool asks, Twilio's REST API")
    serving.add_argument("--port", type=int, default=8090, help="of Vapi")
    serving.add_argument("--twilio-port", type=int, default=8091, help="of Twilio's REST API")
    serving.add_argument("--ear", choices=sorted(EARS), default="clips", help="the agent hears by clips or by words (extra: voice)")
    serving.add_argument("--lines", type=int, default=10, help="calls at once")
    calling = verbs.add_parser("call", help="one phone call to a bridge; not 0 if the caller was lost or Twilio would complain")
    calling.add_argument("--webhook-url", default=known.webhook_url, help="the bridge's address for incoming calls")
    calling.add_argument("--status-url", default=known.status_url, help="its address for status callbacks")
    calling.add_argument("--fallback-url", default="", help="the number's fallback URL")
    calling.add_argument("--to", default=known.to_number)
    calling.add_argument("--from", dest="from_number", default="+14155550100")
    calling.add_argument("--vapi-url", default=known.vapi_url, help="of a running `serve`")
    calling.add_argument("--twilio-url", default=known.twilio_url, help="of a running `serve`")
    calling.add_argument("--begins-after", type=float, help="the caller speaks after so many seconds, whatever the greeting is")
    calling.add_argument("--longest", type=float, default=180.0, help="seconds until the caller gives up")
    calling.add_argument("--wav", type=Path, default=None, help="where to keep the sound")
    calling.add_argument("--list", action="store_true", help="the named faults; places no call")
    for each in (serving, calling):
        each.add_argument("--scenario", choices=sorted(SCENARIOS), default="", help="what is talked about")
        each.add_argument("--fault", choices=sorted(NAMED), default="", metavar="NAME", help="see `faults`")
        each.add_argument("--api-key", default=known.api_key, help="Vapi's")
        each.add_argument("--auth-token", default=known.auth_token, help="Twilio's: signs what the caller sends")
        each.add_argument("--account-sid", default=known.account_sid, help="Twilio's")
    verbs.add_parser("faults", help="the named faults, a sentence each")


def run(options: Mapping[str, Any], known: Known, say: Say) -> int:
    """Do what was asked and return the exit code. Raises Misused."""
    if options["verb"] == "faults" or options.get("list"):
        for name, fault in NAMED.items():
            say(f"{name:28} {fault.says}")
        return GOOD
    fault = NAMED.get(options["fault"], Fault("No fault."))
    scenario = SCENARIOS[options["scenario"] or fault.scenario]
    if options["verb"] == "serve":
        return _serve(options, scenario, fault.switches(), say)
    return _call(options, scenario, fault, known, say)


def _serve(options: Mapping[str, Any], scenario: Scenario, faults: Faults, say: Say) -> int:
    ear = EARS[options["ear"]]
    try:
        ear()
    except RuntimeError as missing:
        raise Misused(str(missing)) from None
    stand = Stand(
        port=options["port"],
        twilio_port=options["twilio_port"],
        api_key=options["api_key"],
        account_sid=options["account_sid"],
        auth_token=options["auth_token"] or "sandbox-auth-token",
        scenario=scenario,
        faults=faults,
        ear=ear,
        lines=options["lines"],
    )
    try:
        asyncio.run(serve(stand, say))
    except OSError as taken:
        raise Misused(f"A port cannot be opened: {taken.strerror or taken}.") from None
    return GOOD


def _call(options: Mapping[str, Any], scenario: Scenario, fault: Fault, known: Known, say: Say) -> int:
    if not options["webhook_url"]:
        raise Misused("Where does the phone ring? Give --webhook-url.")
    if not options["auth_token"]:
        raise Misused("Without an auth token (TWILIO_AUTH_TOKEN, --auth-token) the bridge would not believe the call.")
    wav = options["wav"] or (known.wavs and known.wavs / f"call-{time.strftime('%Y%m%d-%H%M%S')}.wav")
    order = Order(
        webhook_url=options["webhook_url"],
        status_url=options["status_url"],
        fallback_url=options["fallback_url"],
        auth_token=options["auth_token"],
        account_sid=options["account_sid"],
        to_number=options["to"],
        from_number=options["from_number"],
        scenario=scenario if options["begins_after"] is None else impatient(scenario, options["begins_after"]),
        fault=fault,
        vapi_url=options["vapi_url"].rstrip("/"),
        api_key=options["api_key"],
        twilio_url=options["twilio_url"].rstrip("/"),
        wav=wav,
        longest_s=options["longest"],
    )
    try:
        return GOOD if asyncio.run(place(order, say)) else COMPLAINED
    except NotPossible as why:
        raise Misused(str(why)) from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bridge.sandbox", description="Twilio and Vapi, played from their documents.")
    add_verbs(parser.add_subparsers(dest="verb", required=True), Known())
    options = vars(parser.parse_args(arguments))
    try:
        return run(options, Known(), lambda line: print(line, flush=True))
    except Misused as why:
        parser.exit(MISUSED, f"{why}\n")
