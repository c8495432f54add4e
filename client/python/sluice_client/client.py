"""The driver: owns connections, timers and futures, and lets the machine decide."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from .actions import Close, Dial, Renew, Send, Settle, Tell, Timer
from .backoff import WINDOWS
from .machine import Machine
from .room import Room
from .rooms import message
from .types import (
    ClientEvent, Connected, Ended, Error, Gap, HistoryPage, Joined, Left, Message, Position, PresencePage, PresentUser,
    RoomEvent, Scheduled, Skipped, SluiceError, Stale, Stored, Subscribed, Token, Unsubscribed,
)

TokenSource = Union[str, None, Callable[[], Union[str, None, Awaitable[Union[str, None]]]]]

#: `limits.data_bytes` of the protocol: a larger frame would end the connection.
DATA_BYTES_MAX = 65_536
ROOM_BYTES_MAX, KEY_BYTES_MAX = 129, 128
#: Publishes without an answer; as many more may wait for their place.
OUTBOX_MAX = 4_096
#: Questions (history, presence, ping) without an answer.
REQUESTS_MAX = 256
#: Largest frame read: a page of 256 messages of 64 KiB, and their names.
READ_BYTES_MAX = 24 * 1024 * 1024
#: A goodbye waits this long for the server's own, seconds.
CLOSE_S = 1.0

log = logging.getLogger("sluice_client")


@dataclass(eq=False)
class _Wire:
    """A connection, from its first packet on."""

    task: asyncio.Task[None] | None = None
    socket: ClientConnection | None = None
    #: Frames to send before anything of the outbox: subscriptions, questions.
    frames: deque[str] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


def connect(
    url: str,
    *others: str,
    token: TokenSource = None,
    on_event: Callable[[ClientEvent], None] | None = None,
    backoff: tuple[float, float] = WINDOWS,
    outbox_max: int = OUTBOX_MAX,
) -> Client:
    """Connects, and stays connected until `close`. Rooms and publishes need not wait for it.

    `token`: a token, or what gets one: it is called for every connection, and before a token expires.
    """
    return Client([url, *others], token, on_event, backoff, outbox_max)


class Client:
    """Made by `connect`, inside a running loop."""

    def __init__(
        self,
        urls: Sequence[str],
        token: TokenSource,
        on_event: Callable[[ClientEvent], None] | None,
        backoff: tuple[float, float],
        outbox_max: int,
    ) -> None:
        #: Who the server says this is.
        self.user: str | None = None
        self._loop = asyncio.get_running_loop()
        self._token, self._on_event, self._outbox_max = token, on_event, outbox_max
        self._machine = Machine(urls, random.random, time.time, backoff, callable(token))
        self._rooms: dict[str, Room] = {}
        self._wires: dict[int, _Wire] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        # Publishes that wait for a place in the outbox.
        self._queued: deque[tuple[str, asyncio.Future[dict[str, Any]]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._flushing = False
        self._machine.start()
        self._flush()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def ended(self) -> bool:
        return self._machine.ended

    @property
    def unanswered(self) -> int:
        """Publishes without an answer."""
        return self._machine.unanswered + len(self._queued)

    def room(
        self, name: str, *, after: int | None = None, epoch: str | None = None, presence: bool = False
    ) -> Room:
        """Subscribes to a room; a second call returns the same one. `presence`: also tell who comes and goes."""
        if name in self._rooms:
            return self._rooms[name]
        _check_name("a room", name, ROOM_BYTES_MAX)
        position = Position(after, epoch)
        room = self._rooms[name] = Room(self, name, position)
        self._machine.subscribe(name, position, presence)
        self._flush()
        return room

    async def publish(self, room: str, data: Any, *, key: str | None = None) -> Stored:
        """Returns when the message is stored. It is sent, and sent again under the same key, until there is a final
        answer; the order of calls is the order in the room. To pipeline, use `submit`."""
        return await self.submit(room, data, key=key)

    def submit(self, room: str, data: Any, *, key: str | None = None) -> asyncio.Future[Stored]:
        """Puts a publish into the outbox; what is returned gives the outcome, and need not be awaited."""
        key = key or secrets.token_hex(16)
        stored: asyncio.Future[Stored] = self._loop.create_future()

        def settle(done: asyncio.Future[dict[str, Any]]) -> None:
            error = done.exception()
            if stored.done():
                return  # whoever waited was cancelled; the publish is not
            if error:
                stored.set_exception(error)
                stored.exception()  # nobody may be waiting: then nobody cares
            else:
                stored.set_result(Stored(done.result()["seq"], key))

        self._put({"pub": room, "key": key}, data).add_done_callback(settle)
        return stored

    async def schedule(
        self, room: str, data: Any, *, delay_s: float | None = None, at: int | None = None, key: str | None = None
    ) -> Scheduled | Stored:
        """Publishes later, by the clock of the store: `delay_s` from now, or at `at`, milliseconds since 1970."""
        if (delay_s is None) == (at is None):
            raise SluiceError("invalid", "a message for later has either delay_s or at")
        key = key or secrets.token_hex(16)
        due: dict[str, Any] = {"at": at} if delay_s is None else {"delay_ms": round(delay_s * 1000)}
        frame = await self._put({"pub": room, "key": key, **due}, data)
        return Scheduled(frame["due"], key) if "due" in frame else Stored(frame["seq"], key)

    async def cancel(self, room: str, key: str) -> bool:
        """Takes back what waits under this key; False: nothing does."""
        return bool((await self._put({"cancel": room, "key": key}))["cancelled"])

    async def history(
        self, room: str, *, before: int | None = None, after: int | None = None, limit: int | None = None
    ) -> HistoryPage:
        """A page of messages, oldest first, at most 256: the newest, those before a seq, or those after one."""
        frame = await self._ask({"history": room, "before": before, "after": after, "limit": limit})
        way = "before" if "before" in frame else "after"
        return HistoryPage([message(one) for one in frame["messages"]], {way: frame[way]} if frame.get("more") else None)

    async def presence(self, room: str) -> list[PresentUser]:
        """Everybody in a room, sorted by name."""
        users: list[PresentUser] = []
        while True:
            page = await self.presence_page(room, after=users[-1].user if users else None)
            users += page.users
            if not page.more or not page.users:
                return users

    async def presence_page(self, room: str, *, after: str | None = None, limit: int | None = None) -> PresencePage:
        """A page of the users whose names sort after this one, and how many there are."""
        frame = await self._ask({"presence": room, "after": after, "limit": limit})
        users = [PresentUser(one["user"], one["connections"], one["since"], one.get("info")) for one in frame["users"]]
        return PresencePage(users, frame["count"], frame["connections"], frame.get("more", False))

    async def ping(self) -> None:
        """Returns when the server has answered."""
        await self._ask({"ping": 1})

    async def close(self) -> None:
        """Says goodbye. What is unanswered fails with `closed`."""
        self._machine.close()
        self._flush()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=2 * CLOSE_S)
        for task in tasks:
            task.cancel()

    def _leave(self, room: Room) -> None:
        if self._rooms.get(room.name) is room:
            del self._rooms[room.name]
            room._end()
            self._machine.unsubscribe(room.name)
            self._flush()

    def _pause(self, room: str, paused: bool) -> None:
        if paused:
            self._machine.unsubscribe(room, keeps=True)
        else:
            self._machine.resume(room)
        self._flush()

    def _put(self, frame: dict[str, Any], *data: Any) -> asyncio.Future[dict[str, Any]]:
        _check_name("a room", frame.get("pub") or frame.get("cancel"), ROOM_BYTES_MAX)
        _check_name("a key", frame["key"], KEY_BYTES_MAX)
        body = json.dumps(frame, ensure_ascii=False)
        for one in data:
            body = f'{body[:-1]}, "data": {_as_json(one)}}}'
        if self.ended:
            raise SluiceError("closed", "the client has ended")
        if len(self._queued) >= self._outbox_max:
            raise SluiceError("busy", "too many publishes wait: await some of them")
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._queued.append((body, answer))
        self._flush()
        return answer

    async def _ask(self, frame: dict[str, Any]) -> dict[str, Any]:
        if self.ended:
            raise SluiceError("closed", "the client has ended")
        if self._machine.asking >= REQUESTS_MAX:
            raise SluiceError("busy", "too many questions wait for an answer")
        n = self._machine.ask({key: value for key, value in frame.items() if value is not None})
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._answers[n] = answer
        self._flush()
        return await answer

    def _flush(self) -> None:
        """Does what the machine wants, in order. What callbacks of the program cause is done after it."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._admit() or self._machine.out:
                while self._machine.out:
                    self._act(self._machine.out.popleft())
        finally:
            self._flushing = False
        active = self._wires.get(self._machine.connection or 0)
        if active:
            active.wake.set()

    def _admit(self) -> bool:
        while self._queued and (self.ended or self._machine.unanswered < self._outbox_max):
            body, answer = self._queued.popleft()
            if self.ended and not answer.done():
                answer.set_exception(SluiceError("closed", "the client has ended"))
            elif not self.ended:
                self._answers[self._machine.publish(body)] = answer
        return bool(self._machine.out)

    def _act(self, action: Any) -> None:
        match action:
            case Dial(conn, url):
                self._wires[conn] = _Wire()
                self._wires[conn].task = self._start(self._serve(conn, url, self._wires[conn]))
            case Send(conn, text):
                if conn in self._wires:
                    self._wires[conn].frames.append(text)
                    self._wires[conn].wake.set()
            case Close(conn, code):
                if conn in self._wires:
                    self._start(_end(self._wires.pop(conn), code))
            case Timer(name, seconds):
                if handle := self._timers.pop(name, None):
                    handle.cancel()
                if seconds is not None:
                    self._timers[name] = self._loop.call_later(seconds, self._fire, name)
            case Settle(n, frame):
                self._settle(n, frame)
            case Renew(n):
                # one that does not answer is not waited for twice
                if self._renewing:
                    self._renewing.cancel()
                self._renewing = self._start(self._renew(n))
            case Tell(event):
                self._told(event)

    def _fire(self, name: Any) -> None:
        self._timers.pop(name, None)
        self._machine.timer(name)
        self._flush()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _get_token(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        return await token if inspect.isawaitable(token) else token

    async def _serve(self, conn: int, url: str, wire: _Wire) -> None:
        """A connection's life. However it ends, the machine is told."""
        code, reason, after = None, "the connection broke off", None
        try:
            token = await self._get_token()
            headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
            # The machine has timers of its own for all that the library would do.
            async with dial(
                url, additional_headers=headers, subprotocols=[Subprotocol("sluice.v1.json")], compression=None,
                ping_interval=None, open_timeout=None, close_timeout=CLOSE_S, max_size=READ_BYTES_MAX,
            ) as socket:
                wire.socket = socket
                writer = self._start(self._write(conn, socket, wire))
                try:
                    self._machine.opened(conn, token is not None)
                    self._flush()
                    async for text in socket:
                        self._machine.frame(conn, text if isinstance(text, str) else text.decode())
                        self._flush()
                finally:
                    writer.cancel()
                code, reason = socket.close_code, socket.close_reason or "closed"
        except InvalidStatus as refusal:
            status, seconds = refusal.response.status_code, refusal.response.headers.get("Retry-After", "")
            # A token or an origin that is refused will be refused again.
            code = 4501 if status in (401, 403) else None
            reason, after = f"HTTP {status}", float(seconds) if seconds.isdigit() else None
        except ConnectionClosed as end:
            code, reason = (end.rcvd.code, end.rcvd.reason) if end.rcvd else (None, "the connection broke off")
        except (OSError, InvalidHandshake, TimeoutError) as error:
            reason = str(error)
        except Exception as error:  # what gets the token failed
            log.warning("no connection: %r", error)
            reason = f"no connection: {error!r}"
        self._wires.pop(conn, None)
        self._machine.closed(conn, None if code == 1006 else code, reason, after)
        self._flush()

    async def _write(self, conn: int, socket: ClientConnection, wire: _Wire) -> None:
        try:
            while True:
                wire.wake.clear()
                while wire.frames:
                    await socket.send(wire.frames.popleft())
                # One by one: what is still in the outbox is not sent twice when the connection breaks.
                text = self._machine.next_publish() if conn == self._machine.connection else None
                if text is not None:
                    await socket.send(text)
                    await asyncio.sleep(0)  # a send waits for nothing while there is space: others have their turn
                else:
                    await wire.wake.wait()
        except ConnectionClosed:
            pass  # the reader tells

    async def _renew(self, n: int) -> None:
        """A token that expires soon is replaced without a new connection; one that cannot be had is asked for again."""
        try:
            self._machine.refresh(n, await self._get_token() if callable(self._token) else None)
        except Exception as error:
            self._machine.no_token(n)
            self._emit(Error("unauthorized", f"no token: {error!r}"))
        self._flush()

    def _settle(self, n: int, frame: dict[str, Any]) -> None:
        answer = self._answers.pop(n, None)
        if answer is None or answer.done():
            return
        if error := frame.get("error"):
            answer.set_exception(SluiceError(error["code"], error["message"]))
        else:
            answer.set_result(frame)

    def _told(self, event: ClientEvent | RoomEvent) -> None:
        if isinstance(event, (Message, Skipped, Subscribed, Unsubscribed, Joined, Left, Stale, Gap)):
            room = self._rooms.get(event.room)
            if isinstance(event, Unsubscribed):
                self._rooms.pop(event.room, None)
            if room:
                room._deliver(event)
            return
        if isinstance(event, Connected):
            self.user = event.user
        # An anonymous user stays who it is: under another name a resend is a new message.
        if isinstance(event, Token) and not callable(self._token):
            self._token = event.token
        if isinstance(event, Ended):
            for room in self._rooms.values():
                room._end()
        self._emit(event)

    def _emit(self, event: ClientEvent) -> None:
        if self._on_event:
            try:
                self._on_event(event)
            except Exception:
                log.exception("a callback failed")


async def _end(wire: _Wire, code: int | None) -> None:
    """Closes a connection from this side; one that says nothing is not waited for."""
    if wire.socket is None:
        if wire.task:
            wire.task.cancel()
        return
    if code is None:
        wire.socket.transport.abort()  # the user may come back: no goodbye
        return
    while wire.frames:
        await wire.socket.send(wire.frames.popleft())
    await wire.socket.close(code)


def _as_json(data: Any) -> str:
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise SluiceError("invalid", f"data cannot be written as JSON: {error}") from None
    if size > DATA_BYTES_MAX:
        raise SluiceError("too_large", f"data has {size} bytes, at most {DATA_BYTES_MAX} are allowed")
    return text


def _check_name(what: str, name: Any, most: int) -> None:
    try:
        size = len(name.encode())
    except (AttributeError, UnicodeEncodeError):
        size = 0
    if not 0 < size <= most:
        raise SluiceError("invalid", f"{what} has a name of 1 to {most} bytes of UTF-8")
