"""A server that speaks the hub's protocol as huggingface_hub asks it: repositories in memory, no more than worlds need."""

import base64
import json
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "a" * 40


@dataclass
class HubServer:
    """repositories: OWNER/NAME -> file -> bytes. asked: (method, path) of every request."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    private: dict[str, bool] = field(default_factory=dict)

    def __enter__(self) -> "HubServer":
        store = self

        class Handler(_Handler):
            hub = store

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if name not in self.hub.repositories:
                return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            files = self.hub.repositories[name]
            if "tree" in parts:
                entries = [
                    {"type": "file", "path": p, "size": len(c), "oid": sha256(c).hexdigest()[:40]}
                    for p, c in files.items()
                ]
                return self._json(entries)
            return self._json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": p} for p in files]})
        return self._file(body=True)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self._parts()
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
            self.hub.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.hub.repositories.setdefault(name, {})
            return self._json({"url": f"{self.hub.address}/{name}", "id": name})
        if parts == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        name = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = json.loads(body)["files"]
            told = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            return self._json({"files": told})
        assert parts[4] == "commit", parts
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.hub.repositories[name][entry["value"]["path"]] = base64.b64decode(
                    entry["value"]["content"]
                )
        return self._json(
            {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.hub.address}/{name}/commit/{COMMIT}"}
        )

    def _parts(self) -> list[str]:
        self.hub.asked.append((self.command, self.path))
        return self.path.partition("?")[0].strip("/").split("/")

    def _file(self, body: bool) -> None:
        parts = self._parts()
        files = self.hub.repositories.get("/".join(parts[:2]))
        content = None if files is None or parts[2] != "resolve" else files.get("/".join(parts[4:]))
        if content is None:
            code = "RepoNotFound" if files is None else "EntryNotFound"
            return self._json({"error": code}, 404, {"X-Error-Code": code, "X-Repo-Commit": COMMIT})
        self.send_response(200)
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
