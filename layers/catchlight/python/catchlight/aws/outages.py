"""Waits for the end of an outage of an AWS service within one invocation."""

import time

# The pauses between tries; the last one repeats. So the first try after an outage starts at most 15 s after its end.
PAUSES_SECONDS = (1, 2, 4, 8, 15)


class OutageWait:
    """Pauses between the tries of an invocation. `ends_by`: when the last try may start, on the monotonic clock."""

    def __init__(self, *, ends_by: float) -> None:
        self._ends_by = ends_by
        self._pauses = 0

    def pause(self) -> bool:
        """Sleeps before the next try. Returns False, without sleeping, if there is no time for one."""
        seconds = PAUSES_SECONDS[min(self._pauses, len(PAUSES_SECONDS) - 1)]
        if time.monotonic() + seconds > self._ends_by:
            return False
        time.sleep(seconds)
        self._pauses += 1
        return True

    def restart(self) -> None:
        """Makes the next pause the shortest one again, because a try has succeeded."""
        self._pauses = 0
