"""A room as programs see it: events in order, with a bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from .types import HistoryPage, Message, Position, RoomEvent, Skipped, Stored, Subscribed, Unsubscribed

if TYPE_CHECKING:
    from .client import Client

#: Events kept for a reader that is behind; above it the room is left, and resumed when half are read.
EVENTS_MAX = 1024


class Room:
    """A subscription. Read it, by `async for message in room` or by `events`: a room nobody reads is paused."""

    def __init__(self, client: Client, name: str, position: Position) -> None:
        self.name = name
        #: Last position handed to the program: keep it to resume after a restart.
        self.position = position
        self._client = client
        self._queue: deque[RoomEvent] = deque()
        self._wake = asyncio.Event()
        self._paused = self._over = False

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._messages()

    async def events(self) -> AsyncIterator[RoomEvent]:
        """Everything that happens here, in order, also what was skipped. Ends when the room is left."""
        while True:
            while self._queue:
                yield self._take()
            if self._over:
                return
            self._wake.clear()
            await self._wake.wait()

    async def publish(self, data: Any, *, key: str | None = None) -> Stored:
        return await self._client.publish(self.name, data, key=key)

    async def history(
        self, *, before: int | None = None, after: int | None = None, limit: int | None = None
    ) -> HistoryPage:
        return await self._client.history(self.name, before=before, after=after, limit=limit)

    def leave(self) -> None:
        """Ends the subscription at once."""
        self._client._leave(self)

    async def _messages(self) -> AsyncIterator[Message]:
        async for event in self.events():
            if isinstance(event, Message):
                yield event

    def _take(self) -> RoomEvent:
        event = self._queue.popleft()
        if isinstance(event, Message):
            self.position = Position(event.seq, self.position.epoch)
        elif isinstance(event, Skipped):
            self.position = Position(event.last, self.position.epoch)
        elif isinstance(event, Subscribed):
            self.position = Position(event.after, event.epoch)
        if self._paused and len(self._queue) <= EVENTS_MAX // 2:
            self._paused = False
            self._client._pause(self.name, False)
        return event

    def _deliver(self, event: RoomEvent) -> None:
        self._queue.append(event)
        if isinstance(event, Unsubscribed):
            self._over = True
        # Not the socket, which brings answers too: the room is left, and resumed where it was.
        if len(self._queue) >= EVENTS_MAX and not self._paused:
            self._paused = True
            self._client._pause(self.name, True)
        self._wake.set()

    def _end(self) -> None:
        self._over = True
        self._wake.set()
