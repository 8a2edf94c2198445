"""Of two people who edit one row the second is told, and nothing of either is lost: saving again is a decision then.

A page holds when its row was last changed, as it was read. Whether that still holds is asked by an UPDATE of the row as it was
then, in the transaction that saves. A page that does not say, like one from before an upgrade or a form somebody wrote by hand,
may be as old as can be: its person is told too.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS
from django.db.models import F, Model, QuerySet

if TYPE_CHECKING:  # generic for the type checker only
    ModelForm = forms.ModelForm[Any]
    ModelFormSet = forms.BaseModelFormSet[Any, Any]
else:
    ModelForm, ModelFormSet = forms.ModelForm, forms.BaseModelFormSet

CODE = "changed-meanwhile"
CHANGED_MEANWHILE = (
    "Somebody else has saved this {thing} since you opened it, so nothing was saved. What you wrote is still here: "
    "open the {thing} in another window to see the other change, then save again to replace it with yours."
)

UNKNOWN_MEANWHILE = (
    "This page does not say when it was opened, so somebody else may have saved this {thing} since, and nothing was saved. "
    "What you wrote is still here: open the {thing} in another window to see it as it is now, then save again to replace it with yours."
)


def changed_meanwhile(row: Model | type[Model]) -> str:
    """What the second person is told."""
    return CHANGED_MEANWHILE.format(thing=row._meta.verbose_name)


def unknown_meanwhile(row: Model | type[Model]) -> str:
    """What somebody is told whose page does not say when it was read."""
    return UNKNOWN_MEANWHILE.format(thing=row._meta.verbose_name)


class AsRead(forms.CharField):
    """When the row was last changed, as it was read. Nobody types it, so it is no change of the row."""

    widget = forms.HiddenInput

    def __init__(self) -> None:
        super().__init__(required=False, label="")

    def has_changed(self, initial: Any, data: Any) -> bool:
        return False


class SharedForm(ModelForm):
    """A form of an `Edited` row, which somebody else may have open too."""

    as_read = AsRead()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["as_read"] = _said(self.instance.changed_at)  # of what is shown, not of what is stored by now

    def clean_as_read(self) -> str:
        """Asked again with the newer moment, this passes: the second person has been told."""
        read: str = self.cleaned_data["as_read"]
        if self.instance.pk and not self._is_as(read):
            sent: Any = self.data  # of a request: no plain mapping, but one that copies its lists
            self.data = sent = sent.copy()
            sent[self.add_prefix("as_read")] = _said(self._changed_at())
            sentence = changed_meanwhile if read else unknown_meanwhile
            raise forms.ValidationError(sentence(self.instance), code=CODE)
        return read

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "as_read" in self.errors:  # hidden, so said on top
            self.add_error(None, self.errors.pop("as_read").as_data())  # with their codes
        return cleaned

    @property
    def is_overtaken(self) -> bool:
        """Whether somebody else has saved this row since it was read, or may have, and its person was told just now."""
        return self.has_error(NON_FIELD_ERRORS, code=CODE)

    def _is_as(self, read: str) -> bool:
        """Whether the row is as it was read; if so, nobody else changes it before the transaction that saves this form is over.

        To look alone would not do: of two who save at one moment both would find what they read. The second one's UPDATE waits for the
        first one's transaction, and then counts no row.
        """
        stored = self._changed_at()
        return _said(stored) == read and self._row().filter(changed_at=stored).update(changed_at=F("changed_at")) == 1

    def _changed_at(self) -> datetime | None:
        found: datetime | None = self._row().values_list("changed_at", flat=True).first()
        return found

    def _row(self) -> QuerySet[Any]:
        rows: QuerySet[Any] = type(self.instance)._default_manager.filter(pk=self.instance.pk)
        return rows


class SharedList(ModelFormSet):
    """Forms of several rows. Everybody asks for theirs in one order, so that no two people wait for each other's.

    A row that somebody has deleted since it was shown is left out, or the list could never be saved again.
    """

    def full_clean(self) -> None:
        if self.is_bound:
            self.forms = [form for form in self.forms if form.instance.pk]
        for form in sorted(self.forms, key=lambda form: form.instance.pk or 0):
            form.is_valid()
        super().full_clean()


def _said(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""
