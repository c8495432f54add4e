"""The backend of the chat: serves the page and the SDK, and says who somebody is by signing a token for a name.

Usage: server.py [--dir FOLDER] [--port 8000]     the folder of a running `sluice dev`, which tells gateways and secret
Elsewhere set SLUICE_TOKEN_SECRET and SLUICE_GATEWAYS=wss://chat.example/ws. Ask for a password in `user_of`.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = {"/": (HERE / "index.html", "text/html"), "/chat.js": (HERE / "chat.js", "text/javascript"),
         "/sdk.js": (HERE.parents[1] / "client/js/sluice.js", "text/javascript")}
ROOMS = "chat.*"
TOKEN_S = 600


def sign(secret, claims):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    body = ".".join(part(json.dumps(one).encode()) for one in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{body}.{part(hmac.digest(secret.encode(), body.encode(), hashlib.sha256))}"


def deployment(folder):
    """The secret of tokens and the gateways."""
    if secret := os.environ.get("SLUICE_TOKEN_SECRET"):
        return secret, os.environ["SLUICE_GATEWAYS"].split(",")
    try:
        state = json.loads((Path(folder) / "sluice-dev.json").read_text())
    except FileNotFoundError as missing:
        raise SystemExit(f"{missing.filename} is not there: start sluice dev, and give its folder as --dir") from None
    ports = [port for name, port in state["ports"].items() if name.startswith("gateway-") and "admin" not in name]
    return state["token_secret"], [f"ws://127.0.0.1:{port}/ws" for port in ports]


def user_of(asked):
    """Who this is. Everybody is believed here: a real one looks at its session."""
    name = str(asked.get("name", "")).strip()
    return name if 0 < len(name.encode()) <= 64 and name.isprintable() and "*" not in name else None


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path, kind = FILES.get(self.path.partition("?")[0], (None, None))
        self.answer(200, path.read_bytes(), kind) if path else self.answer(404, b"no such page", "text/plain")

    def do_POST(self):
        asked = json.loads(self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 4096)) or b"{}")
        user = user_of(asked) if self.path == "/token" else None
        if user is None:
            return self.answer(400, b"a name has 1 to 64 bytes, and no *", "text/plain")
        grants = {"sub": [ROOMS], "pub": [ROOMS]}
        claims = {"sub": user, "exp": int(time.time()) + TOKEN_S, "grants": grants, "info": {"name": user}}
        token = {"token": sign(self.server.secret, claims), "gateways": self.server.gateways}
        self.answer(200, json.dumps(token).encode(), "application/json")

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--dir", default=".")
    options.add_argument("--port", type=int, default=8000)
    options = options.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.secret, server.gateways = deployment(options.dir)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
