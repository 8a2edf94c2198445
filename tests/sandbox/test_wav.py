"""The tape of a call: both directions, in step."""

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from bridge.sandbox import sound, wav


def test_the_caller_is_left_what_they_heard_is_right_and_both_stay_in_step(tmp_path: Path) -> None:
    caller, heard = sound.tone(100), sound.silence(200) + sound.tone(100, hertz=440)
    path = wav.write(tmp_path / "deep" / "call.wav", wav.stereo(caller, heard))
    with wave.open(str(path)) as tape:
        assert (tape.getnchannels(), tape.getsampwidth(), tape.getframerate(), tape.getnframes()) == (2, 2, 8000, 2400)
        frames = np.frombuffer(tape.readframes(2400), dtype="<i2").reshape(-1, 2)
    assert np.array_equal(frames[:800, 0], sound.decode(caller))
    assert not frames[800:, 0].any()
    assert np.array_equal(frames[:, 1], sound.decode(heard))


@pytest.mark.parametrize("ulaw", [b"", b"\x00", b"\xff" * 161])
def test_any_length_makes_a_file(ulaw: bytes) -> None:
    for content in (wav.mono(ulaw), wav.stereo(ulaw, b"")):
        with wave.open(io.BytesIO(content)) as tape:
            assert tape.getnframes() == len(ulaw)
