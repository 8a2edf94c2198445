"""What one person may see of calls. A page, and the socket that keeps it up to date, show by the same few answers.

What was said is more than what happened: without `words`, nothing is read of it. A message that a caller left is the caller's
words; a recording of a whole call takes a permission of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AnonymousUser, User

from agents.teams import EVERYTHING as EVERY_TEAM
from agents.teams import Sight, sight_of
from calls import roles
from calls.models import Recording, RecordingKind


@dataclass(frozen=True, slots=True)
class Viewer:
    sight: Sight
    words: bool
    listens: bool

    @property
    def mark(self) -> str:
        """The same for two views exactly if they show the same: a page tells its socket by it what it was made for."""
        return f"{self.words:d}{self.listens:d}{self.sight.everything:d}-{'.'.join(map(str, sorted(self.sight.teams)))}"

    def may_hear(self, sound: Recording) -> bool:
        return self.words if sound.kind == RecordingKind.VOICEMAIL else self.listens

    @property
    def of_no_team(self) -> bool:
        """Whether what belongs to no team, and so to no call of one, is theirs to see."""
        return not self.sight.teams


EVERYTHING = Viewer(EVERY_TEAM, words=True, listens=True)


def viewer_of(user: User | AnonymousUser) -> Viewer:
    return Viewer(sight_of(user), words=user.has_perm(roles.READ_WORDS), listens=user.has_perm(roles.LISTEN))
