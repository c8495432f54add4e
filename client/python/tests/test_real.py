"""Against a real `sluice dev`: what the library does for a program, and that nothing is lost under cuts and rolls."""

import asyncio
import random
import textwrap
import time
import unittest
from pathlib import Path

from sluice_client import (
    Closed, Connected, Ended, Gap, Joined, Left, Message, Reconnecting, Scheduled, Skipped, SluiceError, Subscribed,
    Unsubscribed, connect,
)

from kit import SOON, Dev, Wire, assert_whole, until

QUICK = (0.001, 0.02)


async def take(room, count):
    taken = []
    async for one in room:
        taken.append(one)
        if len(taken) == count:
            return taken
    return taken


class Real(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)  # it slows everything down
        self.dev = await self.enterAsyncContext(Dev())

    def ann(self, **options):
        return connect(*self.dev.urls, token=self.dev.token("ann"), **options)

    async def test_what_a_program_does_all_day(self):
        async with self.ann() as client, asyncio.timeout(SOON):
            room = client.room("day", after=0)
            self.assertIs(client.room("day"), room)
            stored = await asyncio.gather(*[client.publish("day", n) for n in range(3)])
            self.assertEqual([one.seq for one in stored], [1, 2, 3])
            self.assertEqual([(one.seq, one.sender, one.data) for one in await take(room, 3)], [(1, "ann", 0), (2, "ann", 1), (3, "ann", 2)])
            self.assertEqual(room.position.after, 3)
            page = await room.history(limit=2)
            self.assertEqual(([one.data for one in page.messages], page.more), ([1, 2], {"before": 2}))
            rest = await room.history(**page.more)
            self.assertEqual(([one.data for one in rest.messages], rest.more), ([0], None))
            first = await client.publish("day", "x", key="k")
            self.assertEqual(await client.publish("day", "x", key="k"), first)
            with self.assertRaises(SluiceError) as conflict:
                await client.publish("day", "y", key="k")
            self.assertEqual(conflict.exception.code, "conflict")
            waits = await client.schedule("day", 1, delay_s=3600)
            self.assertIsInstance(waits, Scheduled)
            self.assertTrue(await client.cancel("day", waits.key))
            self.assertFalse(await client.cancel("day", "nothing"))
            await client.ping()
            room.leave()
            self.assertEqual([one.data for one in await take(room, 9)], ["x"])  # what waited, and the end

    async def test_the_block_of_the_readme_does_what_it_says(self):
        text = (Path(__file__).parents[1] / "README.md").read_text()
        block = text.split("```python\n")[1].split("```")[0]
        scope = {"connect": connect, "Subscribed": Subscribed, "url": self.dev.urls[0], "get_token": lambda: self.dev.token("ann")}
        said = []
        scope["print"] = lambda *words: said.append(words)
        exec("async def run():\n" + textwrap.indent(block, "    "), scope)
        async with asyncio.timeout(SOON):
            await scope["run"]()
        self.assertEqual(said, [(1, "ann", {"t": "hi"}), ([2, 3, 4],), (["ann"],)])

    async def test_what_no_server_would_take_is_refused_at_once(self):
        async with self.ann() as client:
            bad = [("r", "x" * 70_000), ("r", "€" * 22_000), ("r", {1, 2}), ("r", float("nan")), ("r", "\ud800"), ("", 1), ("é" * 70, 1)]
            for room, data in bad:
                with self.assertRaises(SluiceError):
                    client.submit(room, data)
            await client.publish("r", "€" * 21_000)

    async def test_a_reader_that_is_behind_leaves_the_room_and_misses_nothing(self):
        async with self.ann() as writer, self.ann() as reader, asyncio.timeout(SOON):
            room = reader.room("slow", after=0)
            await asyncio.gather(*[writer.submit("slow", n) for n in range(3000)])
            await until(lambda: room._paused, "it is paused")
            self.assertLessEqual(len(room._queue), 1024)
            self.assertEqual([one.data for one in await take(room, 3000)], list(range(3000)))

    async def test_who_comes_and_goes_is_told(self):
        async with self.ann() as client, asyncio.timeout(SOON):
            room = client.room("lobby", presence=True)
            events = room.events()
            self.assertIsInstance(await anext(events), Subscribed)
            bob = connect(self.dev.urls[1], token=self.dev.token("bob", info={"name": "Bob"}))
            bob.room("lobby")
            while not (isinstance(event := await anext(events), Joined) and event.user == "bob"):
                pass
            self.assertEqual(event.info, {"name": "Bob"})
            self.assertEqual([one.user for one in await client.presence("lobby")], ["ann", "bob"])
            await bob.close()
            while not (isinstance(event := await anext(events), Left) and event.user == "bob"):
                pass

    async def test_tokens_that_are_refused_or_end_are_asked_for_again(self):
        asked = []

        async def token():
            asked.append(0)
            soon = int(time.time()) - 28  # of a leeway of 30 s
            return ["rubbish", self.dev.token("ann", exp=soon), self.dev.token("ann")][min(len(asked), 3) - 1]

        async with connect(self.dev.urls[0], token=token, backoff=QUICK) as client, asyncio.timeout(SOON):
            await client.publish("tokens", 0)
            await until(lambda: len(asked) >= 3, "another token")
            await client.publish("tokens", 1)
        events = []
        async with connect(self.dev.urls[0], token=lambda: "rubbish", backoff=QUICK, on_event=events.append) as refused:
            with self.assertRaises(SluiceError) as closed:
                await refused.publish("tokens", 1)
        self.assertEqual((closed.exception.code, type(events[-1])), ("closed", Ended))

    async def test_a_room_that_may_not_be_read_says_so(self):
        token = self.dev.token("eve", grants={"sub": ["public"], "pub": []})
        async with connect(self.dev.urls[0], token=token) as client, asyncio.timeout(SOON):
            events = [event async for event in client.room("secret").events()]
            self.assertEqual([(type(event), event.code) for event in events], [(Unsubscribed, "forbidden")])

    async def test_what_nobody_can_reach_is_dialled_until_close(self):
        events = []
        client = connect("ws://127.0.0.1:1/ws", backoff=QUICK, on_event=events.append)
        outcome = client.submit("r", 1)
        await until(lambda: sum(isinstance(event, Reconnecting) for event in events) > 5, "it dials")
        await client.close()
        with self.assertRaises(SluiceError):
            await outcome

    async def test_under_random_cuts_nothing_is_lost_doubled_or_reordered(self, clients=10, cuts=300):
        wires = [await Wire.to(self.dev.urls[n % 2]) for n in range(clients)]
        ends, seen, over, published = [], [[] for _ in wires], asyncio.Event(), 0

        def count(event):
            if isinstance(event, Closed):
                ends.append(event)

        async def write(client):
            nonlocal published
            n = 0
            while not over.is_set():
                published += 1
                await client.publish("cuts", n)
                n += 1
                await asyncio.sleep(0.02)

        async def read(room, messages):
            async for event in room.events():
                assert not isinstance(event, (Skipped, Gap)) and getattr(event, "recovered", True), event
                if isinstance(event, Message):
                    messages.append(event)

        users = [connect(wire.url, token=self.dev.token(f"user-{n}"), backoff=QUICK, on_event=count) for n, wire in enumerate(wires)]
        reading = [asyncio.create_task(read(user.room("cuts", after=0), messages)) for user, messages in zip(users, seen)]
        writing = [asyncio.create_task(write(user)) for user in users]
        async with asyncio.timeout(SOON * 2):
            while len(ends) < cuts:
                random.choice(wires).cut(2_000)
                await asyncio.sleep(0.01)
            over.set()
            await asyncio.gather(*writing)
            while not all(len(messages) >= published for messages in seen):
                await asyncio.sleep(0.01)
        for messages in seen:
            assert_whole(messages, published)
        print(f"\n{len(ends)} reconnects, {published} publishes, each seen once and in order by {clients} clients")
        await asyncio.gather(*[user.close() for user in users])
        await asyncio.gather(*reading)
        for wire in wires:
            await wire.stop()

    async def test_a_roll_of_all_gateways(self, clients=40):
        closes, moves, seen, over, sent = [], [], [[] for _ in range(clients)], asyncio.Event(), 0

        def count(event):
            if isinstance(event, Closed):
                closes.append(event)
            if isinstance(event, Connected) and event.moved:
                moves.append(event)

        longest = 0.0

        async def read(room, messages):
            nonlocal longest
            last = None
            async for one in room:
                now = time.monotonic()
                longest = max(longest, now - (last or now))
                last = now
                messages.append(one)

        users = [connect(*self.dev.urls[:: 1 if n % 2 else -1], token=self.dev.token(f"user-{n}"), on_event=count) for n in range(clients)]
        reading = [asyncio.create_task(read(user.room("roll", after=0), messages)) for user, messages in zip(users, seen)]

        async def write():
            nonlocal sent
            outcomes = []
            while not over.is_set():
                outcomes.append(users[0].submit("roll", sent))
                sent += 1
                await asyncio.sleep(0.1)
            await asyncio.gather(*outcomes)

        writing = asyncio.create_task(write())
        await until(lambda: all(len(messages) > 5 for messages in seen), "everybody reads")
        longest = 0.0
        for name in self.dev.names:
            await self.dev.restart(name)
            before = [len(messages) for messages in seen]
            await until(lambda: all(len(messages) > n + 5 for messages, n in zip(seen, before)), "everybody reads again")
        over.set()
        await writing
        await until(lambda: all(len(messages) >= sent for messages in seen), "everything has come")
        for messages in seen:
            assert_whole(messages, sent)
        assert moves
        print(f"\n{len(moves)} moves, {len(closes)} closes before a client had moved, longest silence {longest * 1000:.0f} ms at a message every 100 ms")
        await asyncio.gather(*[user.close() for user in users])
        await asyncio.gather(*reading)


if __name__ == "__main__":
    unittest.main()
