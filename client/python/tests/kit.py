"""Real processes for the tests: `sluice dev`, and wires that can be cut."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import random
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SLUICE = os.environ.get("SLUICE_BIN") or str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/sluice")
#: Longest wait for anything: CI has two busy cores.
SOON = 60


class Dev:
    """`sluice dev` in a folder of its own."""

    async def __aenter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="sluice-python-")
        arguments = ["dev", "--json", "--port", "0", "--gateways", "2", "--dir", self._folder.name]
        self._process = await asyncio.create_subprocess_exec(
            SLUICE, *arguments, stdout=asyncio.subprocess.PIPE, env={**os.environ, "RUST_LOG": "error"})
        async with asyncio.timeout(SOON):
            told = json.loads(await self._process.stdout.readline())
        self.urls = [gateway["ws"] for gateway in told["gateways"]]
        self.names = [gateway["name"] for gateway in told["gateways"]]
        self._page = told["page"]
        self._secret = json.loads((Path(self._folder.name) / "sluice-dev.json").read_text())["token_secret"]
        return self

    async def __aexit__(self, *_):
        self._process.terminate()
        await self._process.wait()
        self._folder.cleanup()

    def token(self, user, **claims):
        """As a backend would sign it."""
        grants = {"sub": ["*"], "pub": ["*"]}
        claims = {"sub": user, "exp": int(time.time()) + 3600, "grants": grants, **claims}
        body = ".".join(_part(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        return f"{body}.{_part(hmac.digest(self._secret.encode(), body.encode(), hashlib.sha256))}"

    async def restart(self, name):
        request = urllib.request.Request(f"{self._page}/dev/restart/{name}", method="POST", headers={"x-sluice-dev": "1"})
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=SOON).read())


def _part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Wire:
    """A wire to a gateway that breaks off when it is told to, in the middle of a frame as likely as not."""

    @classmethod
    async def to(cls, url):
        wire = cls()
        wire._port, wire._left, wire._all = int(url.split(":")[2].split("/")[0]), [], []
        wire._server = await asyncio.start_server(wire._carry, "127.0.0.1", 0)
        wire.url = f"ws://127.0.0.1:{wire._server.sockets[0].getsockname()[1]}/ws"
        return wire

    async def _carry(self, near, near_out):
        far, far_out = await asyncio.open_connection("127.0.0.1", self._port)
        pair = {"left": None, "ends": [near_out, far_out]}
        self._all.append(pair)
        await asyncio.gather(self._pipe(near, far_out, pair), self._pipe(far, near_out, pair))
        self._all.remove(pair)

    async def _pipe(self, source, sink, pair):
        try:
            while data := await source.read(65_536):
                if pair["left"] is not None:
                    data, pair["left"] = data[:pair["left"]], pair["left"] - len(data)
                sink.write(data)
                if pair["left"] is not None and pair["left"] <= 0:
                    break
                await sink.drain()
        except OSError:
            pass
        for end in pair["ends"]:
            end.transport.abort()

    def cut(self, most):
        """Breaks every connection after at most so many bytes more."""
        for pair in self._all:
            if pair["left"] is None:
                pair["left"] = random.randint(1, most)

    async def stop(self):
        self._server.close()
        for pair in self._all:
            for end in pair["ends"]:
                end.transport.abort()


async def until(holds, what):
    async with asyncio.timeout(SOON):
        while not holds():
            await asyncio.sleep(0.005)


def assert_whole(messages, last):
    """What a reader saw of a room: 1, 2, 3, …, of each sender each number once and in order."""
    assert [one.seq for one in messages] == list(range(1, last + 1)), (len(messages), last)
    following = {}
    for one in messages:
        assert one.data == following.get(one.sender, 0), one
        following[one.sender] = one.data + 1
