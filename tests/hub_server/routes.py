"""Every call of the Hub's HTTP interface that the test Hub answers, one function each, and their table at the end."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from tests.hub_server.messages import Request, Response
from tests.hub_server.store import LFS_BYTES, LFS_SUFFIXES, Refusal, Store, StoredFile

__all__ = ["ROUTES"]

KINDS = {"models": "model", "datasets": "dataset", "": "model"}


def who_am_i(store: Store, request: Request) -> Response:
    user = store.user_of(request.token)
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    role = "read" if request.token in store.read_only else "write"
    organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in store.organizations_of(user)]
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
    return Response({"type": "user", "id": user, "name": user, "fullname": user, "orgs": organizations, "auth": token})


def create_repository(store: Store, request: Request) -> Response:
    asked = request.json
    kind = asked.get("type") or "model"
    id = f"{asked.get('organization') or store.user_of(request.token)}/{asked['name']}"
    url = f"{request.base}/{'datasets/' if kind == 'dataset' else ''}{id}"
    store.require_writer(request.token, id.split("/")[0])
    if (kind, id) in store.repositories:
        return Response({"error": "You already created this repo", "url": url}, 409)
    store.create(request.token, kind, id, private=asked.get("visibility") == "private")
    return Response({"url": url, "id": id, "name": id})


def validate_card(store: Store, request: Request) -> Response:
    match = re.match(r"---\n(.*?)\n---\n", request.json["content"], re.DOTALL)
    try:
        yaml.safe_load(match[1] if match else "")
    except yaml.YAMLError as error:
        return Response({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return Response({"errors": [], "warnings": []})


def describe(store: Store, request: Request, kind: str, id: str, revision: str = "") -> Response:
    repository = store.open(request.token, KINDS[kind], id)
    commit = repository.at(revision or "main")
    first = repository.commits[next(iter(repository.commits))]
    answer = {
        "_id": "0" * 24,
        "id": id,
        "author": repository.namespace,
        "sha": commit.id,
        "createdAt": first.date,
        "lastModified": commit.date,
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": path} for path in sorted(commit.files)],
    }
    return Response(answer)


def entry(path: str, file: StoredFile) -> dict[str, Any]:
    """One file as the tree and paths-info calls describe it."""
    described: dict[str, Any] = {"type": "file", "path": path, "size": file.size, "oid": file.sha256[:40]}
    if file.lfs:
        described["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
    return described


def directory(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def tree(store: Store, request: Request, kind: str, id: str, revision: str, path: str = "") -> Response:
    files = store.open(request.token, KINDS[kind], id).at(revision).files
    recursive = request.query.get("recursive", "").lower() in ("1", "true")
    prefix = f"{path.strip('/')}/" if path.strip("/") else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, file in sorted(files.items()):
        if not name.startswith(prefix):
            continue
        parents = name.removeprefix(prefix).split("/")[:-1]
        for depth in range(1, len(parents) + 1 if recursive else min(len(parents), 1) + 1):
            folder = prefix + "/".join(parents[:depth])
            entries.setdefault(folder, directory(folder))
        if recursive or not parents:
            entries[name] = entry(name, file)
    if prefix and not entries:
        raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
    return Response(list(entries.values()))


def paths_info(store: Store, request: Request, kind: str, id: str, revision: str) -> Response:
    files = store.open(request.token, KINDS[kind], id).at(revision).files
    found = []
    for path in request.form.get("paths", []):
        if path in files:
            found.append(entry(path, files[path]))
        elif any(name.startswith(f"{path.rstrip('/')}/") for name in files):
            found.append(directory(path))
    return Response(found)


def references(store: Store, request: Request, kind: str, id: str) -> Response:
    repository = store.open(request.token, KINDS[kind], id)
    branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repository.branches.items()]
    tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repository.tags.items()]
    return Response({"branches": branches, "tags": tags, "converts": []})


def history(store: Store, request: Request, kind: str, id: str, revision: str) -> Response:
    repository = store.open(request.token, KINDS[kind], id)
    authors = [{"user": repository.namespace}]
    commits = [
        {"id": c.id, "title": c.title, "message": c.description, "date": c.date, "authors": authors}
        for c in repository.history(revision)
    ]
    return Response(commits)


def create_branch(store: Store, request: Request, kind: str, id: str, revision: str) -> Response:
    repository = store.open(request.token, KINDS[kind], id, write=True)
    if revision in repository.branches:
        raise Refusal(409, "Reference already exists")
    repository.branches[revision] = repository.at(request.json.get("startingPoint") or "main").id
    return Response({})


def create_tag(store: Store, request: Request, kind: str, id: str, revision: str) -> Response:
    repository = store.open(request.token, KINDS[kind], id, write=True)
    repository.tags[request.json["tag"]] = repository.at(revision).id
    return Response({})


def preupload(store: Store, request: Request, kind: str, id: str, revision: str) -> Response:
    """Which files a commit may carry inline, which go to LFS first, and what is there already under their names."""
    present = store.open(request.token, KINDS[kind], id, write=True).at(revision).files
    answers = []
    for file in request.json["files"]:
        lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] >= LFS_BYTES
        mode = "lfs" if lfs else "regular"
        oid = store.git_oid(present[file["path"]]) if file["path"] in present else None
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Response({"files": answers})


def lfs_batch(store: Store, request: Request, kind: str, id: str) -> Response:
    """Where to put each LFS file; one without actions is here already."""
    store.open(request.token, KINDS[kind.rstrip("/")], id, write=True)
    objects = []
    for wanted in request.json["objects"]:
        upload = {"upload": {"href": f"{request.base}/lfs/{wanted['oid']}"}}
        actions = {} if wanted["oid"] in store.blobs else {"actions": upload}
        objects.append({"oid": wanted["oid"], "size": wanted["size"], **actions})
    return Response({"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json")


def lfs_upload(store: Store, request: Request, digest: str) -> Response:
    if hashlib.sha256(request.body).hexdigest() != digest:
        raise Refusal(400, "the content does not have the promised sha256")
    store.put(request.body)
    return Response()


def commit(store: Store, request: Request, kind: str, id: str, revision: str) -> Response:
    """Apply one commit, sent as lines of JSON: a header, then what to add and what to delete."""
    repository = store.open(request.token, KINDS[kind], id, write=True)
    if revision not in repository.branches:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    head = repository.at(revision)
    files, header = dict(head.files), {}
    for line in filter(None, request.body.splitlines()):
        operation = json.loads(line)
        key, value = operation["key"], operation["value"]
        if key == "header":
            header = value
        elif key == "file":
            content = base64.b64decode(value["content"])
            files[value["path"]] = StoredFile(store.put(content), len(content), lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in store.blobs:
                raise Refusal(400, f"LFS object {value['oid']} was not uploaded")
            files[value["path"]] = StoredFile(value["oid"], len(store.blobs[value["oid"]]), lfs=True)
        elif key == "deletedFile":
            del files[value["path"]]
        else:
            raise Refusal(400, f"the test Hub does not know the commit operation {key}")
    if header.get("parentCommit", head.id) != head.id:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    new = repository.append(revision, files, header["summary"], header.get("description", ""), head.id)
    url = f"{request.base}/{'datasets/' if repository.kind == 'dataset' else ''}{id}/commit/{new.id}"
    return Response({"success": True, "commitOid": new.id, "commitUrl": url, "hookOutput": ""})


def download(store: Store, request: Request, kind: str, id: str, revision: str, path: str) -> Response:
    """A file, or the range of its bytes that was asked for."""
    found = store.open(request.token, KINDS[kind.rstrip("/")], id).at(revision)
    if path not in found.files:
        raise Refusal(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": found.id})
    digest, content = found.files[path].sha256, store.blobs[found.files[path].sha256]
    headers = {"X-Repo-Commit": found.id, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
    binary = "application/octet-stream"
    if request.method == "HEAD":
        return Response(b"", 200, binary, headers, length=len(content))
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if wanted is None:
        return Response(content, 200, binary, headers)
    first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
    if first > last:
        raise Refusal(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(content[first : last + 1], 206, binary, headers)


ID = r"(?P<id>[^/]+/[^/]+)"
REPOSITORY = rf"/api/(?P<kind>models|datasets)/{ID}"
AT = r"(?P<revision>[^/]+)"

# methods, pattern of the path, function; the first that fits answers
ROUTES: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", r"/api/whoami-v2", who_am_i),
    ("POST", r"/api/repos/create", create_repository),
    ("POST", r"/api/validate-yaml", validate_card),
    ("GET", REPOSITORY, describe),
    ("GET", rf"{REPOSITORY}/revision/{AT}", describe),
    ("GET", rf"{REPOSITORY}/tree/{AT}(?:/(?P<path>.+))?", tree),
    ("POST", rf"{REPOSITORY}/paths-info/{AT}", paths_info),
    ("GET", rf"{REPOSITORY}/refs", references),
    ("GET", rf"{REPOSITORY}/commits/{AT}", history),
    ("POST", rf"{REPOSITORY}/branch/{AT}", create_branch),
    ("POST", rf"{REPOSITORY}/tag/{AT}", create_tag),
    ("POST", rf"{REPOSITORY}/preupload/{AT}", preupload),
    ("POST", rf"{REPOSITORY}/commit/{AT}", commit),
    ("POST", rf"/(?P<kind>datasets/)?{ID}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", r"/lfs/(?P<digest>[0-9a-f]{64})", lfs_upload),
    ("GET HEAD", rf"/(?P<kind>datasets/)?{ID}/resolve/{AT}/(?P<path>.+)", download),
]
