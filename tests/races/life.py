"""A serving process as far as its lease goes: the product's own lifeguard, and no sockets. The product's own parent starts it."""

from __future__ import annotations

import argparse
import socket
import uuid

import django

from supportvoice.lifeline import die_with_parent


class Obliging:
    """Twilio, which takes every redirect. What was asked of it stands in the event log of the call."""

    def redirect(self, call_sid: str, url: str, account_sid: str = "") -> bool:
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--listening", "--lifeline", "--parent"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--boot", type=uuid.UUID, required=True)
    given = parser.parse_args()
    die_with_parent(given.parent)
    django.setup()
    from calls import lifeguard, publisher, rescue  # only after the set-up
    from tests.builders import QuietPublisher

    publisher.install(QuietPublisher())
    guard = lifeguard.Lifeguard(rescue.Life(), boot=given.boot, is_well=lambda: True, twilio=Obliging)
    guard.start()
    lifeline = socket.socket(fileno=given.lifeline)
    lifeline.sendall(b"r")
    while lifeline.recv(1):
        continue
    guard.stop()


if __name__ == "__main__":
    main()
