"""A stand-in for the hub and for a host of raw files: repositories in memory, and the troubles of a network.

    with serving() as hub:
        revision = hub.put("dataset", "someorg/pairs", {"data/train.parquet": b"..."})
        hub.put("model", "someorg/tiny", {path.name: path.read_bytes() for path in folder.iterdir()})
        hub.put("raw", "someone/files", {"data/train.txt": b"..."}, revision="a" * 40)
        hub.trouble("train", cut=1000)  # every answer about a path with "train" ends after 1,000 bytes
        subprocess.run([...], env=os.environ | environment(hub, home))  # or, in this process: point(monkeypatch, hub, home)

Only what `datasets` and `huggingface_hub` ask for is there, in the form in which the hub answers: names of errors and of
commits in headers, large files behind a redirect to another host, ranges.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

LARGE = (".parquet", ".safetensors", ".bin")  # kept outside of git on the hub: redirected, named by their sha256


@dataclass
class Trouble:
    """What goes wrong for paths that match: a status, silence for some seconds, or an end after so many bytes."""

    pattern: str
    status: int = 0
    wait: float = 0.0
    cut: int | None = None
    times: int = 10**6  # so often, then all is well


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[tuple[str, str, str], dict[str, bytes]] = {}  # kind, id, revision -> files
        self.heads: dict[tuple[str, str], str] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []  # "GET /path", in order; with the range, where one was asked for
        self.tokens: list[str] = []  # paths for which a token was sent
        self.troubles: list[Trouble] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def raw(self) -> str:
        """Where repositories of kind "raw" begin: another name of this host, because a code host is another host."""
        return f"http://localhost:{self.server_port}/raw"

    def put(self, kind: str, name: str, files: Mapping[str, bytes | str], revision: str = "") -> str:
        """Files of a repository of kind "dataset", "model" or "raw" at a revision. -> it; the last one put is main."""
        data = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        revision = revision or git(repr(sorted((path, git(text)) for path, text in data.items())).encode())
        self.repositories.setdefault((kind, name, revision), {}).update(data)
        self.heads[kind, name] = revision
        self.large |= {hashlib.sha256(text).hexdigest(): text for path, text in data.items() if path.endswith(LARGE)}
        return revision

    def trouble(self, pattern: str, **what: float) -> None:
        self.troubles.append(Trouble(pattern, **what))

    def heal(self) -> None:
        self.troubles.clear()

    def fetched(self, pattern: str) -> list[str]:
        """The GETs of paths that match."""
        return [line for line in self.asked if line.startswith("GET") and re.search(pattern, line)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        found = self.headers.get("Range", "")
        self.server.asked.append(" ".join(filter(None, [self.command, self.path, found])))
        if "Authorization" in self.headers:
            self.server.tokens.append(self.path)
        path = urlsplit(self.path).path
        self.cut = None
        for trouble in self.server.troubles:
            if trouble.times > 0 and re.search(trouble.pattern, self.path):
                trouble.times -= 1
                Event().wait(trouble.wait)  # time.sleep is what tests take from the libraries
                self.cut = trouble.cut
                if trouble.status:
                    return self.refuse(trouble.status, "", "it is broken")
        routes = (
            (r"/api/(dataset|model)s/([^/]+/[^/]+)(?:/revision/([^/]+))?", self.about),
            (r"/api/(dataset|model)s/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", self.tree),
            (r"/(?:(dataset)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
            (r"/(raw)/([^/]+/[^/]+)/([^/]+)/(.+)", self.resolve),
            (r"/large/([0-9a-f]+)", lambda sha: self.send(self.server.large[sha], {"ETag": f'"{sha}"'})),
        )
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, path):
                return answer(*(part and unquote(part) for part in match.groups()))
        return self.refuse(404, "", "no such page")

    def do_POST(self) -> None:
        """`paths-info`: facts about named files."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.asked.append(f"POST {self.path}")
        match = re.fullmatch(r"/api/(dataset|model)s/([^/]+/[^/]+)/paths-info/([^/]+)", urlsplit(self.path).path)
        files = match and self.files(*map(unquote, match.groups()))
        if files is None:
            return
        wanted = parse_qs(body).get("paths", [])
        folders = [name for name in wanted if any(path.startswith(f"{name}/") for path in files)]
        known = [fact(path, files[path]) for path in wanted if path in files]
        self.send(json.dumps(known + [folder(name) for name in folders]).encode())

    # -------------------------------------------------------------------- answers

    def files(self, kind: str, name: str, revision: str | None) -> dict[str, bytes] | None:
        """The files of a repository, or None once it was said that there are none."""
        head = self.server.heads.get((kind, name))
        if head is None:
            return self.refuse(404 if kind == "raw" else 401, "RepoNotFound", "Repository not found")
        self.revision = head if revision in (None, "main") else revision
        files = self.server.repositories.get((kind, name, self.revision))
        if files is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return files

    def about(self, kind: str, name: str, revision: str | None = None) -> None:
        if (files := self.files(kind, name, revision)) is not None:
            siblings = [{"rfilename": path} for path in sorted(files)]
            facts = {"id": name, "sha": self.revision, "private": False, "tags": [], "siblings": siblings}
            self.send(json.dumps(facts).encode())

    def tree(self, kind: str, name: str, revision: str, place: str | None = None) -> None:
        if (files := self.files(kind, name, revision)) is None:
            return None
        start = f"{place}/" if place else ""
        deep = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("1", "true")
        facts: dict[str, dict] = {}
        for path in sorted(path for path in files if path.startswith(start)):
            parts = path.removeprefix(start).split("/")
            for depth in range(1, len(parts) if deep else min(2, len(parts))):
                parent = start + "/".join(parts[:depth])
                facts[parent] = folder(parent)
            if deep or len(parts) == 1:
                facts[path] = fact(path, files[path])
        if place and not facts:
            return self.refuse(404, "EntryNotFound", f"{place} does not exist")
        return self.send(json.dumps(list(facts.values())).encode())

    def resolve(self, kind: str | None, name: str, revision: str, path: str) -> None:
        if (files := self.files(kind or "model", name, revision)) is None:
            return None
        named = {} if kind == "raw" else {"X-Repo-Commit": self.revision}
        if path not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found", named)
        data = files[path]
        if kind != "raw" and path.endswith(LARGE):
            sha = hashlib.sha256(data).hexdigest()
            # another name is another host, to which no token goes
            elsewhere = {"Location": f"http://localhost:{self.server.server_port}/large/{sha}"}
            named |= elsewhere | {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(data))}
            return self.send(b"", named, 302)
        return self.send(data, named | {"ETag": f'"{git(data)}"'})

    def refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self.send(json.dumps({"error": message}).encode(), named | dict(headers or {}), status)

    def send(self, data: bytes, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if status == 200 else None
        extra = dict(headers or {})
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            status, extra["Content-Range"] = 206, f"bytes {first}-{last}/{len(data)}"
            data = data[first : last + 1]
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), "Accept-Ranges": "bytes", **extra}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: self.cut])
        if self.cut is not None and self.cut < len(data):
            self.close_connection = True  # the rest never comes

    def handle(self) -> None:
        with suppress(ConnectionError):  # whoever asked has left
            super().handle()

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


