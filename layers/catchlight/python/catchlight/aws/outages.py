"""Waits for the end of an outage of an AWS service within one invocation."""

import time

# Seconds. The first try after an outage comes 15 s after its end at the latest.
PAUSES_SECONDS = (1, 2, 4, 8, 15)


class OutageWait:
    """Pauses between the tries of an invocation, until too little of its time is left for another try.

    `ends_by` is that moment, on the monotonic clock in seconds.
    """

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
        """Makes the next pause short again, because a try had success."""
        self._pauses = 0
