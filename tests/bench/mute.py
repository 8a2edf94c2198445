"""A relay that takes a caller and tells nobody."""

from __future__ import annotations

from typing import Any

from supportvoice.bench.relays.bare import FromTwilio, main


class Mute(FromTwilio):
    def hear(self, message: dict[str, Any]) -> None:
        """Nothing follows."""


if __name__ == "__main__":
    main(Mute)
