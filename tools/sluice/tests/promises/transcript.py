"""Executes the transcript of WIRE.md with the `websockets` library: every sent line is sent, every received
line must come, where "…" stands for any value.

Usage: transcript.py WIRE.md ws://gateway-1 ws://gateway-2 TOKEN
"""

import asyncio
import json
import re
import sys

import websockets

ANY = "…"
EITHER = " in any order with"
IN_TIME = 20


def matches(expected, got):
    if expected == ANY:
        return True
    if isinstance(expected, dict):
        return isinstance(got, dict) and expected.keys() == got.keys() and all(
            matches(expected[key], got[key]) for key in expected
        )
    if isinstance(expected, list):
        return isinstance(got, list) and len(expected) == len(got) and all(map(matches, expected, got))
    return expected == got


async def receive(socket):
    return json.loads(await asyncio.wait_for(socket.recv(), IN_TIME))


async def execute(lines, gateways, token):
    sockets = {}
    pending = []
    for line in lines:
        name, verb, rest = line[0], line[1:2], line[3:]
        if verb == ">":
            await sockets[name].send(rest)
        elif verb == "<":
            pending.append(json.loads(rest.removesuffix(EITHER)))
            if rest.endswith(EITHER):
                continue
            for _ in range(len(pending)):
                got = await receive(sockets[name])
                match = next((one for one in pending if matches(one, got)), None)
                assert match is not None, f"got {got}\nexpected one of {pending}"
                pending.remove(match)
        elif found := re.fullmatch(r"(\w) connects to gateway (\d) as alice", line):
            headers = {"Authorization": f"Bearer {token}"}
            url = gateways[int(found[2]) - 1]
            sockets[found[1]] = await websockets.connect(url, additional_headers=headers)
        elif line.endswith(" is cut"):
            sockets.pop(name).transport.abort()
        else:
            raise ValueError(f"cannot execute {line!r}")
    for socket in sockets.values():
        await socket.close()


def main():
    page, *gateways, token = sys.argv[1:]
    with open(page, encoding="utf-8") as file:
        block = re.search(r"```transcript\n(.*?)```", file.read(), re.DOTALL)
    lines = block[1].strip().splitlines()
    asyncio.run(execute(lines, gateways, token))
    print(f"{len(lines)} lines are true")


main()
