"""A relay that forgets one frame of each fifty."""

from __future__ import annotations

from supportvoice.bench.relays.bare import FromTwilio, main


class Dropping(FromTwilio):
    frames = 0

    def to_vapi(self, sound: bytes) -> None:
        self.frames += 1
        if self.frames % 50:
            super().to_vapi(sound)


if __name__ == "__main__":
    main(Dropping)
