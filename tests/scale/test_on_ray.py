"""Ray Data: a cluster of two machines on this one, real processes killed in the middle."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from derain_cli.cli.app import app

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds processes through /proc"),
]

Derain = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def cluster(s3: Any) -> Iterator[Any]:
    """Two machines of one CPU each, without dashboards; their processes inherit the variables."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args=small)
        cluster.add_node(**{key: small[key] for key in ("num_cpus", "object_store_memory")})
        yield cluster
        with contextlib.suppress(Exception):
            cluster.shutdown()


def raylets(cluster: Any) -> dict[int, Any]:
    """The machines by the process id of what speaks for each."""
    return {node.all_processes["raylet"][0].process.pid: node for node in cluster.list_all_nodes()}


def actors_of(raylet: int) -> list[int]:
    """Processes of actors with the network that were started by a raylet."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet and b"DerainRows" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes a while, so that something can be killed in the middle."""
    import torch

    from derain_cli.checkpoints.files import save_checkpoint
    from derain_cli.models.rdmc import Rdmc, RdmcConfig

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("steady") / "steady.safetensors"
    model = Rdmc(RdmcConfig(widths=(16, 16, 16, 16, 16), stages=2)).eval()
    save_checkpoint(path, model, "rdmc", {"recipe": "none"})
    return path


@contextlib.contextmanager
def second_machine_lost(cluster: Any) -> Iterator[None]:
    """Kill the machine that is not the head; afterwards there is a new one."""
    other = next(node for node in raylets(cluster).values() if not node.head)
    cluster.remove_node(other, allow_graceful=False)
    yield
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)


def wait_for_lines(process: subprocess.Popen[bytes], count: int) -> None:
    for _ in range(count):
        assert process.stdout.readline(), process.stderr.read().decode()


def test_an_evaluation_gives_the_rows_of_one_process(
    cluster: Any,
    derain_process: Derain,
    tiny_checkpoint: Path,
    make_image: Callable[..., Path],
    tmp_path: Path,
) -> None:
    for index in range(6):
        make_image(tmp_path / "rainy" / f"{index}.png", (32, 24))
        make_image(tmp_path / "clean" / f"{index}.png", (32, 24), compress_level=0)
    common = ["eval", "--rainy", tmp_path / "rainy", "--clean", tmp_path / "clean", "-q"]
    common += ["-m", tiny_checkpoint, "-d", "cpu"]
    runs = {
        "alone": derain_process(*common, "--csv", tmp_path / "alone.csv"),
        "ray": derain_process(
            *common, "--csv", tmp_path / "ray.csv", "--on", f"ray://{cluster.address}"
        ),
    }
    for process in runs.values():
        _, error = process.communicate(timeout=1200)
        assert process.returncode == 0, error.decode()
    rows = [
        [line.rsplit(",", 1)[0] for line in (tmp_path / f"{name}.csv").read_text().splitlines()]
        for name in runs
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 1 + 2 * 6


def test_every_image_is_there_once_although_actors_and_a_machine_die(
    s3: Any,
    gate: Any,
    cluster: Any,
    upload: Callable[..., dict[str, bytes]],
    read_all: Callable[[str], dict[str, bytes]],
    derain_process: Derain,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    """Each death has its moment: two images are held back until it has happened."""
    names = sorted(upload("few", 16))
    common = ["s3://photos/few/", "-r", "-q", "-m", tiny_checkpoint, "-d", "cpu", "--threads", "1"]
    alone = CliRunner().invoke(app, [*map(str, common), "-o", "s3://photos/alone/"])
    assert alone.exit_code == 0, alone.output

    let_one, let_other = gate.hold(f"few/{names[11]}"), gate.hold(f"few/{names[15]}")
    manifest = tmp_path / "run.jsonl"
    address = ["--on", f"ray://{cluster.address}", "--manifest", manifest]
    process = derain_process(*common, "-o", "s3://photos/many/", *address, bufsize=0)
    wait_for_lines(process, 1)
    victims = [actor for raylet in raylets(cluster) for actor in actors_of(raylet)]
    assert victims, "no actor holds the network"
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    let_one()
    wait_for_lines(process, 11)  # its block and those before it; the other is still held back
    with second_machine_lost(cluster):
        let_other()
        out, error = process.communicate(timeout=1200)
    assert process.returncode == 0, error.decode()
    assert len(out.splitlines()) == 16 - 12
    assert read_all("many") == read_all("alone")
    records = [json.loads(line) for line in manifest.read_bytes().splitlines()]
    assert sorted(record["input"] for record in records) == [f"s3://photos/few/{n}" for n in names]


@pytest.mark.slow
@pytest.mark.parametrize("images", [60, 300])
def test_an_actor_and_a_machine_are_killed_and_every_image_is_there_once(
    s3: Any,
    cluster: Any,
    upload: Callable[..., dict[str, bytes]],
    read_all: Callable[[str], dict[str, bytes]],
    derain_process: Derain,
    steady: Path,
    tmp_path: Path,
    images: int,
) -> None:
    names = upload(f"in{images}", images)
    common = [f"s3://photos/in{images}/", "-r", "-q", "-m", steady, "-d", "cpu", "--threads", "1"]
    alone = derain_process(*common, "-o", f"s3://photos/alone{images}/")
    assert alone.communicate(timeout=1200)[1] == b""
    assert alone.returncode == 0

    manifest = tmp_path / "run.jsonl"
    address = ["--on", f"ray://{cluster.address}", "--manifest", manifest]
    process = derain_process(*common, "-o", f"s3://photos/many{images}/", *address, bufsize=0)
    head, other = sorted(raylets(cluster), key=lambda pid: not raylets(cluster)[pid].head)
    wait_for_lines(process, 1)
    victims = actors_of(other) or actors_of(head)
    assert victims, "no actor holds the network"
    os.kill(victims[0], signal.SIGKILL)
    wait_for_lines(process, images // 6)
    assert len(s3.find(f"photos/many{images}")) < images, "too late to kill anything"
    cluster.remove_node(raylets(cluster)[other], allow_graceful=False)
    out, error = process.communicate(timeout=1200)
    assert process.returncode == 0, error.decode()

    assert len(out.splitlines()) == images - 1 - images // 6
    many = read_all(f"many{images}")
    assert many.keys() == names.keys()
    assert many == read_all(f"alone{images}")
    records = [json.loads(line) for line in manifest.read_bytes().splitlines()]
    assert sorted(record["input"] for record in records) == sorted(
        f"s3://photos/in{images}/{name}" for name in names
    )
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
