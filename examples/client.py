"""A complete client of proto/WIRE.md: resumes, sends again in order, and moves without a gap when its gateway stops.

Needs `pip install websockets`. `deliver` gets every `msg` and `skipped` in order, each `ok` of a `sub` that moved the
position, and errors of requests. `run` ends with Refused, when the server does not want this client back.
"""
import asyncio, contextlib, itertools, json, random, uuid

import websockets


class Refused(Exception):
    """Coming back the same way makes no sense: the token is wrong or has ended, or this client is."""


class Client:
    def __init__(self, urls, token, deliver):
        self.urls, self.token, self.deliver = itertools.cycle(urls), token, deliver
        self.rooms = {}  # room: its `sub` frame, always with the last position seen
        self.outbox = {}  # id: frame and future of each publish without a final answer, in the order of sending
        self.ids, self.failures, self.active, self.fenced = itertools.count(1), 0, None, False
        self.wake, self.tasks = asyncio.Event(), set()

    def subscribe(self, room, **position):
        self.rooms[room] = {"sub": room, **position}
        self.wake.set()

    async def publish(self, room, data):
        answer, n = asyncio.get_running_loop().create_future(), next(self.ids)
        self.outbox[n] = json.dumps({"pub": room, "data": data, "key": uuid.uuid4().hex, "id": n}), answer
        self.wake.set()
        return await answer

    async def run(self):
        pause = 0
        while True:
            await asyncio.sleep(pause)
            again = asyncio.get_running_loop().create_future()  # the pause before the next connection
            with contextlib.suppress(OSError, websockets.WebSocketException):  # nobody there, or an HTTP status
                headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
                self.start(self.read(await websockets.connect(next(self.urls), additional_headers=headers), again))
                pause = await again
                continue
            pause = self.back_off()

    async def read(self, socket, again):
        bye = {}
        with contextlib.suppress(websockets.ConnectionClosed):
            async for text in socket:
                frame = json.loads(text)
                if "welcome" in frame:
                    self.attach(socket, frame["welcome"])
                elif "drain" in frame and not again.done():  # dial soon; this connection goes on meanwhile
                    again.set_result(frame["drain"]["reconnect_ms"] / 1000)
                elif "id" in frame:  # answers to publishes count from either connection
                    self.answered(frame, socket)
                elif socket is self.active:
                    self.received(frame)
                bye = frame.get("bye", bye)
        if not again.done() and not (bye.get("reconnect", True) and (socket.close_code or 0) < 4500):
            again.set_exception(Refused(bye.get("reason")))
        elif not again.done():
            again.set_result(bye["reconnect_ms"] / 1000 if bye else self.back_off())

    def attach(self, socket, welcome):
        if self.active:
            self.start(self.leave(self.active, [answer for _, answer in self.outbox.values()]))
        self.token, self.failures, self.fenced = welcome.get("token", self.token), 0, False
        self.active = socket
        self.start(self.write(socket))
        self.wake.set()  # the writer of the connection before ends

    async def write(self, socket):
        asked, sent = set(), 0
        with contextlib.suppress(websockets.ConnectionClosed):
            while socket is self.active:
                self.wake.clear()
                for room in self.rooms.keys() - asked:
                    asked.add(room)
                    await socket.send(json.dumps(self.rooms[room]))
                for sent, (frame, _) in [one for one in self.outbox.items() if one[0] > sent]:
                    if socket is self.active and not self.fenced:
                        await socket.send(frame)
                await self.wake.wait()

    def answered(self, frame, socket):
        if frame.get("error", {}).get("retry"):  # on the active one nothing new may be sent: `bye` 4001 follows
            self.fenced |= socket is self.active
            return
        _, answer = self.outbox.pop(frame["id"], (None, None))  # the second answer after a move says nothing new
        if answer and "ok" in frame:
            answer.set_result(frame["seq"])
        elif answer:
            answer.set_exception(ValueError(frame["error"]["message"]))

    def received(self, frame):
        self.rooms.pop(frame.get("unsubscribed"), None)  # the application has ended it: not again by ourselves
        at = self.rooms.get(frame.get("msg") or frame.get("skipped") or frame.get("room"), {})
        to = frame.get("seq", frame.get("to", frame.get("after")))
        if frame.get("recovered", True) and to is not None and to <= at.get("after", -1):
            return  # seen already
        at.update({"after": to} if to is not None else {}, **({"epoch": frame["epoch"]} if "epoch" in frame else {}))
        self.deliver(frame)

    async def leave(self, old, unanswered):
        if unanswered:
            await asyncio.wait(unanswered, timeout=5)
        await old.close()

    def back_off(self):
        self.failures += 1
        return random.uniform(0.5, 1) * min(10, 0.1 * 2**self.failures)

    def start(self, work):
        self.tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(self.tasks.discard)
