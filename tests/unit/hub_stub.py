"""A hub on this machine, as far as huggingface_hub asks for one: repositories from folders, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Hub:
    """``repos``: (type, id) -> {file: content}. ``log``: method and path of each request. ``cut``: file -> how many of
    its bytes come before the line breaks, once."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.log: list[str] = []
        self.cut: dict[str, int] = {}
        self.headers: list[dict[str, str]] = []
        self.endpoint = ""

    def fetched(self) -> set[str]:
        """The files whose content was asked for."""
        asked = [line.split("/resolve/")[1] for line in self.log if line.startswith("GET") and "/resolve/" in line]
        return {a.split("/", 1)[1] for a in asked}


SHA = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """A server that knows its hub."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does; the repositories are the server's."""

    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code: str, status: int = 404) -> None:
        self.reply(status, json.dumps({"error": code}).encode(), X_Error_Code=code, X_Error_Message=code)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.hub.log.append(f"{self.command} {path}")
        self.server.hub.headers.append(dict(self.headers))
        api = path.startswith("/api/")
        words = path.removeprefix("/api/").strip("/").split("/")
        kind = "dataset" if words[0] == "datasets" else "model"
        if api or words[0] == "datasets":
            words = words[1:]
        name, rest = "/".join(words[:2]), words[2:]
        files = self.server.hub.repos.get((kind, name))
        if files is None:
            self.refuse("RepoNotFound", 401 if api else 404)
        elif name in self.server.hub.gated:
            self.refuse("GatedRepo", 403)
        elif rest[:1] in (["revision"], ["tree"], ["resolve"]) and rest[1] not in ("main", SHA):
            self.refuse("RevisionNotFound")
        elif api and rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": f, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for f, b in files.items()]  # fmt: skip
            self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
        elif api:
            info = {"id": name, "sha": SHA, "siblings": [{"rfilename": f} for f in files]}
            self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
        else:
            self.send_file("/".join(rest[2:]), files["/".join(rest[2:])])

    def send_file(self, file: str, body: bytes) -> None:
        etag = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X_Repo_Commit": SHA, "Accept_Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        if self.command == "GET" and file in self.server.hub.cut:
            self.send_response(200)
            for key, value in {**etag, "Content_Length": str(len(body))}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body[: self.server.hub.cut[file]])
            self.wfile.flush()
            self.close_connection = True
            return
        if start:
            self.reply(206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}", **etag)
        else:
            self.reply(200, body, **etag)


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = HubServer(hub)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def add_folder(hub: Hub, kind: str, name: str, folder: Path) -> None:
    hub.repos[kind, name] = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
