"""Agents as code: the format of the file, and what is wrong with one.

The file is one JSON object of five lists. An object is the whole truth about one row: a key that is left out means its
default, so that the same file makes the same agents on every machine. A key is a field of the model unless this page says
otherwise. Reading changes nothing and finds every problem at once, each under its path, like `templates[0].voice.speed`.
Secrets are never in the file: it names the environment variable that holds one.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from django.core.exceptions import ValidationError
from django.db import models

from agents import discretion, limits, presets
from agents.limits import END_CALL, TRANSFER
from agents.models import AgentWords, AssistantTemplate, Discretion, Edited, HandoffTarget, PhoneLine, Team, Tool

if TYPE_CHECKING:  # generic for the type checker only
    ModelField = models.Field[Any, Any]
else:
    ModelField = models.Field

Problems = dict[str, str]  # path -> sentence, in the order found; the first one of a path stays
Checked = Callable[[Mapping[str, Any], Iterable[str]], Mapping[str, str]]

GRANTS = {TRANSFER: "may_transfer", END_CALL: "may_end_call"}  # tools built in, and the field that grants each
SPELT_OTHERWISE = {
    "model_provider": "model.provider",
    "model_name": "model.model",
    "temperature": "model.temperature",
    "max_tokens": "model.max_tokens",
    "voice_provider": "voice.provider",
    "voice_id": "voice.voiceId",
    "voice_model": "voice.model",
    "voice_speed": "voice.speed",
    "transcriber_provider": "transcriber.provider",
    "transcriber_model": "transcriber.model",
    "language": "transcriber.language",
    "keyterms": "transcriber.keyterms",
    "endpointing_ms": "transcriber.endpointing_ms",
    "secret_env": "secret.env",
}
PLAIN_KEY = re.compile(r"\w{1,64}", re.ASCII)
NAME_SHOWN = 64
KEYS_PAGE = "docs/agents-as-code.md"
NO_SECRETS_HERE = 'Write {"env": "NAME"}, the environment variable that holds it; a secret itself is never in this file.'


class NotImportable(Exception):
    """The file is wrong. `problems` is {path: sentence}, everything that is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("These agents cannot be imported.")
        self.problems = dict(problems)


