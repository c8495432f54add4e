"""How long to wait before coming back, each client at another time. Pure but for the two functions it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: First and longest window of the random pause before a reconnect, seconds.
WINDOWS = (0.2, 10.0)
#: A gateway that refuses is left alone for as long as it says, up to this: some proxy may tell an hour.
RETRY_AFTER_MAX = 300.0
#: Part of it that is added by chance: a crowd was told the same full seconds.
RETRY_AFTER_SPREAD = 0.5


class Backoff:
    def __init__(
        self,
        urls: Sequence[str],
        random: Callable[[], float],
        now: Callable[[], float],
        windows: tuple[float, float] = WINDOWS,
    ) -> None:
        self.failures = 0
        self._urls, self._random, self._now, self._windows = urls, random, now, windows
        self._next = 0
        # gateways that refused and said for how long
        self._closed: dict[str, float] = {}

    def refused(self, url: str, after: float) -> None:
        """Never asked before `after` seconds, and later by chance, as all that came together were told the same."""
        spread = 1 + RETRY_AFTER_SPREAD * self._random()
        self._closed[url] = self._now() + min(after, RETRY_AFTER_MAX) * spread

    def pause(self) -> float:
        """At random in a window that doubles when all gateways have failed; after a failure in its second half."""
        first, longest = self._windows
        window = min(first * 2 ** min(self.failures // len(self._urls), 16), longest)
        return float(window * (0.5 + self._random() / 2 if self.failures else self._random()))

    def choose(self, pause: float) -> tuple[str, float]:
        """Where the next attempt goes, and after how long: to the gateway that may be asked first."""
        now, count = self._now(), len(self._urls)
        places = [(self._next + step) % count for step in range(count)]
        opens = {place: max(pause, self._closed.get(self._urls[place], 0.0) - now) for place in places}
        place = min(places, key=lambda place: opens[place])
        self._next = place + 1  # the next attempt goes elsewhere, whatever becomes of this one
        return self._urls[place], opens[place]
