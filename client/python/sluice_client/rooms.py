"""Subscriptions: where each began, how far it has come, what the server was asked. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .types import Gap, Joined, Left, Message, Position, RoomEvent, Skipped, Stale, Subscribed, Unsubscribed

Frame = dict[str, Any]


@dataclass(slots=True)
class _Followed:
    after: int | None
    epoch: str | None
    #: It is also told who comes and goes.
    watches: bool
    #: The `sub` without an answer. Until it is there no message is taken: it may be of before.
    asked: int | None = None
    #: Left for a while, as its reader is behind.
    paused: bool = False
    #: Whether the first answer was there.
    stands: bool = False


class Later(Exception):
    """An answer that can be had from another connection."""


class Rooms:
    def __init__(self, next_id: Callable[[], int]) -> None:
        self._all: dict[str, _Followed] = {}
        self._next_id = next_id

    def open(self, name: str, at: Position, watches: bool, connected: bool) -> str | None:
        """A new subscription; its frame, if there is somebody to send it to."""
        room = self._all[name] = _Followed(at.after, at.epoch, watches)
        return self._frame(name, room) if connected else None

    def close(self, name: str, keeps: bool) -> bool:
        """Forgets a room, or with `keeps` only pauses it; whether the server has to be told."""
        room = self._all.get(name)
        if room is None:
            return False
        was_paused, room.paused, room.asked = room.paused, True, None
        if not keeps:
            del self._all[name]
        return not was_paused

    def resume(self, name: str, connected: bool) -> str | None:
        room = self._all.get(name)
        if room is None or not room.paused:
            return None
        room.paused = False
        return self._frame(name, room) if connected else None

    def ask_all(self) -> list[str]:
        """The frames that resume every subscription on a new connection."""
        return [self._frame(name, room) for name, room in self._all.items() if not room.paused]

    def asking(self) -> bool:
        return any(room.asked is not None for room in self._all.values())

    def _frame(self, name: str, room: _Followed) -> str:
        room.asked = self._next_id()
        frame: Frame = {"sub": name}
        if room.after is not None:
            frame["after"] = room.after
        if room.epoch is not None:
            frame["epoch"] = room.epoch
        if room.watches:
            frame["presence"] = True
        return json.dumps({**frame, "id": room.asked})

    def answer(self, frame: Frame) -> list[RoomEvent]:
        """The answer to a `sub`."""
        found = next((item for item in self._all.items() if item[1].asked == frame["id"]), None)
        if found is None:
            return []
        name, room = found
        error = frame.get("error")
        if error and error["retry"]:
            raise Later(error["message"])
        if error:
            del self._all[name]
            return [Unsubscribed(name, error["code"], error["message"])]
        resumed, room.asked, room.stands = room.stands, None, True
        events: list[RoomEvent] = [_stand(room, frame, resumed)]
        # Who came and left meanwhile was told to nobody.
        return events + [Stale(name)] if resumed and room.watches else events

    def moved(self, frame: Frame) -> RoomEvent | None:
        """An `ok` of `sub` that nobody asked for: the room has a new history."""
        room = self._all.get(frame["room"])
        return _stand(room, frame, True) if room and not room.paused else None

    def ended(self, frame: Frame) -> RoomEvent | None:
        """The server has ended a subscription. A `sub` that is on its way asks for a new one."""
        name = frame["unsubscribed"]
        room = self._all.get(name)
        if room is None or room.asked is not None:
            return None
        del self._all[name]
        return Unsubscribed(name, frame["code"], frame["reason"])

    def delivery(self, frame: Frame) -> RoomEvent | None:
        """What came unasked, if it belongs to a subscription that stands."""
        verb = next((verb for verb in ("msg", "skipped", "join", "leave", "stale") if verb in frame), "")
        name = frame.get(verb, "")
        room = self._all.get(name)
        if room is None or room.asked is not None or room.paused or room.after is None:
            return None
        if verb == "msg":
            seq = frame["seq"]
            if seq <= room.after:
                return None  # it came before
            if seq != room.after + 1:
                return Gap(name, room.after + 1, seq)
            room.after = seq
            return message(frame)
        if verb == "skipped":
            if frame["to"] <= room.after:
                return None
            room.after = frame["to"]
            return Skipped(name, frame["from"], frame["to"])
        if not room.watches:
            return None
        if verb == "join":
            return Joined(name, frame["user"], frame["at"], frame.get("info"))
        return Left(name, frame["user"], frame["at"]) if verb == "leave" else Stale(name)


def message(frame: Frame) -> Message:
    return Message(frame["msg"], frame["seq"], frame["from"], frame["at"], frame["data"], frame.get("key"))


def _stand(room: _Followed, frame: Frame, resumed: bool) -> Subscribed:
    room.after, room.epoch = frame["after"], frame["epoch"]
    return Subscribed(frame["room"], frame["after"], frame["head"], frame["epoch"], frame["recovered"], resumed)
