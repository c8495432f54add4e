"""What a client must remember across connections, and what it does when something happens: the state table of
proto/WIRE.md. Pure: frames, ends and timers in, actions out. It never touches a socket, a clock or a task."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .actions import Action, Close, Dial, Renew, Send, Settle, Tell, Timer, TimerName
from .backoff import WINDOWS, Backoff
from .rooms import Frame, Later, Rooms
from .types import Bye, ClientEvent, Closed, Connected, Drain, Ended, Error, Gap, Position, Reconnecting, RoomEvent, Token

#: Handshake and `welcome` together, seconds.
WELCOME_S = 10.0
#: After `retry:true` the server says `bye` within 10 s; one that does not is left.
FENCE_S = 12.0
#: How long the connection left behind by a move may still bring answers.
OLD_S = 5.0
#: After a message that is not the next one, the room is resumed on a new connection after so long.
GAP_S = 1.0
#: A publish is sent again for an hour: the server keeps its key no longer than that for certain.
RESEND_S = 3600.0
#: A server that says nothing for this many of its ping intervals is gone.
SILENT_PINGS = 3

#: A program's function gives a token within this, or is asked again.
TOKEN_S = 30.0
#: First window of the pause before a token is asked for again while a connection stands; doubles up to the longest.
TOKEN_AGAIN_S = 0.5
TOKEN_AGAIN_MAX_S = 5.0
#: Where less is left of the token than this many of them, the longest is this part of it.
TOKEN_TRIES = 6


@dataclass(slots=True)
class _Connection:
    id: int
    url: str
    bye: Bye | None = None
    ping: float = 0.0
    silent: int = 0
    heard: bool = True


@dataclass(slots=True)
class _Publish:
    #: Its frame without the id.
    body: str
    #: When it was sent first.
    first: float | None = None


@dataclass(slots=True)
class _Renewal:
    """A token that is replaced while its connection stands."""

    #: Of the windows of the pauses, seconds.
    longest: float
    step: Literal["fetching", "waiting", "asked"] = "fetching"
    failures: int = 0


class Machine:
    def __init__(
        self,
        urls: Sequence[str],
        random: Callable[[], float],
        now: Callable[[], float],
        backoff: tuple[float, float] = WINDOWS,
        renewable: bool = False,
    ) -> None:
        #: What is to be done, in order; the driver takes it after each call.
        self.out: deque[Action] = deque()
        self.ended = False
        self._now, self._random, self._renewable = now, random, renewable
        self._backoff = Backoff(urls, random, now, backoff)
        self._last_id = self._last_conn = self._refusals = self._refresh_id = 0
        self._rooms = Rooms(self._id)
        # By id, which is the order of sending.
        self._outbox: dict[int, _Publish] = {}
        # Questions by id; they change nothing, so that a new connection is asked again.
        self._questions: dict[int, str] = {}
        self._active: _Connection | None = None
        self._dialling: _Connection | None = None
        # Left behind by a move: only answers count.
        self._old: _Connection | None = None
        self._old_to = 0
        self._unsent: deque[int] = deque()
        self._fenced = False
        # One at a time.
        self._renewal: _Renewal | None = None
        self._last_renewal = 0
        # Where the attempt goes that waits for the timer `dial`.
        self._waiting: str | None = None

    @property
    def connection(self) -> int | None:
        return self._active.id if self._active else None

    @property
    def unanswered(self) -> int:
        return len(self._outbox)

    @property
    def asking(self) -> int:
        return len(self._questions)

    def start(self) -> None:
        """The first attempt has no pause, as somebody waits for it and nobody else comes with it."""
        self._begin(0.0)

    def publish(self, body: str) -> int:
        """A publish, a cancel: sent when it is its turn, and again until it is answered."""
        n = self._id()
        self._outbox[n] = _Publish(body)
        self._unsent.append(n)
        return n

    def next_publish(self) -> str | None:
        """The next frame of the outbox to send on the active connection, oldest first."""
        # Behind a fence nothing is stored any more.
        while self._active and not self._fenced and self._unsent:
            n = self._unsent.popleft()
            if publish := self._outbox.get(n):
                if publish.first is None:
                    publish.first = self._now()
                return f'{publish.body[:-1]}, "id": {n}}}'
        return None

    def ask(self, frame: Frame) -> int:
        n = self._id()
        self._questions[n] = json.dumps({**frame, "id": n})
        self._send(self._questions[n])
        return n

    def subscribe(self, room: str, at: Position, watches: bool) -> None:
        self._send(self._rooms.open(room, at, watches, self._active is not None))

    def unsubscribe(self, room: str, keeps: bool = False) -> None:
        """Leaves a room; with `keeps` it is remembered where, until `resume`."""
        if self._rooms.close(room, keeps) and self._active:
            self._send(json.dumps({"unsub": room, "id": self._id()}))

    def resume(self, room: str) -> None:
        self._send(self._rooms.resume(room, self._active is not None))

    def opened(self, conn: int, has_token: bool) -> None:
        """The connection stands, and nobody has said `welcome` yet."""
        # Whom the server does not let in without a token it tells nothing for 10 s, unless it is asked something.
        if not has_token:
            self.out.append(Send(conn, '{"ping":1,"id":0}'))

    def refresh(self, n: int, token: str | None) -> None:
        """The token that was wanted; `None`: there is no other, and the connection stands until the old one ends."""
        if not (renewal := self._fetching(n)):
            return
        if token is None:
            return self._end_renewal()
        renewal.step, self._refresh_id = "asked", self._id()
        self.out.append(Timer("renew"))
        self._send(json.dumps({"refresh": {"token": token}, "id": self._refresh_id}))

    def no_token(self, n: int) -> None:
        """The token that was wanted cannot be had now."""
        if self._fetching(n):
            self._renew_again()

    def heard(self, conn: int) -> None:
        """Anything came, a ping too."""
        if self._active and self._active.id == conn:
            self._active.heard = True

    def frame(self, conn: int, text: str) -> None:
        self.heard(conn)
        try:
            frame = json.loads(text)
        except ValueError:
            return self._drop(conn, "a frame of the server is not JSON")
        if self._dialling and self._dialling.id == conn:
            return self._greeting(self._dialling, frame)
        is_active = self.connection == conn
        if not is_active and not (self._old and self._old.id == conn):
            return
        if "ok" in frame or "error" in frame:
            self._answer(frame, is_active)
        # What an old connection still delivers is the new one's to deliver.
        elif is_active:
            self._told(frame)
        self._leave_old()

    def closed(self, conn: int, code: int | None, reason: str, after: float | None = None) -> None:
        """A connection has ended, or never stood; `after`: it is not to be asked again before."""
        if self._dialling and self._dialling.id == conn:
            bye = self._dialling.bye
            if _is_final(code):
                return self._refused(bye.reason if bye else reason)
            if bye and bye.reconnect_ms is not None:
                after = bye.reconnect_ms / 1000
            if after is not None:
                self._backoff.refused(self._dialling.url, after)
            self._failed()
        elif self.connection == conn:
            self._lost(code, reason)
        elif self._old and self._old.id == conn:
            self._forget_old()

    def timer(self, name: TimerName) -> None:
        if name == "dial":
            self._dial()
        elif name == "welcome" and self._dialling:
            self._drop(self._dialling.id, "no welcome in time")
        elif name == "old":
            self._forget_old(1000)
        elif name == "fence" and self._active:
            self._drop(self._active.id, "no close after retry:true")
        elif name == "quiet":
            self._quiet()
        elif name == "renew" and self._renewal:
            if self._renewal.step == "fetching":
                self._renew_again()
            else:
                self._fetch_token(self._renewal)

    def close(self) -> None:
        """The program has had enough: a goodbye, and no answer any more."""
        for one in (self._active, self._old, self._dialling):
            if one:
                self.out.append(Close(one.id, 1000))
        self._end("closed by this side")

    def _id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _send(self, text: str | None) -> None:
        if self._active and text is not None:
            self.out.append(Send(self._active.id, text))

    def _tell(self, event: ClientEvent | RoomEvent | None) -> None:
        if event:
            self.out.append(Tell(event))

    def _begin(self, told: float | None = None) -> None:
        """Begins to dial after this pause, unless it does already; `told` by the server."""
        if self._dialling or self._waiting is not None or self.ended:
            return
        self._waiting, pause = self._backoff.choose(self._backoff.pause() if told is None else told)
        self.out.append(Timer("dial", pause))
        if not self._active and self._last_conn:
            self._tell(Reconnecting(self._backoff.failures, pause))

    def _dial(self) -> None:
        if self._waiting is None:
            return
        url, self._waiting = self._waiting, None
        self._last_conn += 1
        self._dialling = _Connection(self._last_conn, url)
        self.out += (Dial(self._last_conn, url), Timer("welcome", WELCOME_S))

    def _failed(self) -> None:
        self._dialling = None
        self.out.append(Timer("welcome"))
        self._backoff.failures += 1
        self._begin()

    def _refused(self, reason: str) -> None:
        """A gateway wants this client not to come like this. Where another connection stands, that ends nothing."""
        if self._dialling:
            self.out.append(Close(self._dialling.id))
        self._refusals += 1
        # A fresh token that is refused at once will be refused again.
        if self._active or (self._renewable and self._refusals == 1):
            self._failed()
        else:
            self._end(reason)

    def _greeting(self, conn: _Connection, frame: Frame) -> None:
        if "welcome" in frame:
            self._attach(conn, frame["welcome"])
        elif "bye" in frame:
            conn.bye = _bye(frame["bye"])
            if not conn.bye.reconnect:
                self._refused(conn.bye.reason)
        elif "error" in frame and not frame["error"]["retry"]:
            self._refused(frame["error"]["message"])

    def _attach(self, conn: _Connection, welcome: Frame) -> None:
        """Makes a connection the active one. What was active is kept for the answers it may still bring."""
        self._forget_old(1000)
        self._old, self._active, self._dialling = self._active, conn, None
        self._old_to, self._fenced, self._refusals, self._backoff.failures = self._last_id, False, 0, 0
        # It began with the newest token that there was.
        self._end_renewal()
        conn.ping = welcome["ping_s"]
        self.out += (Timer("welcome"), Timer("fence"), Timer("quiet", conn.ping))
        if "token" in welcome:
            self._tell(Token(welcome["token"]))
        moved = self._old is not None
        self._tell(Connected(welcome["user"], welcome.get("instance", ""), moved, welcome.get("epoch", "")))
        for text in [*self._rooms.ask_all(), *self._questions.values()]:
            self._send(text)
        self._expire()
        # Everything without an answer is sent again, before anything new; its key makes that safe.
        self._unsent = deque(self._outbox)
        if self._old:
            self.out.append(Timer("old", OLD_S))
        self._leave_old()

    def _expire(self) -> None:
        """What was first sent an hour ago is not sent again: its key may be forgotten."""
        before = self._now() - RESEND_S
        for n, publish in list(self._outbox.items()):
            if publish.first is not None and publish.first <= before:
                message = "no answer for an hour: it may or may not be stored"
                self._settle(n, {"error": {"code": "unknown", "message": message, "retry": False}})

    def _answer(self, frame: Frame, is_active: bool) -> None:
        n, error = frame.get("id"), frame.get("error")
        if n is None or n == self._refresh_id:
            if not is_active:
                return
            if error:
                self._tell(Error(error["code"], error["message"]))
            if n is not None and error:
                self._renew_again()
            elif n is not None:
                self._end_renewal()
            elif not error and frame["ok"] == "sub":
                self._tell(self._rooms.moved(frame))
        elif n in self._outbox:
            if not error or not error["retry"]:
                self._settle(n, frame)
            # The fence of an old connection is history: its publishes are sent again already.
            elif is_active and not self._fenced:
                self._fenced = True
                self.out.append(Timer("fence", FENCE_S))
        elif n in self._questions:
            # One that cannot be answered now is asked again by whoever asked.
            self._settle(n, frame)
        else:
            try:
                for event in self._rooms.answer(frame):
                    self._tell(event)
            except Later as later:
                if self._active:
                    self._drop(self._active.id, str(later))

    def _settle(self, n: int, frame: Frame) -> None:
        # Both connections may answer the same: the first counts.
        self._outbox.pop(n, None)
        self._questions.pop(n, None)
        self.out.append(Settle(n, frame))

    def _told(self, frame: Frame) -> None:
        assert self._active
        if "drain" in frame:
            drain = frame["drain"]
            self._tell(Drain(drain["reason"], drain["within_ms"], drain["reconnect_ms"]))
            self._begin(drain["reconnect_ms"] / 1000)
        elif "bye" in frame:
            self._active.bye = _bye(frame["bye"])
            self._tell(self._active.bye)
        elif "expiring" in frame:
            self._renew(frame["expiring"]["within_ms"] / 1000)
        elif "unsubscribed" in frame:
            self._tell(self._rooms.ended(frame))
        else:
            event = self._rooms.delivery(frame)
            self._tell(event)
            # Told, and mended: what is missing comes when the room is resumed.
            if isinstance(event, Gap):
                self._drop(self._active.id, "a message is missing", GAP_S)

    def _renew(self, within: float) -> None:
        """Begins to replace the token, unless it does already; several tries fit into the time that is left."""
        if not self._renewal and self._renewable:
            self._renewal = _Renewal(min(max(within / TOKEN_TRIES, TOKEN_AGAIN_S), TOKEN_AGAIN_MAX_S))
            self._fetch_token(self._renewal)

    def _fetch_token(self, renewal: _Renewal) -> None:
        renewal.step = "fetching"
        self._last_renewal += 1
        self.out += (Renew(self._last_renewal), Timer("renew", TOKEN_S))

    def _fetching(self, n: int) -> _Renewal | None:
        """What comes late is of no use: another was asked for since, or the connection has ended."""
        renewal = self._renewal
        return renewal if renewal and renewal.step == "fetching" and n == self._last_renewal else None

    def _renew_again(self) -> None:
        """There was none, or the server did not take it: once more, after a pause, and not all clients at once."""
        if renewal := self._renewal:
            window = min(TOKEN_AGAIN_S * 2 ** min(renewal.failures, 16), renewal.longest)
            renewal.step, renewal.failures = "waiting", renewal.failures + 1
            self.out.append(Timer("renew", window * (0.5 + self._random() / 2)))

    def _end_renewal(self) -> None:
        self._renewal = None
        self.out.append(Timer("renew"))

    def _drop(self, conn: int, reason: str, pause: float | None = None) -> None:
        """Ends a connection from this side, without a goodbye."""
        self.out.append(Close(conn))
        if pause is not None:
            self._begin(pause)
        self.closed(conn, None, reason)

    def _lost(self, code: int | None, reason: str) -> None:
        assert self._active
        bye = self._active.bye
        self._forget_old(1000)
        self._active = None
        self.out += (Timer("quiet"), Timer("fence"))
        self._end_renewal()
        is_final = _is_final(code) or (bye is not None and not bye.reconnect)
        renews = is_final and self._renewable and (bye.code if bye else code) == 4501
        self._tell(Closed(code, reason, not is_final or renews))
        if is_final and not renews:
            self._end(bye.reason if bye else reason)
        else:
            # A move that is under way goes on: until its time has come nobody may be there.
            self._begin(bye.reconnect_ms / 1000 if bye and bye.reconnect_ms is not None else None)

    def _forget_old(self, code: int | None = None) -> None:
        if not self._old:
            return
        if code:
            self.out.append(Close(self._old.id, code))
        self._old = None
        self.out.append(Timer("old"))

    def _leave_old(self) -> None:
        """Closes the old connection when nothing that was sent there is unanswered, and the new one has what it had."""
        if self._old and next(iter(self._outbox), self._old_to + 1) > self._old_to and not self._rooms.asking():
            self._forget_old(1000)

    def _quiet(self) -> None:
        """Nothing was said for a ping interval: a library may hide the server's pings, so it is asked."""
        conn = self._active
        if not conn:
            return
        if conn.heard:
            conn.heard, conn.silent = False, 0
        else:
            conn.silent += 1
            if conn.silent >= SILENT_PINGS:
                return self._drop(conn.id, "nothing heard from the server")
            self._send('{"ping":1,"id":0}')
        self.out.append(Timer("quiet", conn.ping))

    def _end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended = True
        self._active = self._dialling = self._old = self._waiting = self._renewal = None
        names: tuple[TimerName, ...] = ("dial", "welcome", "quiet", "fence", "old", "renew")
        self.out += [Timer(name) for name in names]
        error = {"code": "closed", "message": f"the client has ended: {reason}", "retry": False}
        for n in [*self._outbox, *self._questions]:
            self._settle(n, {"error": error})
        self._tell(Ended(reason))


def _is_final(code: int | None) -> bool:
    return code is not None and 4500 <= code < 5000


def _bye(bye: dict[str, Any]) -> Bye:
    return Bye(bye["code"], bye["reason"], bye["reconnect"], bye.get("reconnect_ms"))
