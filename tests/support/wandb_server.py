"""A stand-in for W&B's server: answers what a run needs, and keeps what was sent."""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.said: list[tuple[str, bytes]] = []  # path, body

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self, name: str) -> list[dict]:
        """Variables of every GraphQL operation of this name."""
        sent = [json.loads(body) for path, body in self.said if path == "/graphql"]
        return [one["variables"] for one in sent if operation(one["query"]) == name]

    def lines(self, run: str, file: str) -> list[dict]:
        """What was streamed into a file of a run."""
        sent = [json.loads(body) for path, body in self.said if path.endswith(f"/{run}/file_stream")]
        return [json.loads(line) for one in sent for line in one.get("files", {}).get(file, {}).get("content", [])]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.body()
        self.server.said.append((self.path, body))
        self.answer(self.graphql(json.loads(body)) if self.path == "/graphql" else {})

    def do_PUT(self) -> None:
        self.server.said.append((self.path, self.body()))
        self.answer({})

    def body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def graphql(self, sent: dict) -> dict:
        name, given = operation(sent["query"]), sent["variables"]
        if name == "UpsertBucket":
            project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "someone"}}
            bucket = {"id": "b", "name": given["name"], "displayName": given.get("displayName"), "project": project,
                      "config": given.get("config"), "historyLineCount": 0}  # fmt: skip
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.server.url}/put/{file}"} for file in given["files"]]
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
        return {"data": None, "errors": [{"message": f"no {name} here"}]}

    def answer(self, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


def operation(query: str) -> str:
    return re.search(r"(?:query|mutation)\s+(\w+)", query)[1]


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
