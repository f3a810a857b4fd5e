"""A Hugging Face Hub on loopback: the protocol that the real huggingface_hub speaks, and the faults of real networks.

Two servers, as the Hub has: the Hub itself on 127.0.0.1, and the place of large files, the CDN, on localhost, which is
another host and must never see a token. Repositories are in memory: commits of files by path, branches and tags.

Large files go through git LFS, or through Xet: hf_xet has a store of its own for tests, a folder that both sides use
as if it were the network, and which the server reads to know a file by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

OWNER, STRANGER = "hf_owner", "hf_stranger"
"""Tokens: of acme, and of somebody else."""

FaultKind = Literal["reset", "truncate", "stall", "short", "tamper", "hang", "drop", "lose", "status", "page"]


@dataclass(frozen=True)
class Stored:
    """A file of a commit. What is in Xet is not in the server's memory."""

    size: int
    git_id: str
    sha256: str
    lfs: bool
    data: bytes | None = None
    xet: str | None = None

    @classmethod
    def of(cls, data: bytes, *, lfs: bool) -> Stored:
        git_id = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        return cls(len(data), git_id, hashlib.sha256(data).hexdigest(), lfs, data)

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_id

    def about(self, path: str, *, tree: bool) -> dict[str, Any]:
        """As in model_info, or as in lists of files: they name the same things differently."""
        plain: dict[str, Any] = {"size": self.size, "oid" if tree else "blobId": self.git_id}
        plain |= {"type": "file", "path": path} if tree else {"rfilename": path}
        if self.lfs:
            plain["lfs"] = {"oid" if tree else "sha256": self.sha256, "size": self.size, "pointerSize": 134}
        if self.xet:
            plain["xetHash"] = self.xet
        return plain


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Stored]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, Stored], branch: str = "main") -> str:
        # Ids must look like git's: huggingface_hub asks again and again about anything else.
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        found = self.branches.get(revision) or self.tags.get(revision) or revision
        return found if found in self.commits else None


@dataclass
class Fault:
    """Something that goes wrong with requests that match.

    In the middle of the body, ``reset`` breaks the connection, ``truncate`` closes it, and ``stall`` stops. ``short``
    sends less and says so, ``tamper`` sends other bytes of the right number, ``hang`` never answers, ``drop`` breaks
    the connection at once, ``lose`` does what is asked and then breaks it, ``status`` answers with an error, and
    ``page`` with a web page and a status.
    """

    match: re.Pattern[str]
    kind: FaultKind
    times: int
    status: int = 503


