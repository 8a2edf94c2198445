"""Log-ins with a role, made by whoever runs the server. What may be wrong is said in one sentence, before anything is kept."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import Group, Permission, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from agents import trail
from agents.models import Team
from calls import roles


class NotAdded(Exception):
    """There is no such log-in afterwards; the text says why."""


def team_of(slug: str) -> Team | None:
    """The team of this slug; None for no slug. Raises NotAdded."""
    if not slug:
        return None
    team = Team.objects.filter(slug=slug).first()
    if team is None:
        raise NotAdded(f"There is no team “{slug}”.")
    return team


def check_name(name: str) -> None:
    """Raises NotAdded for a name that cannot be had."""
    if User.objects.filter(username=User.normalize_username(name)).exists():
        raise NotAdded(f"There is a log-in “{name}” already.")
    try:
        User._meta.get_field("username").clean(name, None)
    except ValidationError as wrong:
        raise NotAdded(" ".join(wrong.messages)) from None


def add(*, name: str, role: str, team: Team | None, password: str, at: datetime) -> User:
    """A new log-in with a role, in a team if one is given. Raises NotAdded."""
    check_name(name)
    person = User(username=User.normalize_username(name), is_staff=role in roles.AT_THE_DESK)
    try:
        validate_password(password, person)
    except ValidationError as wrong:
        raise NotAdded(" ".join(wrong.messages)) from None
    person.set_password(password)
    try:
        with transaction.atomic():
            person.save()
            person.groups.add(Group.objects.filter(name=role).first() or roles.make(role, groups=Group, permissions=Permission))
            if team is not None:
                team.touch()
                team.members.add(person)
            given = {"role": role, "team": team.slug if team else ""}
            trail.record("user-added", actor=trail.Who.at_the_shell().actor, subject=f"user {person.get_username()}", detail=given, at=at)
    except IntegrityError:  # somebody was faster
        raise NotAdded(f"There is a log-in “{name}” already.") from None
    return person