@dataclass(frozen=True, slots=True)
class Reference:
    """A key that names rows of another list: one of them, or `many`. `needed`: it may not be left out."""

    listing: str
    many: bool = False
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One list of the file. `name` is the key its objects are known by, `keys` says which key is which field."""

    listing: str
    word: str
    model: type[Edited]
    name: str
    keys: Mapping[str, str]
    check: Checked
    references: Mapping[str, Reference] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Keys that hold an object, with the keys in it."""
        inner = [key.split(".") for key in self.keys if "." in key]
        return {group: [key for name, key in inner if name == group] for group, _ in inner}

    def field(self, key: str) -> ModelField:
        return cast(ModelField, self.model._meta.get_field(self.keys[key]))


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object of the file, checked: values by field, and what it refers to, by key, as (path, name)."""

    kind: Kind
    path: str
    name: str
    fields: Mapping[str, Any]
    named: Mapping[str, Sequence[tuple[str, str]]]


def _keys(*fields: str) -> dict[str, str]:
    return {SPELT_OTHERWISE.get(name, name): name for name in fields}


KINDS = (  # in the order in which they may refer to each other
    Kind("teams", "team", Team, "slug", _keys("slug", "name"), lambda team, _: {}),
    Kind(
        "tools",
        "tool",
        Tool,
        "name",
        _keys("name", "description", "url", "parameters", "timeout_s", "waiting_sentence", "secret_env"),
        lambda tool, allowed: limits.tool_problems(tool, allowed_private=allowed),
    ),
    Kind(
        "handoff_targets",
        "target",
        HandoffTarget,
        "slug",
        _keys("slug", "name", "number", "order", "ring_seconds", "talk_minutes"),
        lambda target, _: limits.target_problems(target),
        {"team": Reference("teams")},
    ),
    Kind(
        "templates",
        "template",
        AssistantTemplate,
        "slug",
        _keys(
            "slug",
            "name",
            *(name for name in AgentWords.word_fields() if name not in GRANTS.values()),
            *Discretion.rule_fields(),
            *limits.KEPT,
        ),
        lambda template, _: limits.word_problems(template) | discretion.rule_problems(template) | limits.keeping_problems(template),
        {"tools": Reference("tools", many=True), "team": Reference("teams")},
    ),
    Kind(
        "lines",
        "line",
        PhoneLine,
        "number",
        _keys(
            "number",
            "name",
            "zero_for_person",
            "voicemail",
            "callback_hours",
            "time_zone",
            "hours",
            "holidays",
            "disclosure",
            "record_calls",
            "all_party_consent",
            *limits.KEPT,
        ),
        lambda line, _: limits.line_problems(line) | limits.keeping_problems(line),
        {
            "template": Reference("templates", needed=True),
            "team": Reference("teams"),
            "handoff": Reference("handoff_targets", many=True),
        },
    ),
)


def default(kind: Kind, key: str, given: Mapping[str, Any]) -> Any:
    """What a key means that was left out. A model's default belongs to the default provider: another one has its own.

    Where callers call from says how the agent takes turns.
    """
    if kind.model is AssistantTemplate and kind.keys[key] in presets.FIELDS:
        transcriber = given.get("transcriber.provider", limits.USUAL_TRANSCRIBER)
        return presets.values(str(given.get("callers_from", presets.USUAL)), transcriber=str(transcriber))[kind.keys[key]]
    group, _, last = key.rpartition(".")
    provider = f"{group}.provider"
    if last == "model" and provider in given and given[provider] != kind.field(provider).get_default():
        return ""
    return kind.field(key).get_default()


def is_needed(kind: Kind, key: str) -> bool:
    field = kind.field(key)
    return not field.has_default() and not field.blank and not field.null


def read(document: Any, *, known: Mapping[str, Mapping[str, str]], allowed_private: Sequence[str] = ()) -> list[Wanted]:
    """Everything the file wants, in an order in which it can be stored. Raises NotImportable.

    `known`: what the database has, as {list: {name: why it cannot be referred to, or ""}}.
    `allowed_private`: host:port that tools may call without https.
    """
    listings = {kind.listing: kind for kind in KINDS}
    if not isinstance(document, dict):
        raise NotImportable({"the file": f"Write one object with the lists {', '.join(sorted(listings))}."})
    problems: Problems = {}
    _unknown(document, listings, "", problems)
    wanted = [each for kind in KINDS for each in _objects(kind, document.get(kind.listing, []), allowed_private, problems)]
    _twice(wanted, problems)
    _references(wanted, known, problems)
    if problems:
        raise NotImportable(problems)
    return wanted


def _unknown(given: Mapping[str, Any], keys: Iterable[str], path: str, problems: Problems) -> None:
    keys = sorted(keys)
    for key in given:
        if key not in keys:
            near = difflib.get_close_matches(key[:NAME_SHOWN], keys, n=1)
            label = key if PLAIN_KEY.fullmatch(key) else _shown(key)
            meant = f"did you mean {near[0]}?" if near else f"{KEYS_PAGE} lists all."
            problems.setdefault(f"{path}{label}", f"Unknown key; {meant}")


def _shown(name: Any) -> str:
    """A name of the file's in one line, however it is written."""
    return json.dumps(str(name)[:NAME_SHOWN])


def _objects(kind: Kind, given: Any, allowed_private: Sequence[str], problems: Problems) -> Iterator[Wanted]:
    if not isinstance(given, list):
        problems.setdefault(kind.listing, "Write a list.")
        return
    for place, each in enumerate(given):
        path = f"{kind.listing}[{place}]"
        if isinstance(each, dict):
            yield _object(kind, path, each, allowed_private, problems)
        else:
            problems.setdefault(path, "Write an object.")


