"""What programs see: messages, events, answers. No code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Union


class SluiceError(Exception):
    """Why a call failed. `code`: one of the server's, or `closed`, `busy`, `invalid`, `too_large`, `unknown`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Position:
    """Where a subscription begins: nothing = with the next message; after 0 = with the first."""

    after: int | None = None
    #: The history `after` belongs to; a server with another one says `recovered=False`.
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    room: str
    #: One more than that of the message before it.
    seq: int
    sender: str
    #: When it was stored, milliseconds since 1970.
    at: int
    data: Any
    #: The sender's key, if it chose one.
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Messages `first` to `last` are gone and will not come."""

    room: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The answer to a subscription: the next message is `after + 1`."""

    room: str
    after: int
    head: int
    epoch: str
    #: False: something may be missing before `after`; look with `history`.
    recovered: bool
    #: Not the first answer: a reconnect, or a new history.
    resumed: bool


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The subscription is over: it was refused, or the server ended it. It will not be tried again."""

    room: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Joined:
    """A user's first connection came into a room that is watched."""

    room: str
    user: str
    at: int
    info: Any = None


@dataclass(frozen=True, slots=True)
class Left:
    """A user's last connection has left a room that is watched."""

    room: str
    user: str
    at: int


@dataclass(frozen=True, slots=True)
class Stale:
    """Joins and leaves may have been missed: ask again who is there, after a random time below two seconds."""

    room: str


@dataclass(frozen=True, slots=True)
class Gap:
    """The server broke its promise: this is not the next message. The room is resumed, and nothing skipped."""

    room: str
    expected: int
    seq: int


RoomEvent = Union[Message, Skipped, Subscribed, Unsubscribed, Joined, Left, Stale, Gap]


@dataclass(frozen=True, slots=True)
class Connected:
    user: str
    instance: str
    #: From another gateway, which still served.
    moved: bool
    #: The history that positions belong to.
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """The gateway stops; the client moves to another."""

    reason: str
    within_ms: int
    reconnect_ms: int


@dataclass(frozen=True, slots=True)
class Bye:
    """Last words before a close."""

    code: int
    reason: str
    reconnect: bool
    reconnect_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection has ended. `code`: None when it broke off."""

    code: int | None
    reason: str
    reconnects: bool


@dataclass(frozen=True, slots=True)
class Reconnecting:
    attempt: int
    pause_s: float


@dataclass(frozen=True, slots=True)
class Token:
    """An anonymous user's token: present it later to stay who you are."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Error:
    """An error that answers no call."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    reason: str


ClientEvent = Union[Connected, Drain, Bye, Closed, Reconnecting, Token, Error, Ended]


@dataclass(frozen=True, slots=True)
class Stored:
    seq: int
    key: str


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A message that waits until `due`, milliseconds since 1970; `key` takes it back."""

    due: int
    key: str


@dataclass(frozen=True, slots=True)
class HistoryPage:
    #: Oldest first.
    messages: list[Message]
    #: Arguments for `history` that go on, if the room has more in this direction.
    more: dict[str, int] | None


@dataclass(frozen=True, slots=True)
class PresentUser:
    user: str
    connections: int
    since: int
    info: Any = None


@dataclass(frozen=True, slots=True)
class PresencePage:
    users: list[PresentUser]
    count: int
    connections: int
    more: bool
