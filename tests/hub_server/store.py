"""What the test Hub holds, in memory: users, repositories, commits, and file contents by their sha256."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Commit", "Refusal", "Repository", "Store", "StoredFile"]

LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".arrow", ".pt", ".png", ".jpg")
LFS_BYTES = 65536  # a file this large is stored as LFS whatever its name


class Refusal(Exception):
    """An answer other than 2xx. `code` is the header from which the clients choose the type of their exception."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})


@dataclass(frozen=True)
class StoredFile:
    """One file of a commit; its bytes are `Store.blobs[sha256]`."""

    sha256: str
    size: int
    lfs: bool


@dataclass(frozen=True)
class Commit:
    """A whole state of a repository: every path it holds."""

    id: str
    title: str
    description: str
    parent: str | None
    files: Mapping[str, StoredFile]
    date: str


@dataclass
class Repository:
    """A model or dataset repository; `branches` and `tags` map a name to a commit id."""

    id: str
    kind: str  # "model" or "dataset"
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag, or a commit id of which the first seven or more characters are given."""
        revision = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        name = self.branches.get(revision) or self.tags.get(revision) or revision
        found = [commit for id, commit in self.commits.items() if id.startswith(name)]
        if len(found) != 1 or not re.fullmatch(r"[0-9a-f]{7,40}", name):
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found[0]

    def history(self, revision: str) -> Iterator[Commit]:
        """The commit of a revision and those before it, newest first."""
        commit: Commit | None = self.at(revision)
        while commit is not None:
            yield commit
            commit = self.commits[commit.parent] if commit.parent else None

    def append(
        self, branch: str, files: Mapping[str, StoredFile], title: str, description: str = "", parent: str | None = None
    ) -> Commit:
        """Put a new state on a branch."""
        content = repr((sorted(files.items()), title, parent, len(self.commits)))
        id = hashlib.sha1(f"{self.kind} {self.id} {content}".encode()).hexdigest()
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        self.commits[id] = Commit(id, title, description, parent, dict(files), date)
        self.branches[branch] = id
        return self.commits[id]


class Store:
    """Users, repositories and contents, with the permissions of the Hub.

    Args:
        users: access token -> user name.
        organizations: organisation -> its members, who may all write.
        read_only: tokens that may read what their user may read and write nothing.
    """

    def __init__(
        self,
        users: Mapping[str, str],
        organizations: Mapping[str, Sequence[str]] | None = None,
        read_only: Sequence[str] = (),
    ):
        self.users, self.organizations = dict(users), {k: list(v) for k, v in (organizations or {}).items()}
        self.read_only = set(read_only)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.lock = threading.RLock()

    def put(self, content: bytes) -> str:
        """Keep some bytes; their sha256."""
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    def git_oid(self, file: StoredFile) -> str:
        """What a client compares its own file with: the sha256 of an LFS file, the git blob id of another."""
        if file.lfs:
            return file.sha256
        return hashlib.sha1(b"blob %d\0" % file.size + self.blobs[file.sha256]).hexdigest()

    def user_of(self, token: str | None) -> str | None:
        """Whose token this is; None without a token."""
        if token is None:
            return None
        if token not in self.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.users[token]

    def organizations_of(self, user: str) -> list[str]:
        return sorted(name for name, members in self.organizations.items() if user in members)

    def require_writer(self, token: str | None, namespace: str) -> str:
        """The name of the user, who may write below a namespace, or the Hub's refusal."""
        user = self.user_of(token)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if token in self.read_only or namespace not in (user, *self.organizations_of(user)):
            raise Refusal(403, f'You don\'t have the rights to write under the namespace "{namespace}"')
        return user

    def create(self, token: str | None, kind: str, id: str, private: bool) -> Repository:
        """A new repository with the Hub's first, empty commit."""
        repository = Repository(id, kind, private)
        self.require_writer(token, repository.namespace)
        repository.append("main", {}, "initial commit")
        self.repositories[kind, id] = repository
        return repository

    def open(self, token: str | None, kind: str, id: str, write: bool = False) -> Repository:
        """A repository that this token may read, or write. The Hub never says that a private one exists."""
        repository, user = self.repositories.get((kind, id)), self.user_of(token)
        namespaces = () if user is None else (user, *self.organizations_of(user))
        if repository is None or (repository.private and repository.namespace not in namespaces):
            raise Refusal(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if write:
            self.require_writer(token, repository.namespace)
        return repository
