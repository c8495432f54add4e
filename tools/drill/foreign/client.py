"""A client of the drill that is written with the Python client. A line of JSON on standard input is a wish, a line on
standard output is something that happened, in its order; the end of the input is a goodbye. The drill judges."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "client/python"))

from sluice_client import (  # noqa: E402
    Bye, Closed, Connected, Drain, Ended, Error, Gap, Message, Skipped, SluiceError, Subscribed, Unsubscribed, connect,
)

#: Bytes of a wish: a message of 64 KiB, written in JSON twice.
WISH_MAX = 1024 * 1024


def say(event, **rest):
    sys.stdout.write(json.dumps({"event": event, **rest}) + "\n")
    sys.stdout.flush()


def on_event(event):
    if isinstance(event, Connected):
        say("connected", instance=event.instance, epoch=event.epoch)
    elif isinstance(event, Error):
        say("error", error=asdict(event))
    elif isinstance(event, (Drain, Bye, Closed, Ended)):
        say(type(event).__name__.lower(), **asdict(event))


def on_room_event(event):
    match event:
        case Message(room, seq, sender, _, data, key):
            # As text: what is judged is what came, byte for byte, and this is how all of it was written.
            text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
            say("message", room=room, seq=seq, **{"from": sender}, key=key, data=text)
        case Subscribed():
            say("resumed" if event.resumed else "subscribed", **asdict(event))
        case Skipped(room, first, last):
            say("skipped", room=room, **{"from": first}, to=last)
        case Unsubscribed(room, code, message):
            say("unsubscribed", room=room, error={"code": code, "message": message})
        case Gap():
            say("gap", **asdict(event))


async def read(room):
    async for event in room.events():
        on_room_event(event)


def publish(client, n, room, key, data):
    def answered(receipt):
        error = receipt.exception()
        if error is None:
            say("answer", n=n, seq=receipt.result().seq)
        else:
            say("answer", n=n, code=error.code if isinstance(error, SluiceError) else repr(error))

    try:
        client.submit(room, json.loads(data), key=key).add_done_callback(answered)
    except SluiceError as error:
        say("answer", n=n, code=error.code)


async def main():
    wishes = asyncio.StreamReader(limit=WISH_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(wishes), sys.stdin)
    client, readers = None, []
    while line := await wishes.readline():
        wish = json.loads(line)
        if begin := wish.get("begin"):
            client = connect(*begin["urls"], token=begin["token"], on_event=on_event)
            readers = [asyncio.create_task(read(client.room(name))) for name in begin["rooms"]]
        elif wanted := wish.get("publish"):
            publish(client, **wanted)
    if client:
        await client.close()
        await asyncio.gather(*readers)


if "--check" not in sys.argv:
    asyncio.run(main())
