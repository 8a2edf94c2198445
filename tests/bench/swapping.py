"""A relay that tells Vapi two frames of each fifty the wrong way round."""

from __future__ import annotations

from supportvoice.bench.relays.bare import FromTwilio, main


class Swapping(FromTwilio):
    frames = 0
    kept = b""

    def to_vapi(self, sound: bytes) -> None:
        self.frames += 1
        if self.frames % 50 == 0:
            self.kept = sound
            return
        super().to_vapi(sound)
        if self.kept:
            super().to_vapi(self.kept)
            self.kept = b""


if __name__ == "__main__":
    main(Swapping)
