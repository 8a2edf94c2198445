"""The times one call is played by, in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    instant: bool = True
    greeting_interruptible: bool = True
    agent_speaks_first: bool = True
    zero_for_person: bool = True
    keypad_digits: int = 0  # what the caller types is told to the agent, so many digits at once; 0: it is not
    keypad_end: str = "#"  # the key that ends an entry
    keypad_pause: float = 3.0  # so does this long without a key
    debounce: float = 0.5
    confirm: float = 0.6
    filler_after: float = 0.75  # 0.04 s until it is loud enough and 0.2 s of way to the ear: within a second
    agent_within: float = 5.0
    first_sound_after: float = 1.0  # of a connected agent; 0.55 to 0.8 s was measured
    fill_gap_after: float = 0.06
    new_turn_after_gap: float = 0.3
    turn_told_within: float = 1.0  # of an interruption, by a vendor that tells of turns
    last_sentence_within: float = 2.5
    drain_within: float = 20.0
    backlog_limit: int = 5 * 8000  # bytes
    probe_after: float = 1.5  # of no word from Twilio; with `probe_within` the 3 s of LADDER's C8
    probe_within: float = 1.5
    idle_probe_after: float = 1.0  # of no mark on its way: whether what we send arrives
    overdue_after: float = 2.0  # a mark, from when its sound should have been heard
    read_first: float = 0.25
    keys_noted_every: float = 1.0
    tell_heard: bool = True
    cut_line_within: float = 1.0  # the vendor's line of a cut turn
    trouble_after: float = 4.0  # of dead air
    lost_after: float = 8.0
    ask_after: float = 3.0  # of nobody saying anything, once the caller was not understood
    ask_after_gap: float = 2.0  # of the same, once the line was gone for a moment
    longer_than_noise: float = 0.8  # speech without a word
    longest_moment: float = 20.0  # for which a caller asks
    tool_within: float = 5.0
    caller_breath: float = 1.5  # a longer silence before the caller speaks again was a wait for the agent
    stuck_after: float = 1.0
    longest: float = 0.0  # one session of the agent; 0: nobody says
    goes_on: bool = False  # then, with the next session; else the agent says goodbye
    time_is_up: str = ""
