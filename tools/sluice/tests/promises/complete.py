"""Drives examples/client.py while the test does harm: one client publishes numbers, one on another gateway reads them.

Usage: complete.py CLIENT.py TOKEN ws://gateway-1 ws://gateway-2. Prints `reading` when 100 numbers have come, stops
publishing when its standard input says so, waits until the reader has all that was answered, and prints what came as
JSON: a list of [seq, number], and [seq, number] of each answer.
"""

import asyncio
import importlib.util
import json
import sys

IN_TIME = 60


def client_of(path):
    spec = importlib.util.spec_from_file_location("client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Client


async def main():
    path, token, *urls = sys.argv[1:]
    client, loop = client_of(path), asyncio.get_running_loop()
    came, answers, stop = [], [], asyncio.Event()
    loop.add_reader(sys.stdin, stop.set)

    def deliver(frame):
        assert "skipped" not in frame and "error" not in frame and frame.get("recovered", True), frame
        if "msg" in frame:
            came.append([frame["seq"], frame["data"]])
            if len(came) == 100:
                print("reading", flush=True)

    reader, writer = client(urls[::-1], token, deliver), client(urls, token, deliver)
    reader.subscribe("numbers", after=0)
    running = [asyncio.create_task(one.run()) for one in (reader, writer)]
    publishing = []

    async def publish(number):
        answers.append([await writer.publish("numbers", number), number])

    while not stop.is_set():
        publishing.append(asyncio.create_task(publish(len(publishing))))
        await asyncio.sleep(0.005)
    async with asyncio.timeout(IN_TIME):
        await asyncio.gather(*publishing)
        while len(came) < len(publishing):
            await asyncio.sleep(0.01)
    for task in running:
        task.cancel()
    print(json.dumps({"came": came, "answers": sorted(answers)}))


asyncio.run(main())
