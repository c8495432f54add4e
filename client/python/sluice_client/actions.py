"""What the machine of a client wants done: its driver does it, in order. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Union

from .rooms import Frame
from .types import ClientEvent, RoomEvent

TimerName = Literal["dial", "welcome", "quiet", "fence", "old", "renew"]


@dataclass(frozen=True, slots=True)
class Dial:
    conn: int
    url: str


@dataclass(frozen=True, slots=True)
class Send:
    conn: int
    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """With 1000 it is a goodbye; without a code the user may come back."""

    conn: int
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Timer:
    """Replaces the timer of this name; without seconds it stops it."""

    name: TimerName
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Tell:
    event: ClientEvent | RoomEvent


@dataclass(frozen=True, slots=True)
class Settle:
    """The outcome of the call with this id."""

    id: int
    frame: Frame


@dataclass(frozen=True, slots=True)
class Renew:
    """A new token is wanted: answer by `refresh` or `no_token`, with this number."""

    n: int


Action = Union[Dial, Send, Close, Timer, Tell, Settle, Renew]
