"""Agents as code: from the file into the database, all of it or nothing.

What the file does not name is left alone. A template is published when callers do not hear it yet as the file says it, so
importing a file twice makes no second version. Whoever imports enqueues `agents.tasks.premake_version` for each version
after the commit. A dry run does the same and takes it back, so that what it promises is what would happen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.db import models, transaction

from agents import limits, services, trail
from agents.as_code import GRANTS, KINDS, NotImportable, Wanted, read
from agents.models import AssistantTemplate, Edited, PhoneLine, Tool
from agents.trail import Who
from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted

MAX_BYTES = 16 * 1024 * 1024
MAX_VALUES = 200_000


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object. `what`: the keys that changed; `version`: the one it was published as."""

    word: str
    name: str
    action: str  # created | changed | unchanged
    what: tuple[str, ...] = ()
    version: int | None = None

    def __str__(self) -> str:
        said = [", ".join(self.what)] if self.what else []
        said += [f"published as version {self.version}"] if self.version else []
        return f"{self.action:<9}  {self.word} {self.name}" + (f": {'; '.join(said)}" if said else "")


@dataclass(frozen=True, slots=True)
class Imported:
    """`versions` are the primary keys of what was published, to be prepared at Vapi."""

    changes: tuple[Change, ...]
    versions: tuple[int, ...]


def parse(body: bytes) -> Any:
    """The JSON value of a file. Raises NotImportable."""
    try:
        return parse_untrusted(body, max_bytes=MAX_BYTES, max_nodes=MAX_VALUES)
    except BadMessage as wrong:
        raise NotImportable({"the file": str(wrong).replace("The message", "It") + _where(body)}) from None


def _where(body: bytes) -> str:
    """Where a file stops being JSON, for the person who wrote it; nothing when that is not the trouble."""
    try:
        json.loads(body[:MAX_BYTES])
    except json.JSONDecodeError as wrong:
        return f" Look at line {wrong.lineno}, column {wrong.colno}."
    except (ValueError, RecursionError):
        return ""
    return ""


def bring_in(
    document: Any,
    *,
    draft: bool,
    dry_run: bool,
    note: str,
    by: str,
    at: datetime,
    allowed_private: Sequence[str] = (),
    who: Who | None = None,
) -> Imported:
    """Store everything a parsed file wants. `draft`: publish nothing; `dry_run`: tell what would change and change nothing.

    `who` is told to the trail, with the names of what changed.

    Raises NotImportable, with everything that is wrong, and has then changed nothing.
    """
    with transaction.atomic():
        wanted = read(document, known=_known(draft, allowed_private), allowed_private=allowed_private)
        stored = [(each, *_store(each)) for each in wanted]
        whose = who or Who(by)
        publish = partial(services.publish, note=note, by=by, at=at, allowed_private=allowed_private, who=whose)
        changes, versions = [], []
        for each, row, change in stored:
            if isinstance(row, AssistantTemplate) and not draft and _is_news(row):
                try:
                    version = publish(template=row)
                except services.NotPublishable as refused:
                    raise NotImportable({f"{each.path}.{field}": sentence for field, sentence in refused.problems.items()}) from None
                versions.append(version.pk)
                change = Change(change.word, change.name, change.action, change.what, version.number)
            changes.append(change)
        trail.record("imported", actor=whose.actor, address=whose.address, subject="agents", detail=_told(changes), at=at)
        transaction.set_rollback(dry_run)
    return Imported(tuple(changes), () if dry_run else tuple(versions))


def _told(changes: Sequence[Change]) -> dict[str, list[str]]:
    """What the trail keeps of an import: the names of what it made and changed, and of the keys."""
    made = [f"{change.word} {change.name}" for change in changes if change.action == "created"]
    changed = [": ".join((f"{change.word} {change.name}", ", ".join(change.what))) for change in changes if change.action == "changed"]
    return {"created": made, "changed": changed}


def _known(draft: bool, allowed_private: Sequence[str]) -> dict[str, dict[str, str]]:
    """What the file may refer to without naming it, each with why not. A tool that is wrong cannot be published along."""
    known = {kind.listing: dict.fromkeys(kind.model._default_manager.values_list(kind.name, flat=True), "") for kind in KINDS}
    for tool in () if draft else Tool.objects.all():
        wrong = limits.tool_problems(services.tool_words(tool), allowed_private=allowed_private)
        known["tools"][tool.name] = " ".join(f"The stored tool's {field}: {sentence}" for field, sentence in wrong.items())
    return known


def _store(wanted: Wanted) -> tuple[Edited, Change]:
    kind = wanted.kind
    row = kind.model._default_manager.filter(**{kind.name: wanted.name}).first()
    is_new = row is None
    if row is None:
        row = kind.model(**{kind.name: wanted.name})
    what = [*_set(row, wanted)]
    if what or is_new:
        row.save()
    lists = [*_set_lists(row, wanted)]
    if isinstance(row, PhoneLine) and "template" in what and not is_new:
        services.settle_line(line_pk=row.pk)
    changed = tuple(dict.fromkeys([*what, *lists]))
    if is_new:
        return row, Change(kind.word, wanted.name, "created")
    return row, Change(kind.word, wanted.name, "changed" if changed else "unchanged", changed)


def _set(row: models.Model, wanted: Wanted) -> Iterator[str]:
    """Give the row its values and the single rows it refers to; tells which keys were different."""
    key_of: Mapping[str, str] = {name: key for key, name in wanted.kind.keys.items()} | dict.fromkeys(GRANTS.values(), "tools")
    for name, value in wanted.fields.items():
        if getattr(row, name) != value:
            setattr(row, name, value)
            yield key_of[name]
    for key, reference in wanted.kind.references.items():
        if not reference.many:
            rows = _rows(wanted, key)
            if getattr(row, f"{key}_id") != (rows[0].pk if rows else None):
                setattr(row, key, rows[0] if rows else None)
                yield key


def _set_lists(row: Edited, wanted: Wanted) -> Iterator[str]:
    for key, reference in wanted.kind.references.items():
        if reference.many:
            rows, related = _rows(wanted, key), getattr(row, key)
            if {each.pk for each in rows} != set(related.values_list("pk", flat=True)):
                row.touch()
                related.set(rows)
                yield key


def _rows(wanted: Wanted, key: str) -> list[models.Model]:
    """The rows a key names; they are stored by now."""
    kind = next(kind for kind in KINDS if kind.listing == wanted.kind.references[key].listing)
    return list(kind.model._default_manager.filter(**{f"{kind.name}__in": [name for _, name in wanted.named[key]]}))


def _is_news(template: AssistantTemplate) -> bool:
    """Whether callers hear something else than this draft, or nothing."""
    return template.published is None or bool(services.changes(template))
