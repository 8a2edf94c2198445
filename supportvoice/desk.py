"""The admin's site: Django's own, with every list and form held to one rule, whoever registers it, Django's users and groups too.

The rule: what an address or a form says is answered, left out or refused, and never breaks a page. Django checks what people
type into fields; it takes keys and filters as they come, and learns only from the database that no row can have them.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DataError, ProgrammingError
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse

from agents.forms import Rows, is_key

if TYPE_CHECKING:  # generic for the type checker only
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

UNANSWERABLE = (ValueError, TypeError, IndexError, OverflowError, DataError, ProgrammingError)  # what a filter's odd value becomes

PATTERNS = {"regex", "iregex"}


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
        guarded = super().admin_view(view, cacheable)

        @wraps(guarded)
        def inner(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.user.is_authenticated and not self.has_permission(request):
                raise PermissionDenied
            answer: HttpResponse = guarded(request, *args, **kwargs)
            return answer

        return inner

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        own = admin_class or ModelAdmin
        careful = type(own.__name__, (CarefulAdmin, own), {"__module__": own.__module__, "__doc__": own.__doc__})
        super().register(model_or_iterable, careful, **options)
