"""Checkpoints on the Hub: its real client against a small Hub on this machine."""

import base64
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from typer.testing import CliRunner

from derain_cli.checkpoints import hub
from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.checkpoints.hub import HubFile
from derain_cli.checkpoints.resolving import find_weights, load_model, pull_weights, resolve_weights
from derain_cli.cli.app import app
from derain_cli.errors import CheckpointError, UnavailableError, UsageError

TOKEN = "hf_of_the_tests"
CHECKPOINT = bytes(range(256)) * 40
REPO = "me/rainfree"


@dataclass
class Repository:
    """Files by commit; branches and tags are names of commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, **files: bytes) -> str:
        tree = {**self.commits.get(self.refs.get("main", ""), {}), **files}
        name = hashlib.sha1(repr(sorted(tree.items())).encode()).hexdigest()
        self.commits[name] = tree
        self.refs["main"] = name
        return name


class FakeHub:
    """The part of the Hub's HTTP interface that its client needs, with faults to switch on."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.cuts: list[int] = []  # after so many bytes the next downloads break off
        self.pause = 0.0  # before a download is answered
        self.read_only = False
        hub_of_handler = self

        class Handler(_Handler):
            hub = hub_of_handler

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        # Another host name, as the real Hub's storage has: the token must not go there.
        self.storage_url = f"http://localhost:{self.server.server_port}/storage"

    def add(self, repo: str = REPO, **files: bytes) -> str:
        repository = self.repositories.setdefault(repo, Repository())
        return repository.commit(**{name.replace("__", "."): files[name] for name in files})

    def store(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.large_files.setdefault(digest, content)
        return digest

    def downloads(self) -> list[dict[str, str]]:
        """Headers of the requests for content, not for what is known of it."""
        return [h for method, path, h in self.requests if method == "GET" and "/storage/" in path]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, content: object, status: int = 200) -> None:
        self.answer(status, json.dumps(content).encode(), Content_Type="application/json")

    def note(self) -> bytes:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append((self.command, self.path, headers))
        if headers.get("transfer-encoding") == "chunked":
            return b"".join(self.chunks())
        return self.rfile.read(int(headers.get("content-length", 0)))

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    @property
    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.note()
        if found := re.fullmatch(r"/storage/(\w+)", self.path):
            return self.send_content(self.hub.large_files[found[1]])
        if found := re.fullmatch(r"/(?:datasets/)?(\w+/\w+)/resolve/([^/]+)/(.+)", self.path):
            return self.resolve(*found.groups())
        about = r"/api/(?:models|datasets)/(\w+/\w+)(?:/revision/(\w+))?(?:\?blobs=[Tt]rue)?"
        if found := re.fullmatch(about, self.path):
            return self.describe(found[1], found[2] or "main")
        return self.answer(404)

    def files_of(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.hub.repositories.get(repo)
        if repository is None or (repository.private and not self.known):
            self.answer(401, X_Error_Code="RepoNotFound")
            return None
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self.answer(404, X_Error_Code="RevisionNotFound")
            return None
        return commit, repository.commits[commit]

    def resolve(self, repo: str, revision: str, name: str) -> None:
        found = self.files_of(repo, revision)
        if found is None:
            return
        commit, files = found
        if name not in files:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        digest = self.hub.store(files[name])
        size = len(files[name])
        linked = {"X_Linked_Etag": f'"{digest}"', "X_Linked_Size": size}
        location = f"{self.hub.storage_url}/{digest}"
        self.answer(302, Location=location, X_Repo_Commit=commit, **linked)

    def describe(self, repo: str, revision: str) -> None:
        found = self.files_of(repo, revision)
        if found:
            siblings = [
                {"rfilename": name, "lfs": self.large(content)}
                for name, content in found[1].items()
            ]
            self.answer_json({"id": repo, "sha": found[0], "siblings": siblings})

    def large(self, content: bytes) -> dict[str, object]:
        digest = self.hub.store(content)
        return {"sha256": digest, "size": len(content), "pointerSize": 130}

    def send_content(self, content: bytes) -> None:
        time.sleep(self.hub.pause)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = self.hub.cuts.pop(0) if self.hub.cuts else len(content)
        self.wfile.write(content[start : start + cut])

    def do_PUT(self) -> None:
        self.hub.store(self.note())
        self.answer(200)

    def do_POST(self) -> None:
        body = self.note()
        if not self.known or (self.hub.read_only and self.path == "/api/repos/create"):
            return self.answer(403)
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self.answer_json({})
        if found := re.fullmatch(r"/api/models/(\w+/\w+)/preupload/main", self.path):
            return self.choose_modes(json.loads(body))
        if found := re.fullmatch(r"/(\w+/\w+)\.git/info/lfs/objects/batch", self.path):
            return self.take_large_files(json.loads(body))
        if found := re.fullmatch(r"/api/models/(\w+/\w+)/commit/main", self.path):
            return self.take_commit(found[1], body)
        return self.answer(404)

    def create(self, wanted: dict[str, str]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        status = 409 if repo in self.hub.repositories else 200
        private = wanted.get("visibility") == "private"
        self.hub.repositories.setdefault(repo, Repository(private=private))
        self.answer_json({"url": f"{self.hub.url}/{repo}"}, status)

    def choose_modes(self, wanted: dict[str, list[dict[str, str]]]) -> None:
        modes = [
            {
                "path": item["path"],
                "uploadMode": "lfs" if item["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for item in wanted["files"]
        ]
        self.answer_json({"files": modes})

    def take_large_files(self, wanted: dict[str, list[dict[str, str]]]) -> None:
        href = {"href": self.hub.storage_url}
        objects = [item | {"actions": {"upload": href}} for item in wanted["objects"]]
        self.answer_json({"transfer": "basic", "objects": objects})

    def take_commit(self, repo: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
        commit = self.hub.repositories[repo].commit(**files)
        self.answer_json(
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.hub.url}/{repo}/commit/{commit}",
            }
        )


@pytest.fixture(scope="module")
def running_hub() -> Iterator[FakeHub]:
    """One server for the module; `hub_server` empties it."""
    fake = FakeHub()
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


@pytest.fixture
def hub_server(running_hub, tmp_path, monkeypatch) -> Iterator[FakeHub]:
    """An empty Hub that the client in this process talks to, and an empty cache."""
    running_hub.repositories.clear()
    running_hub.large_files.clear()
    running_hub.requests.clear()
    running_hub.cuts, running_hub.pause, running_hub.read_only = [], 0.0, False
    use_hub(monkeypatch, running_hub.url, tmp_path / "cache")
    yield running_hub
    huggingface_hub.close_session()


def use_hub(monkeypatch, url: str, cache: Path) -> None:
    """What HF_ENDPOINT, HF_HOME … would have set when the client was first imported."""
    huggingface_hub.close_session()
    constants = huggingface_hub.constants
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def go_offline(monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def cached_files(tmp_path: Path) -> list[str]:
    """What a cache holds of content: whole files, half files, links."""
    cache = tmp_path / "cache"
    held = (path for part in ("blobs", "snapshots") for path in cache.glob(f"*/{part}/**/*"))
    return [str(path) for path in held if path.is_symlink() or path.is_file()]


def child_of(hub_server: FakeHub, home: Path, code: str, **environment: str):
    """A process that runs code after `checkpoints.hub` was imported, with a Hub of ours."""
    settings = {"HF_ENDPOINT": hub_server.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    prelude = (
        "import sys\n"
        "from derain_cli.errors import DerainError\n"
        "from derain_cli.checkpoints.hub import *\n"
        "def stop(error): print(error, file=sys.stderr); sys.exit(error.exit_code)\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kept | settings | environment,
    )


DOWNLOAD = f"""
try: print(download(HubFile({REPO!r})))
except DerainError as error: stop(error)
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:me/net", HubFile("me/net")),
        ("hf:me/net@v1.0", HubFile("me/net", "v1.0")),
        ("hf:me/net@refs/pr/3", HubFile("me/net", "refs/pr/3")),
        ("hf:me/net:a/b.safetensors", HubFile("me/net", "", "a/b.safetensors")),
        ("hf:me/net@v1:x.safetensors", HubFile("me/net", "v1", "x.safetensors")),
    ],
)
def test_names_of_hub_files(text, expected):
    assert HubFile.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "hf:net",
        "hf:a/b/c",
        "hf:me/../x",
        "hf:me/net@",
        "hf:me/n--t",
        "hf:me/net:../x",
        "hf:",
        "hf:-a/b",
    ],
)
def test_what_is_no_name_of_a_hub_file_is_refused(text):
    with pytest.raises(UsageError, match=r"is not of the form hf:org/repo\[@revision\]\[:file\]"):
        HubFile.parse(text)


def test_a_pickled_file_is_refused_before_it_is_downloaded(hub_server):
    hub_server.add(model__pth=b"anything")
    with pytest.raises(CheckpointError, match="pickled files of strangers are never loaded"):
        resolve_weights(f"hf:{REPO}:model.pth")
    assert hub_server.requests == []


def test_download_then_cache_without_a_request(hub_server, tmp_path):
    hub_server.add(model__safetensors=CHECKPOINT)
    source = HubFile(REPO)
    assert hub.find_cached(source) is None
    assert hub_server.requests == []
    path = hub.download(source)
    assert path.read_bytes() == CHECKPOINT
    hub_server.requests.clear()
    assert hub.find_cached(source) == path
    assert resolve_weights(f"hf:{REPO}") == path
    assert hub_server.requests == []


def test_revisions_are_kept_apart_and_a_branch_moves_only_when_pulled(hub_server):
    first = hub_server.add(model__safetensors=b"first")
    name = f"hf:{REPO}"
    assert resolve_weights(name).read_bytes() == b"first"
    hub_server.add(model__safetensors=b"second")
    hub_server.repositories[REPO].refs["v1"] = first
    assert resolve_weights(name).read_bytes() == b"first"
    assert pull_weights(name).read_bytes() == b"second"
    assert resolve_weights(name).read_bytes() == b"second"
    for revision in (first, "v1"):
        assert resolve_weights(f"{name}@{revision}").read_bytes() == b"first"
    hub_server.requests.clear()
    assert pull_weights(f"{name}@{first}").read_bytes() == b"first"
    assert hub_server.requests == []


def test_private_repository_needs_the_token_which_storage_never_sees(hub_server, monkeypatch):
    hub_server.add(model__safetensors=CHECKPOINT)
    hub_server.repositories[REPO].private = True
    with pytest.raises(UnavailableError, match="if it is private, run `hf auth login`"):
        hub.download(HubFile(REPO))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub.download(HubFile(REPO)).read_bytes() == CHECKPOINT
    (headers,) = hub_server.downloads()
    assert "authorization" not in headers


def test_what_is_not_there_is_said(hub_server):
    hub_server.add(small__safetensors=b"x", README__md=b"x")
    hub_server.add("me/pickles", pytorch_model__bin=b"x")
    cases = {
        "hf:me/nothing": "no such repository",
        f"hf:{REPO}@v9:small.safetensors": "the repository has no revision 'v9'",
        f"hf:{REPO}": r"no file 'model\.safetensors'; name one .*hf:me/rainfree:small\.safetensors",
        "hf:me/pickles": "no file .* it has no safetensors file, and pickled files",
    }
    for name, message in cases.items():
        with pytest.raises(UnavailableError, match=message) as caught:
            resolve_weights(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["switched off", "nobody listens"])
def test_without_a_network_it_fails_at_once_and_the_cache_serves(how, hub_server, monkeypatch):
    hub_server.add(model__safetensors=CHECKPOINT)
    name = f"hf:{REPO}"
    path = resolve_weights(name)
    if how == "switched off":
        go_offline(monkeypatch)
    else:
        use_hub(monkeypatch, "http://127.0.0.1:9", path.parents[3])
    assert resolve_weights(name) == path
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="cannot download 'hf:me/other': ") as caught:
        resolve_weights("hf:me/other")
    assert time.monotonic() - started < 15  # the client alone would try for 23 s
    assert "\n" not in str(caught.value)
    assert ("HF_HUB_OFFLINE" in str(caught.value)) == (how == "switched off")


def test_a_broken_connection_goes_on_where_it_stopped(hub_server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub_server.add(model__safetensors=CHECKPOINT)
    hub_server.cuts = [3500]
    assert hub.download(HubFile(REPO)).read_bytes() == CHECKPOINT
    assert [headers.get("range") for headers in hub_server.downloads()] == [None, "bytes=3000-"]


@pytest.mark.slow
def test_a_connection_that_keeps_breaking_leaves_nothing(hub_server, tmp_path):
    hub_server.add(model__safetensors=CHECKPOINT)
    hub_server.cuts = [10] * 10
    with pytest.raises(UnavailableError, match="cannot reach"):
        hub.download(HubFile(REPO))
    assert cached_files(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_content_that_is_not_what_the_hub_states_is_not_kept(
    links, hub_server, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_SYMLINKS", not links)
    hub_server.add(model__safetensors=CHECKPOINT)
    digest = hub_server.store(CHECKPOINT)
    hub_server.large_files[digest] = CHECKPOINT[::-1]
    with pytest.raises(CheckpointError, match="its SHA-256 is"):
        hub.download(HubFile(REPO))
    assert cached_files(tmp_path) == []
    assert hub.find_cached(HubFile(REPO)) is None


def test_a_cached_file_that_rotted_is_refused_and_pulled_again(hub_server):
    commit = hub_server.add(model__safetensors=CHECKPOINT)
    for name in (f"hf:{REPO}", f"hf:{REPO}@{commit}"):
        path = resolve_weights(name)
        path.write_bytes(CHECKPOINT[:-1] + b"?")
        with pytest.raises(CheckpointError, match="is damaged"):
            resolve_weights(name)
        assert pull_weights(name).read_bytes() == CHECKPOINT
        assert resolve_weights(name) == path


def test_a_hostile_pickle_under_an_honest_name_is_never_opened(hub_server, tmp_path):
    trace = tmp_path / "executed"

    class Boom:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(trace), "w"))

    hub_server.add(model__safetensors=pickle.dumps(Boom()))
    with pytest.raises(CheckpointError, match="is not a safetensors checkpoint"):
        load_model(f"hf:{REPO}")
    assert not trace.exists()


def test_two_processes_download_a_file_once(hub_server, tmp_path):
    hub_server.add(model__safetensors=CHECKPOINT)
    hub_server.pause = 0.5
    children = [child_of(hub_server, tmp_path, DOWNLOAD) for _ in range(2)]
    printed = {child.communicate(timeout=60) for child in children}
    ((path, errors),) = printed
    assert errors == ""
    assert Path(path.strip()).read_bytes() == CHECKPOINT
    # One may finish before the other has begun; both asking for the content is what must not be.
    assert len(hub_server.downloads()) == 1


def test_the_hubs_environment_is_honoured(hub_server, tmp_path):
    hub_server.add(model__safetensors=CHECKPOINT)
    hub_server.repositories[REPO].private = True
    child = child_of(hub_server, tmp_path / "home", DOWNLOAD, HF_TOKEN=TOKEN)
    path = Path(child.communicate(timeout=60)[0].strip())
    assert path.is_relative_to(tmp_path / "home" / "hub")
    assert path.read_bytes() == CHECKPOINT
    offline = child_of(hub_server, tmp_path / "none", DOWNLOAD, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in offline.communicate(timeout=60)[1]
    assert offline.returncode == 4


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are POSIX's")
def test_a_full_disk_is_exit_5_and_leaves_nothing(hub_server, tmp_path):
    hub_server.add(model__safetensors=CHECKPOINT)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
    child = child_of(hub_server, tmp_path / "home", limit + DOWNLOAD)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 5
    (line,) = errors.splitlines()
    assert line.startswith(f"cannot write the Hub's cache for hf:{REPO}: ")
    blobs = list((tmp_path / "home").glob("hub/*/blobs/*"))
    assert blobs == []


# Our own names: entries of weights.toml that are pinned to a commit.


@pytest.fixture
def own_weights(hub_server, tmp_path, tiny_checkpoint, monkeypatch):
    """Two entries, of which one is bundled and one is on the Hub; (entry's file, its commit)."""
    content = tiny_checkpoint.read_bytes()
    commit = hub_server.add(hub.WEIGHTS_REPO.replace("-", "_"), rdmc_far__safetensors=content)
    monkeypatch.setattr(hub, "WEIGHTS_REPO", hub.WEIGHTS_REPO.replace("-", "_"))
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "rdmc-near.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    entry = f'model = "rdmc"\nsha256 = "{digest}"\n'
    (folder / "weights.toml").write_text(
        f'[rdmc-near]\n{entry}file = "rdmc-near.safetensors"\n'
        f'[rdmc-far]\n{entry}default = true\nfile = "rdmc_far.safetensors"\nrevision = "{commit}"\n'
    )
    monkeypatch.setenv("DERAIN_WEIGHTS", str(folder))
    return folder


def test_own_names_are_looked_up_bundled_then_cached_then_on_the_hub(own_weights, hub_server):
    assert load_model("rdmc-near").path == own_weights / "rdmc-near.safetensors"
    assert find_weights("rdmc-far") is None
    assert hub_server.requests == []
    loaded = load_model("rdmc")
    assert (loaded.name, loaded.architecture) == ("rdmc", "rdmc")
    hub_server.requests.clear()
    assert load_model("rdmc-far").path == loaded.path
    assert hub_server.requests == []
    (own_weights / "rdmc_far.safetensors").write_bytes(loaded.path.read_bytes())
    assert resolve_weights("rdmc-far").parent == own_weights


def test_own_name_with_another_digest_is_refused_and_not_kept(own_weights, hub_server, tmp_path):
    (repository,) = hub_server.repositories.values()
    (commit,) = repository.commits
    repository.commits[commit] = {"rdmc_far.safetensors": CHECKPOINT}
    with pytest.raises(CheckpointError, match="not the file that was released"):
        load_model("rdmc-far")
    assert cached_files(tmp_path) == []


def test_offline_own_name_says_what_is_bundled_and_where_to_put_the_file(own_weights, monkeypatch):
    go_offline(monkeypatch)
    with pytest.raises(UnavailableError) as caught:
        load_model("rdmc-far")
    message = str(caught.value)
    assert f"put 'rdmc_far.safetensors' into {str(own_weights)!r}" in message
    assert message.endswith(". Bundled: rdmc-near")
    assert load_model("rdmc-near").architecture == "rdmc"


# Uploads.


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """A run folder as training leaves one."""
    from derain_cli.models.rdmc import Rdmc, RdmcConfig
    from derain_cli.training.configs.train import TrainConfig

    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    config = TrainConfig(dataset=("rain100l_train",), data_root="/secret/place", steps=8, seed=3)
    about = {"config": config.to_json(), "step": "8", "seconds": "5", "validation_psnr": "20.5"}
    model = Rdmc(RdmcConfig(widths=(2, 2, 2, 2, 2), stages=1))
    save_checkpoint(folder / "best.safetensors", model, "rdmc", about)
    return folder


def push(*arguments: object):
    return CliRunner().invoke(app, ["models", "push", *map(str, arguments)])


def test_push_uploads_a_checkpoint_that_can_be_used_and_a_card(hub_server, run_folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = push(run_folder, f"hf:{REPO}", "--private")
    assert result.exit_code == 0, result.stderr
    repository = hub_server.repositories[REPO]
    name = result.stdout.strip()
    assert name == f"hf:{REPO}@{repository.refs['main']}"
    assert repository.private
    files = repository.commits[repository.refs["main"]]
    assert files.keys() == {"model.safetensors", "README.md"}
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: derain\n")
    assert f"derain photo.jpg --model hf:{REPO}\n" in card
    for fact in ("derain train --model rdmc --dataset rain100l_train", digest, "20.5"):
        assert fact in card
    assert digest in result.stderr
    assert not any(b"/secret/place" in content for content in files.values())
    pushed, own = load_model(name).model.state_dict(), load_model(run_folder).model.state_dict()
    assert all(torch.equal(pushed[key], own[key]) for key in own)


def test_push_again_keeps_a_card_that_was_edited(hub_server, run_folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub_server.add(README__md=b"by hand")
    target = f"hf:{REPO}:other.safetensors"
    assert push(run_folder, target).exit_code == 0
    repository = hub_server.repositories[REPO]
    files = repository.commits[repository.refs["main"]]
    assert (files["README.md"], len(files)) == (b"by hand", 2)
    assert push(run_folder, target, "--new-card").exit_code == 0
    files = repository.commits[repository.refs["main"]]
    assert f"--model {target}".encode() in files["README.md"]


def test_push_says_why_it_cannot(hub_server, run_folder, monkeypatch):
    def line_and_code(*arguments: object) -> tuple[str, int]:
        result = push(*arguments)
        (line,) = result.stderr.splitlines()
        return line, result.exit_code

    line, code = line_and_code(run_folder, f"hf:{REPO}")
    assert code == 4
    assert "without a token: run `hf auth login`, or set HF_TOKEN" in line
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub_server.read_only = True
    line, code = line_and_code(run_folder, f"hf:{REPO}")
    assert (code, "the Hub answered 403; run `hf auth login`" in line) == (4, True)
    go_offline(monkeypatch)
    started = time.monotonic()
    line, code = line_and_code(run_folder, f"hf:{REPO}")
    assert (code, "HF_HUB_OFFLINE is set" in line) == (4, True)
    assert time.monotonic() - started < 15
    assert line_and_code(run_folder, f"hf:{REPO}@v1")[1] == 2
    assert line_and_code(run_folder / "none", f"hf:{REPO}")[1] == 4


def test_pull_prints_where_the_files_are(hub_server, own_weights, tiny_checkpoint):
    hub_server.add(model__safetensors=tiny_checkpoint.read_bytes())
    runner = CliRunner()
    result = runner.invoke(app, ["models", "pull", "rdmc-near", "rdmc-far", f"hf:{REPO}"])
    assert result.exit_code == 0, result.stderr
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert [path.name for path in paths] == [
        "rdmc-near.safetensors",
        "rdmc_far.safetensors",
        "model.safetensors",
    ]
    assert all(path.read_bytes() == tiny_checkpoint.read_bytes() for path in paths)
    assert runner.invoke(app, ["models", "pull"]).exit_code == 2
    assert runner.invoke(app, ["models", "pull", "--all"]).exit_code == 0
