"""What each role may do, as one table. A role is a Django group of this name; people get one by `add_user` or in the admin.

Permissions stand as `app.codename`; a star stands for any. The table makes the roles once, by migration. After that whoever
runs the house may grant a role more or less in the admin: nothing puts it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

SEE_CALLS = "calls.view_callsession"
READ_WORDS = "calls.read_transcript"
LISTEN = "calls.listen"
STEP_IN = "calls.step_in"
SEE_REPORTS = "calls.see_reports"
EXPORT_CALLS = "calls.export_calls"
ERASE_PERSON = "calls.erase_person"
SEE_TRAIL = "agents.view_auditentry"

_EDITED = ("assistanttemplate", "phoneline", "handofftarget", "tool")
_OPS = (SEE_CALLS, READ_WORDS, STEP_IN)

ROLES: Mapping[str, tuple[str, ...]] = {
    "admin": ("auth.*", "agents.*", "calls.*"),
    "manager": (*(f"agents.*_{model}" for model in _EDITED), "agents.view_templateversion", SEE_CALLS, "calls.view_callmetrics"),
    "ops": _OPS,
    "supervisor": (*_OPS, LISTEN, SEE_REPORTS, EXPORT_CALLS),
    "auditor": (
        *("auth.view_user", "auth.view_group", "agents.view_*", "calls.view_*", "agents.see_every_team"),
        *(READ_WORDS, LISTEN, SEE_REPORTS, EXPORT_CALLS),
    ),
}
AT_THE_DESK = frozenset({"admin", "manager", "auditor"})  # roles whose work is in the admin


def names_of(role: str, known: Iterable[str]) -> set[str]:
    """Those of the known permissions that the table gives a role."""
    return {name for name in known if any(fnmatchcase(name, pattern) for pattern in ROLES[role])}


def make(role: str, *, groups: type[Any], permissions: type[Any]) -> Any:
    """The group of a role, with all the table gives it. The models are given: a migration has its own."""
    known = {f"{each.content_type.app_label}.{each.codename}": each for each in permissions.objects.select_related("content_type")}
    group, _ = groups.objects.get_or_create(name=role)
    group.permissions.add(*(known[name] for name in names_of(role, known)))
    return group
