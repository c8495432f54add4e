"""The machine is held to client/vectors, with the least, the middle and the most that chance can say."""

import json
import unittest
from dataclasses import asdict
from pathlib import Path

from sluice_client.actions import Close, Dial, Renew, Send, Settle, Tell, Timer
from sluice_client.machine import Machine
from sluice_client.types import Position, Subscribed

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
OF_CALLS = {"stored", "scheduled", "cancelled", "history", "refused"}
OPTIONAL = {"connected", "drain", "bye", "ended", "reconnecting", "token"}
EPOCH = "000000000000001f"
#: What a vector calls by another name.
NAMES = {"sender": "from", "first": "from", "last": "to"}


class Stage:
    """A scripted gateway and a program around one machine, with timers that go off when the script says so."""

    def __init__(self, vector, chance):
        self.urls = [f"ws://gateway-{n}/ws" for n in range(vector.get("gateways", 1))]
        self.renewable, self.token = "needs" in vector, vector.get("token", "t")
        self.optional = OPTIONAL | ({"error"} if vector.get("needs") == "renewal" else set())
        # so many questions for a token fail
        self.now, self.tokens, self.failing = 0.0, 0, 0
        self.calls, self.events, self.dials = [], [], []
        self.heard, self.ends, self.timers, self.ids, self.asked = {}, {}, {}, {}, {}
        self.machine = Machine(self.urls, lambda: chance, lambda: self.now, renewable=self.renewable)
        self.machine.start()
        self.settle()

    def next_token(self):
        self.tokens += 1
        return "t" if self.tokens == 1 else f"t{self.tokens}"

    def settle(self):
        while True:
            if self.machine.out:
                self.act(self.machine.out.popleft())
            elif (text := self.machine.next_publish()) is not None:
                self.heard.setdefault(self.machine.connection, []).append(json.loads(text))
            else:
                return

    def act(self, action):
        match action:
            case Timer(name, None):
                self.timers.pop(name, None)
            case Timer(name, seconds):
                self.timers[name] = seconds
            case Dial(conn, url):
                self.dials.append((conn, url, self.next_token() if self.renewable else self.token))
            case Send(conn, text):
                self.heard.setdefault(conn, []).append(json.loads(text))
            case Close(conn, code):
                self.ends[conn] = code
            case Renew(n) if self.failing:
                self.failing -= 1
                self.machine.no_token(n)
            case Renew(n):
                self.machine.refresh(n, self.next_token())
            case Settle(n, frame):
                self.calls.append(self.outcome(self.asked.get(n), frame))
            case Tell(event):
                self.tell(event)

    def tell(self, event):
        told = {NAMES.get(key, key): value for key, value in asdict(event).items()}
        kind = type(event).__name__.lower()
        if isinstance(event, Subscribed):
            kind = "resumed" if event.resumed else "subscribed"
        if kind == "token":
            self.token = event.token
        self.events.append({"type": kind, **told})

    def outcome(self, key, frame):
        if error := frame.get("error"):
            return {"type": "refused", "key": key, "code": error["code"]}
        if "messages" in frame:
            way = "before" if "before" in frame else "after"
            more = {"more": {way: frame[way]}} if frame.get("more") else {}
            return {"type": "history", "seqs": [one["seq"] for one in frame["messages"]], **more}
        if frame["ok"] == "cancel":
            return {"type": "cancelled", "key": key, "cancelled": frame["cancelled"]}
        kind, what = ("scheduled", "due") if "due" in frame else ("stored", "seq")
        return {"type": kind, "key": key, what: frame[what]}

    def do(self, do, room=None, key=None, data=None, presence=False, **rest):
        if do == "subscribe":
            self.machine.subscribe(room, Position(**rest), presence)
        elif do == "unsubscribe":
            self.machine.unsubscribe(room)
        elif do == "history":
            self.machine.ask({"history": room, **rest})
        elif do == "close":
            self.machine.close()
        else:
            frame = {"cancel": room, "key": key} if do == "cancel" else {"pub": room, "key": key, **rest, "data": data}
            self.asked[self.machine.publish(json.dumps(frame))] = key

    def fire(self, name):
        assert self.timers.pop(name, None) is not None, f"the timer {name} runs"
        self.machine.timer(name)
        self.settle()

    def dial(self, conn, at):
        if not self.dials:
            self.now += self.timers.get("dial", 0)
            self.fire("dial")
        dialled, url, token = self.dials.pop(0)
        assert (dialled, url) == (conn, self.urls[at]), (dialled, url)
        return token

    def step(self, step):
        verb, n = next(iter(step.items()))
        match verb:
            case "dial":
                token = self.dial(n, step.get("at", 0))
                assert step.get("token") in (None, token), token
                self.machine.opened(n, token is not None)
            case "refuse":
                self.dial(n, step.get("at", 0))
                self.machine.closed(n, None, f"HTTP {step['status']}", step.get("retry_after_s"))
            case "welcome":
                told = {key: step[key] for key in ("ping_s", "token") if key in step}
                welcome = {"user": "ann", "epoch": EPOCH, "ping_s": 25, **told}
                self.machine.frame(n, json.dumps({"welcome": welcome}))
            case "say":
                self.machine.frame(n, json.dumps(self.fill(step["frame"])))
            case "hear":
                frame = self.heard[n].pop(0)
                self.ids |= {name: frame.get(key) for key, name in step["frame"].items() if str(name).startswith("$")}
                assert frame == self.fill(step["frame"]), frame
            case "close":
                self.machine.closed(n, step.get("code"), "because")
            case "closed":
                assert n in self.ends and step.get("code") in (None, self.ends[n]), self.ends
            case "stands":
                assert n not in self.ends
            case "silence":
                while n not in self.ends:
                    self.fire("quiet")
                self.heard.pop(n, None)  # questions whether anybody is there
            case "do":
                self.do(**step)
            case "pause":
                assert n[0] <= round(self.timers["dial"] * 1000, 3) <= n[1], self.timers
            case "again":
                assert n[0] <= round(self.timers["renew"] * 1000, 3) <= n[1], self.timers
                self.fire("renew")
            case "no_token":
                self.failing = n
            case "told":
                self.told(n)
            case _:
                raise AssertionError(f"no step is called {verb}")
        self.settle()

    def told(self, wanted):
        queue = self.calls if wanted["type"] in OF_CALLS else self.events
        while queue and queue[0]["type"] != wanted["type"] and queue[0]["type"] in self.optional:
            queue.pop(0)
        assert queue, "nothing is told"
        told = queue.pop(0)
        assert {key: told.get(key) for key in wanted} == wanted, told

    def over(self):
        assert not self.calls and not [one for one in self.events if one["type"] not in self.optional], self.events
        assert not any(self.heard.values()), self.heard

    def fill(self, frame):
        return {key: self.ids.get(value, value) if isinstance(value, str) else value for key, value in frame.items()}


class Vectors(unittest.TestCase):
    def test_the_vectors_of_all_clients(self):
        files = sorted(VECTORS.glob("*.json"))
        self.assertGreater(len(files), 5)
        for file in files:
            for vector in json.loads(file.read_text())["vectors"]:
                for chance in (0.0, 0.5, 1 - 1e-9):
                    with self.subTest(vector["name"], chance=chance):
                        stage = Stage(vector, chance)
                        for n, step in enumerate(vector["steps"], 1):
                            try:
                                stage.step(step)
                            except Exception as error:
                                raise AssertionError(f"step {n} {step}: {error!r}") from error
                        stage.over()


if __name__ == "__main__":
    unittest.main()
