"""Talks through `websocat` as a person would: subscribe, publish, read the message, resume by hand.

Usage: websocat.py ws://gateway TOKEN
"""

import json
import pathlib
import shutil
import subprocess
import sys

IN_TIME = 20


def websocat():
    beside = pathlib.Path(sys.executable).parent / "websocat"
    found = str(beside) if beside.exists() else shutil.which("websocat")
    assert found, "websocat is not installed: make deps"
    return found


def talk(url, token, lines, answers):
    """Sends the lines, returns that many frames after `welcome`."""
    command = [websocat(), url, "-H", f"Authorization: Bearer {token}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        frames = [json.loads(process.stdout.readline())]
        for line in lines:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        frames += [json.loads(process.stdout.readline()) for _ in range(answers)]
    finally:
        process.stdin.close()
        process.wait(IN_TIME)
    assert "welcome" in frames[0], frames
    return frames[1:]


def main():
    url, token = sys.argv[1:]
    sub = '{"sub":"lobby"}'
    frames = talk(url, token, [sub, '{"pub":"lobby","data":{"t":"typed by hand"}}'], 3)
    assert frames[0]["ok"] == "sub", frames
    kinds = sorted(next(iter(frame)) for frame in frames[1:])
    assert kinds == ["msg", "ok"], frames
    frames = talk(url, token, ['{"sub":"lobby","after":0}'], 2)
    assert frames[0]["recovered"] is True, frames
    assert frames[1]["data"] == {"t": "typed by hand"}, frames
    print("websocat published, received and resumed")


main()