def _object(kind: Kind, path: str, given: dict[str, Any], allowed_private: Sequence[str], problems: Problems) -> Wanted:
    _unknown(given, {*kind.references, *(key.partition(".")[0] for key in kind.keys)}, f"{path}.", problems)
    written = _flat(kind, path, given, problems)
    named = {key: _names(f"{path}.{key}", reference, given.get(key), problems) for key, reference in kind.references.items()}
    fields: dict[str, Any] = {}
    if kind.model is AssistantTemplate:
        granted = [name for _, name in named["tools"]] if "tools" in given else [*GRANTS]
        fields |= {field: tool in granted for tool, field in GRANTS.items()}
        named["tools"] = [(where, tool) for where, tool in named["tools"] if tool not in GRANTS]
    for key, name in kind.keys.items():
        if key in written:
            if sentence := _type_problem(kind.field(key), written[key]):
                problems.setdefault(f"{path}.{key}", NO_SECRETS_HERE if name == "secret_env" else sentence)
            else:
                fields[name] = written[key]
        elif is_needed(kind, key):
            problems.setdefault(f"{path}.{key}", "This key is needed.")
        else:
            fields[name] = default(kind, key, written)
    _check(kind, path, fields, allowed_private, problems)
    return Wanted(kind, path, str(fields.get(kind.name, "")), fields, named)


def _flat(kind: Kind, path: str, given: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """The written values by key, with those of groups as `group.key`."""
    flat = {key: given[key] for key in kind.keys if key in given}
    for group, keys in kind.groups.items():
        inner = given.get(group)
        if isinstance(inner, dict):
            _unknown(inner, keys, f"{path}.{group}.", problems)
            flat |= {f"{group}.{key}": inner[key] for key in keys if key in inner}
        elif group in given and not (group == "secret" and inner is None):
            problems.setdefault(f"{path}.{group}", NO_SECRETS_HERE if group == "secret" else f"Write an object with {', '.join(keys)}.")
    return flat


def _names(path: str, reference: Reference, value: Any, problems: Problems) -> list[tuple[str, str]]:
    if value is None:
        if reference.needed:
            problems.setdefault(path, "This key is needed.")
        return []
    if not reference.many:
        if isinstance(value, str):
            return [(path, value)]
        problems.setdefault(path, "Write a name.")
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        problems.setdefault(path, "Write a list of names.")
        return []
    named = [(f"{path}[{place}]", each) for place, each in enumerate(value)]
    for place, (where, name) in enumerate(named):
        if name in value[:place]:
            problems.setdefault(where, f"{_shown(name)} is named twice.")
    return named


def _type_problem(field: ModelField, value: Any) -> str | None:
    """JSON's own types only: "5" is no number and 1 is no truth."""
    if value is None:
        return None if field.null else "Write a value, or leave the key out."
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits, sentence = {
        "BooleanField": (isinstance(value, bool), "Write true or false."),
        "PositiveIntegerField": (number and isinstance(value, int), "Write a whole number."),
        "FloatField": (number, "Write a number."),
        "JSONField": (isinstance(value, type(field.get_default())), "Write a list." if field.default is list else "Write an object."),
    }.get(field.get_internal_type(), (isinstance(value, str), "Write a text."))
    if not fits:
        return sentence
    known = [choice for choice, _ in field.flatchoices]
    return f"Choose one of {', '.join(known)}." if known and value not in known else None


def _check(kind: Kind, path: str, fields: Mapping[str, Any], allowed_private: Sequence[str], problems: Problems) -> None:
    """What the vendors' table says of the values, then what the database's fields say."""
    key_of = {name: key for key, name in kind.keys.items()}
    for name, sentence in kind.check(fields, allowed_private).items():
        problems.setdefault(f"{path}.{key_of[name]}", sentence)
    for key, name in kind.keys.items():
        if name in fields and f"{path}.{key}" not in problems:
            try:
                kind.field(key).clean(fields[name], None)
            except ValidationError as wrong:
                problems[f"{path}.{key}"] = wrong.messages[0]


def _twice(wanted: Sequence[Wanted], problems: Problems) -> None:
    first: dict[tuple[str, str], str] = {}
    for each in wanted:
        before = first.setdefault((each.kind.listing, each.name), each.path)
        if before != each.path and each.name:
            problems.setdefault(f"{each.path}.{each.kind.name}", f"{before} has the same one.")


def _references(wanted: Sequence[Wanted], known: Mapping[str, Mapping[str, str]], problems: Problems) -> None:
    here = {(each.kind.listing, each.name) for each in wanted}
    for each in wanted:
        for key, named in each.named.items():
            listing = each.kind.references[key].listing
            for where, name in named:
                missing = f"There is no {_shown(name)}, neither in this file nor in the database."
                if (listing, name) not in here and (sentence := known.get(listing, {}).get(name, missing)):
                    problems.setdefault(where, sentence)
