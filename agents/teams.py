"""Whose is it: which rows somebody sees, by the team they belong to.

Who may see every team's things sees all of them. Whoever is in teams sees what belongs to these and nothing else; whoever is
in none sees what belongs to no team. What may be done with a row that is seen, permissions say (`calls.roles`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Model, Q, QuerySet

from agents.models import AssistantTemplate, HandoffTarget, PhoneLine, Team, TemplateVersion

EVERY_TEAM = "agents.see_every_team"
OWNER: Mapping[type[Model], str] = {  # the way from a row to its team; tools are everybody's
    Team: "pk",
    AssistantTemplate: "team",
    TemplateVersion: "template__team",
    PhoneLine: "team",
    HandoffTarget: "team",
}
REMEMBERED = "_sight"

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Sight:
    """Whose things somebody sees: everybody's, those of these teams, or with no teams those of nobody."""

    everything: bool = False
    teams: frozenset[int] = frozenset()

    def of(self, owner: str) -> Q:
        """The condition on rows that have their team at `owner`."""
        if self.everything:
            return Q()
        return Q(**{f"{owner}__in": self.teams}) if self.teams else Q(**{f"{owner}__isnull": True})


EVERYTHING = Sight(everything=True)


def sight_of(user: User | AnonymousUser) -> Sight:
    """What this person sees; asked of the database once for each request, as their permissions are."""
    known: dict[str, Any] = user.__dict__
    if REMEMBERED not in known:
        teams = () if user.has_perm(EVERY_TEAM) else Team.objects.filter(members=user.pk).values_list("pk", flat=True)
        known[REMEMBERED] = EVERYTHING if user.has_perm(EVERY_TEAM) else Sight(teams=frozenset(teams))
    sight: Sight = known[REMEMBERED]
    return sight


def seen(rows: QuerySet[M], sight: Sight) -> QuerySet[M]:
    """Those of the rows that are seen; all of them where the model belongs to nobody."""
    owner = OWNER.get(rows.model)
    return rows.filter(sight.of(owner)) if owner else rows
