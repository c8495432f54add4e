"""A page's connection through a balancer: connects with TLS and an Origin as a browser would, and publishes.

Usage: behind.py wss://localhost:PORT/ws TOKEN. The certificate is not looked at. Prints `403` when it is refused so.
"""

import asyncio
import json
import ssl
import sys

import websockets


async def main():
    url, token = sys.argv[1:]
    origin = url.replace("wss://", "https://").removesuffix("/ws")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        socket = await websockets.connect(url, origin=origin, ssl=context, subprotocols=["sluice.v1.json", f"bearer.{token}"])
    except websockets.InvalidStatus as refused:
        print(refused.response.status_code)
        return
    async with socket:
        assert "welcome" in json.loads(await socket.recv())
        await socket.send('{"pub":"news","data":"through nginx"}')
        print(json.loads(await socket.recv())["ok"])


asyncio.run(main())
