"""The admin's site: Django's own, with every list and form held to two rules, whoever registers it, Django's users and groups too.

What an address or a form says is answered, left out or refused, and never breaks a page. Django checks what people type into
fields; it takes keys and filters as they come, and learns only from the database that no row can have them.
Whatever is added, changed or deleted here is told to the trail, in one transaction with the change: the names of the fields,
never what is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import Group, User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DataError, ProgrammingError, transaction
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from agents import trail
from agents.forms import Rows, is_key
from agents.models import Team

if TYPE_CHECKING:  # generic for the type checker only
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

UNANSWERABLE = (ValueError, TypeError, IndexError, OverflowError, DataError, ProgrammingError)  # what a filter's odd value becomes

PATTERNS = {"regex", "iregex"}
NAMED_BY = ("username", "slug", "name")


def standing(row: Model) -> dict[str, Any]:
    """Who may do what from now on, where that is what a row says."""
    match row:
        case User():
            rights = [*row.groups.values_list("name", flat=True)], [*row.user_permissions.values_list("codename", flat=True)]
            flags = {"superuser": row.is_superuser, "staff": row.is_staff, "active": row.is_active}
            return {"roles": rights[0], "rights": rights[1], **flags}
        case Group():
            return {"rights": [*row.permissions.values_list("codename", flat=True)]}
        case Team():
            return {"members": [*row.members.order_by("pk").values_list("username", flat=True)]}
    return {}


def subject_of(row: Model) -> str:
    """A row as the trail names it: 'agent support', 'user ada'."""
    name = next((value for field in NAMED_BY if (value := getattr(row, field, ""))), str(row))
    return f"{row._meta.verbose_name} {name}"


def changed_fields(message: Iterable[Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """The fields in Django's own list of what a form changed, as the form calls them."""
    for part in message:
        for verb, told in part.items():
            of = f"{told['name']}: " if "name" in told else ""
            yield from (f"{of}{field}" for field in told.get("fields", [verb] if of else []))


class CarefulAdmin(ModelAdmin):
    """Stands before each class of the site."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        keys = (value for name, values in request.POST.lists() if name == "_selected_action" or name.endswith("-id") for value in values)
        if not all(map(is_key, keys)):
            raise SuspiciousOperation("A key no row can have.")
        return super().changelist_view(request, extra_context)

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """The list an address asks for; the whole list and a word about it when the address makes no sense."""
        try:
            return super().get_changelist_instance(request)
        except UNANSWERABLE:
            if not request.GET:
                raise
            raise IncorrectLookupParameters from None

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Patterns of strangers are not run over every row: a bad one is a failure of the database, a clever one never ends."""
        return not PATTERNS.intersection(lookup.split("__")) and super().lookup_allowed(lookup, value, request)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        return super().get_object(request, object_id, from_field or None)

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponse:
        """A row that is not there, or not for this user, has no page."""
        raise Http404

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return super().formfield_for_manytomany(db_field, request, **{"form_class": Rows, **kwargs})

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        tell(request, "added", obj, standing(obj))
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """`message` is Django's list of changed fields, empty when there are none; a sentence when a service of ours told it already."""
        if message and not isinstance(message, str):
            tell(request, "changed", obj, {"fields": [*changed_fields(message)], **standing(obj)})
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for row in queryset:
            tell(request, "deleted", row, {})
        return super().log_deletions(request, queryset)


def tell(request: HttpRequest, action: str, row: Model, detail: Mapping[str, Any]) -> None:
    who = trail.Who.asking(request)
    trail.record(action, actor=who.actor, address=who.address, subject=subject_of(row), detail=detail, at=timezone.now())


def all_or_nothing(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """What a form changes, and what the trail says of it, are one transaction."""

    @wraps(view)
    def whole(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        with transaction.atomic() if request.method == "POST" else nullcontext():
            return view(request, *args, **kwargs)

    return whole


class DeskSite(admin.AdminSite):
    site_title = site_header = "supportvoice"
    index_title = "Editing desk"

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """No door of its own: there is one log-in, with one set of brakes. Who came in by it and may not be here is told so."""
        if request.user.is_authenticated and not self.has_permission(request):
            raise PermissionDenied
        return redirect_to_login(request.GET.get("next") or reverse("admin:index"), reverse("console:login"))

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Who is logged in and has no work here is told so; a second log-in would help nobody."""
        guarded = super().admin_view(all_or_nothing(view), cacheable)

        @wraps(guarded)
        def inner(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.user.is_authenticated and not self.has_permission(request):
                raise PermissionDenied
            answer: HttpResponse = guarded(request, *args, **kwargs)
            return answer

        return inner

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Django's own page for one's own password, which tells nobody."""
        answer = super().password_change(request, extra_context)
        if request.method == "POST" and answer.status_code == 302:
            tell(request, "changed", cast(User, request.user), {"fields": ["password"]})
        return answer

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        own = admin_class or ModelAdmin
        careful = type(own.__name__, (CarefulAdmin, own), {"__module__": own.__module__, "__doc__": own.__doc__})
        super().register(model_or_iterable, careful, **options)