def git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def fact(path: str, data: bytes) -> dict:
    found = {"type": "file", "oid": git(data), "size": len(data), "path": path}
    if path.endswith(LARGE):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return found


def folder(path: str) -> dict:
    return {"type": "directory", "oid": git(path.encode()), "size": 0, "path": path}


@contextmanager
def serving() -> Iterator[Hub]:
    with Hub() as hub:
        Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield hub
        hub.shutdown()


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """What another process needs to take this hub for the real one, with caches of its own below `home`."""
    return {
        "HF_ENDPOINT": hub.url,
        "ADAPTERBENCH_RAW": hub.raw,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_CACHE": str(home / "hf" / "hub"),
        "HF_DATASETS_CACHE": str(home / "hf" / "datasets"),
        "ADAPTERBENCH_CACHE": str(home / "adapterbench"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def point(patch: pytest.MonkeyPatch, hub: Hub, home: Path) -> None:
    """The same for this process, which imported the libraries long ago, and offline (tests/conftest.py)."""
    found = environment(hub, home)
    for name, value in found.items():
        patch.setenv(name, value)
    patch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    patch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", found["HF_HUB_CACHE"])
    patch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    patch.setattr("datasets.config.HF_DATASETS_CACHE", Path(found["HF_DATASETS_CACHE"]))
    patch.setattr("datasets.config.DOWNLOADED_DATASETS_PATH", Path(found["HF_DATASETS_CACHE"]) / "downloads")
    online(patch)


def online(patch: pytest.MonkeyPatch, yes: bool = True) -> None:
    """As with HF_HUB_OFFLINE=0; without `yes` as with HF_HUB_OFFLINE=1."""
    patch.setenv("HF_HUB_OFFLINE", str(int(not yes)))
    for name in ("huggingface_hub.constants", "datasets.config", "methods.core.backbone_files"):
        patch.setattr(f"{name}.HF_HUB_OFFLINE", not yes)
