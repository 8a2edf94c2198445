"""What a thread gives back before it waits for somebody else's server; what the pool has then is `tests.races.test_lent`'s."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from bridge import waiting
from calls.models import SpoolMark
from supportvoice import lent

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_is_done_in_an_open_transaction_is_kept() -> None:
    with transaction.atomic():
        SpoolMark.objects.create(name="mine", number=1)
        waiting.give_back()
        SpoolMark.objects.filter(name="mine").update(number=2)
    assert SpoolMark.objects.get(name="mine").number == 2


def test_every_process_says_how_it_is_done() -> None:
    assert waiting.give_back is lent.give_back


def test_only_a_connection_without_a_pool_stays_with_its_thread() -> None:
    connection.ensure_connection()
    kept = connection.connection
    waiting.give_back()
    assert (connection.connection is kept) == (connection.vendor == "sqlite")
