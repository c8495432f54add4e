"""A client that knows nothing of Sluice but the wire: subscribes, says so, prints the first message."""
import asyncio
import json
import sys

import websockets


async def main():
    async with websockets.connect(sys.argv[1]) as socket:
        assert "welcome" in json.loads(await socket.recv())
        await socket.send('{"sub":"news"}')
        assert json.loads(await socket.recv())["ok"] == "sub"
        print("subscribed", flush=True)
        print(json.dumps(json.loads(await asyncio.wait_for(socket.recv(), 30))["data"]))


asyncio.run(main())