class HubServer:
    """Use as a context manager. Everything is under ``lock``; ``requests`` lists what came as ``"GET /path"``."""

    def __init__(self, xet: Path | None = None) -> None:
        self.repos: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.leaked: list[str] = []
        self.xet = xet
        self.lock = threading.RLock()
        self.ending = threading.Event()

    def __enter__(self) -> HubServer:
        handler = type("Bound", (_Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.cdn = f"http://localhost:{self._servers[1].server_port}"
        return self

    def __exit__(self, *exception: object) -> None:
        self.ending.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # What tests do to it

    def add(self, repo: str, files: dict[str, bytes], *, tag: str = "", **traits: Any) -> str:
        """Puts files into a repository, as a commit; returns its id."""
        with self.lock:
            made = self.repos.setdefault(repo, Repository(**traits))
            head = made.commits.get(made.branches.get("main", ""), {})
            stored = {path: Stored.of(data, lfs=path.endswith(".safetensors")) for path, data in files.items()}
            oid = made.commit({**head, **stored})
            if tag:
                made.tags[tag] = oid
            return oid

    def fail(self, match: str, kind: FaultKind, times: int = 1, status: int = 503) -> None:
        """Lets the next requests go wrong whose ``"METHOD /path"`` matches; files are at ``GET /cdn/NAME/DIGEST``."""
        self.faults.append(Fault(re.compile(match), kind, times, status))

    def count(self, match: str) -> int:
        with self.lock:
            return sum(bool(re.search(match, request)) for request in self.requests)

    def content(self, repo: str, path: str, revision: str = "main") -> bytes | None:
        found = self.repos[repo]
        return found.commits[found.resolve(revision) or ""][path].data

    def take(self, request: str) -> Fault | None:
        """The fault of a request, once fewer."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and fault.match.search(request):
                    fault.times -= 1
                    return fault
        return None

    def xet_hash(self, sha256: str) -> str | None:
        """What a file is called in the Xet store, from the shards that hf_xet wrote into it.

        A shard is a header of 48 bytes, then for each file 48 bytes (hash, flags, number of segments), 48 for each
        segment, 48 more for each if bit 31 is set, and if bit 30 is, 48 with its SHA-256. A hash is four little-endian
        numbers of 8 bytes.
        """
        for shard in (self.xet or Path("nowhere")).rglob("*.mdb"):
            data, at = shard.read_bytes(), 48
            while at + 48 <= len(data) and data[at : at + 32] != b"\xff" * 32:
                name = _numbers(data[at : at + 32])
                flags, segments = struct.unpack_from("<II", data, at + 32)
                at += 48 + 48 * segments * (2 if flags & 1 << 31 else 1)
                if flags & 1 << 30:
                    if _numbers(data[at : at + 32]) == sha256:
                        return name
                    at += 48
        return None


def _numbers(data: bytes) -> str:
    return b"".join(data[start : start + 8][::-1] for start in range(0, 32, 8)).hex()


class _RefusalError(Exception):
    """An answer that is an error; the client goes by the code in its header."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        self.status, self.message, self.code, self.headers = status, message, code, headers


Route = Callable[..., None]
_ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    """Names stand for one part of the path, ``{repo}`` for two, ``{path}`` for the rest."""
    parts = {"repo": "[^/]+/[^/]+", "path": ".+"}
    compiled = re.sub(r"\{(\w+)\}", lambda found: f"(?P<{found[1]}>{parts.get(found[1], '[^/]+')})", pattern)

    def add(function: Route) -> Route:
        for each in method.split():
            _ROUTES.append((each, re.compile(compiled), function))
        return function

    return add


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    fault: Fault | None

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        split = urlsplit(self.path)
        # Always read: what is left of it would be taken for the next request.
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.query = parse_qs(split.query)
        self.fault = self.hub.take(f"{self.command} {split.path}")
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if split.path.startswith("/cdn/") and self.token:
            self.hub.leaked.append(self.path)
        try:
            if self.fault and self.fault.kind == "hang":
                self.hub.ending.wait(30)
                return self._break()
            if self.fault and self.fault.kind == "drop":
                return self._break()
            if self.fault and self.fault.kind == "status":
                raise _RefusalError(self.fault.status, "the server is not well")
            if self.fault and self.fault.kind == "page":
                page = b"<html>Welcome to the hotel</html>"
                return self.reply(page, {"Content-Type": "text/html"}, self.fault.status)
            for method, pattern, function in _ROUTES:
                found = pattern.fullmatch(split.path) if method == self.command else None
                if found:
                    # A branch such as feat/x comes quoted, so parts are told apart before they are unquoted.
                    with self.hub.lock:
                        answer = function(self, **{name: unquote(value) for name, value in found.groupdict().items()})
                    return answer() if callable(answer) else None
            raise _RefusalError(404, f"no such page: {self.command} {split.path}")
        except _RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message, **refusal.headers}
            self.reply(
                {"error": refusal.message}, {k.replace("_", "-"): v for k, v in headers.items() if v}, refusal.status
            )

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_CONNECT = _serve  # noqa: N815

    def _break(self) -> None:
        """Ends the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def reply(self, content: Any, headers: dict[str, str] | None = None, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = self.fault.kind if self.fault else None
        if kind == "lose":
            return self._break()
        if kind == "tamper":
            body = body[:-8] + bytes(byte ^ 1 for byte in body[-8:])
        if kind == "short":
            body = body[: len(body) // 2]
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if kind in ("reset", "truncate", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            # An RST throws away what the other side has not read yet.
            self.hub.ending.wait(30 if kind == "stall" else 0.02)
            self.close_connection = True
            return self._break() if kind == "reset" else None
        self.wfile.write(body)
        return None

    # Repositories

    def repo(self, name: str, *, write: bool = False, content: bool = False) -> Repository:
        found = self.hub.repos.get(name)
        if found is None or (found.private and self.token != OWNER):
            # The Hub does not say which of both it is.
            raise _RefusalError(404 if self.token else 401, "Repository not found", "RepoNotFound")
        if write and self.token != OWNER:
            raise _RefusalError(403 if self.token else 401, "You may not write here")
        if content and found.gated and self.token != OWNER:
            raise _RefusalError(403 if self.token else 401, f"Access to model {name} is restricted", "GatedRepo")
        return found

    def commit(self, repo: str, revision: str, **how: bool) -> tuple[Repository, str]:
        found = self.repo(repo, **how)
        oid = found.resolve(revision)
        if oid is None:
            raise _RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found, oid

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> None:
        name = {OWNER: "acme", STRANGER: "stranger"}.get(self.token)
        if name is None:
            raise _RefusalError(401, "Invalid username or password.")
        self.reply({"type": "user", "name": name, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    @route("POST", "/api/repos/create")
    def create(self) -> None:
        asked = self.json
        name = f"{asked.get('organization') or 'acme'}/{asked['name']}"
        if self.token != OWNER or not name.startswith("acme/"):
            raise _RefusalError(
                403 if self.token else 401, "You don't have the rights to create a model under this namespace"
            )
        answer = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repos:
            return self.reply({"error": "You already created this model repo", **answer}, status=409)
        private = asked.get("private", asked.get("visibility") == "private")
        made = self.hub.repos[name] = Repository(private=bool(private))
        made.commit({".gitattributes": Stored.of(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", lfs=False)})
        return self.reply(answer)

    @route("POST", "/api/validate-yaml")
    def validate(self) -> None:
        wrong = not self.json["content"].startswith("---\n")
        errors = [{"message": "the card has no metadata"}] if wrong else []
        self.reply({"errors": errors, "warnings": []}, status=400 if wrong else 200)

    @route("GET", "/api/models/{repo}")
    def info(self, repo: str, revision: str = "main") -> None:
        found, oid = self.commit(repo, revision)
        files = [stored.about(path, tree=False) for path, stored in sorted(found.commits[oid].items())]
        if "blobs" not in self.query:
            files = [{"rfilename": each["rfilename"]} for each in files]
        about = {"id": repo, "modelId": repo, "sha": oid, "siblings": files, "tags": [], "downloads": 0}
        self.reply({**about, "private": found.private, "gated": "manual" if found.gated else False})

    @route("GET", "/api/models/{repo}/revision/{revision}")
    def info_of_revision(self, repo: str, revision: str) -> None:
        self.info(repo, revision)

    @route("GET", "/api/models/{repo}/refs")
    def refs(self, repo: str) -> None:
        found = self.repo(repo)

        def listed(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in names.items()]

        self.reply({"branches": listed("heads", found.branches), "converts": [], "tags": listed("tags", found.tags)})

    @route("POST", "/api/models/{repo}/paths-info/{revision}")
    def paths_info(self, repo: str, revision: str) -> None:
        found, oid = self.commit(repo, revision)
        text = self.body.decode()
        asked = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
        files = found.commits[oid]
        self.reply([files[path].about(path, tree=True) for path in asked if path in files])

    @route("GET", "/api/models/{repo}/tree/{revision}")
    def tree(self, repo: str, revision: str) -> None:
        found, oid = self.commit(repo, revision)
        self.reply([stored.about(path, tree=True) for path, stored in sorted(found.commits[oid].items())])

    @route("POST", "/api/models/{repo}/tag/{revision}")
    def tag(self, repo: str, revision: str) -> None:
        found, oid = self.commit(repo, revision, write=True)
        name = self.json["tag"]
        if name in found.tags:
            raise _RefusalError(409, f"Tag {name} already exists")
        found.tags[name] = oid
        self.reply({})

    # Writing

    @route("POST", "/api/models/{repo}/preupload/{revision}")
    def preupload(self, repo: str, revision: str) -> None:
        found, oid = self.commit(repo, revision, write=True)
        answer = []
        for asked in self.json["files"]:
            path, there = asked["path"], found.commits[oid].get(asked["path"])
            large = path.endswith(".safetensors") and asked["size"] > 0
            mode = {"uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            answer.append({"path": path, **mode, "oid": there.etag if there else None})
        self.reply({"files": answer})

    @route("POST", "/{repo}\\.git/info/lfs/objects/batch")
    def batch(self, repo: str) -> None:
        self.repo(repo, write=True)
        objects = []
        for asked in self.json["objects"]:
            actions = {"upload": f"{self.hub.cdn}/lfs/{asked['oid']}", "verify": f"{self.hub.url}/lfs/verify"}
            known = asked["oid"] in self.hub.uploads
            objects.append(asked if known else {**asked, "actions": {k: {"href": v} for k, v in actions.items()}})
        self.reply({"transfer": "basic", "objects": objects})

    @route("PUT", "/lfs/{oid}")
    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _RefusalError(400, "these bytes have another digest")
        self.hub.uploads[oid] = self.body
        self.reply({})

    @route("POST", "/lfs/verify")
    def verify(self) -> None:
        if len(self.hub.uploads.get(self.json["oid"], b"")) != self.json["size"]:
            raise _RefusalError(404, "no such object")
        self.reply({})

    @route("POST", "/api/models/{repo}/commit/{revision}")
    def new_commit(self, repo: str, revision: str) -> None:
        found, oid = self.commit(repo, revision, write=True)
        lines = [json.loads(line) for line in self.body.splitlines()]
        files = dict(found.commits[oid])
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, oid):
                raise _RefusalError(412, "A commit has happened since. Please refresh and try again.")
            if line["key"] == "file":
                files[value["path"]] = Stored.of(base64.b64decode(value["content"]), lfs=False)
            if line["key"] == "deletedFile":
                del files[value["path"]]
            if line["key"] == "lfsFile":
                files[value["path"]] = self._large(value["oid"], value["size"])
        made = found.commit(files, revision)
        self.reply({"success": True, "commitOid": made, "commitUrl": f"{self.hub.url}/{repo}/commit/{made}"})

    def _large(self, sha256: str, size: int) -> Stored:
        if sha256 in self.hub.uploads:
            return Stored.of(self.hub.uploads[sha256], lfs=True)
        xet = self.hub.xet_hash(sha256)
        if xet is None:
            raise _RefusalError(400, f"LFS object {sha256} was not uploaded")
        git_id = hashlib.sha1(sha256.encode(), usedforsecurity=False).hexdigest()
        return Stored(size, git_id, sha256, lfs=True, xet=xet)

    @route("GET", "/api/models/{repo}/xet-{kind}-token/{revision}")
    def xet_token(self, repo: str, kind: str, revision: str) -> None:
        self.commit(repo, revision, write=kind == "write", content=True)
        if self.hub.xet is None:
            raise _RefusalError(404, "no Xet here")
        url, ends = f"local://{self.hub.xet}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(ends)}
        self.reply({"casUrl": url, "exp": ends, "accessToken": "xet"}, headers)

    # Reading

    @route("GET HEAD", "/{repo}/resolve/{revision}/{path}")
    def resolve(self, repo: str, revision: str, path: str) -> None:
        found, oid = self.commit(repo, revision, content=True)
        stored = found.commits[oid].get(path)
        if stored is None:
            raise _RefusalError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=oid)
        headers = {"X-Repo-Commit": oid}
        if not stored.lfs:
            assert stored.data is not None
            return self.reply(stored.data, {**headers, "ETag": f'"{stored.git_id}"'})
        headers |= {"X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": str(stored.size)}
        headers |= {"Location": f"{self.hub.cdn}/cdn/{path}/{stored.sha256}"}
        if stored.xet:
            refresh = f"{self.hub.url}/api/models/{repo}/xet-read-token/{oid}"
            headers |= {"X-Xet-Hash": stored.xet, "Link": f'<{refresh}>; rel="xet-auth"'}
        return self.reply(b"", headers, status=302)

    @route("GET", "/cdn/{path}/{sha256}")
    def download(self, path: str, sha256: str) -> Any:
        every = (
            stored for repo in self.hub.repos.values() for files in repo.commits.values() for stored in files.values()
        )
        data = next((stored.data for stored in every if stored.sha256 == sha256), None)
        if data is None:
            raise _RefusalError(404, "no such object")
        first = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0])[0])
        headers = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}
        # Sent without the lock: others should not wait for a slow body.
        return lambda: self.reply(data[first:], headers, status=206 if first else 200)
