"""An evaluation on Ray Data: one actor per device scores whole pairs, as one process would."""

import functools
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain_cli.datasets.layouts import Pair
from derain_cli.errors import DerainError
from derain_cli.evaluation.scoring import Deraining, Key, evaluate, key_of
from derain_cli.evaluation.statistics import INPUT, Row
from derain_cli.scale import on_ray


@dataclass(frozen=True)
class Weights:
    """A model by its name in the tables, and the checkpoint's file name and content."""

    name: str
    file: str
    content: bytes


def read_weights(name: str) -> Weights:
    """The checkpoint behind a name or path, to be sent to other machines.

    Raises:
        UnavailableError: Nothing of that name.
        CheckpointError: The file is damaged.
    """
    from derain_cli.checkpoints.resolving import load_model  # noqa: PLC0415 (torch)

    path = load_model(name).path  # refused here, not on every machine
    return Weights(name, path.name, path.read_bytes())


def load_derainers(
    weights: Sequence[Weights], engine: Mapping[str, Any], strength: float
) -> list[Deraining]:
    """The networks on this machine, named as in the tables."""
    from derain_cli.evaluation.deraining import EvaluatedModel  # noqa: PLC0415 (torch)
    from derain_cli.inference.derainer import Derainer  # noqa: PLC0415 (torch)

    models: list[Deraining] = []
    for item in weights:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / item.file
            path.write_bytes(item.content)
            derainer = Derainer.load(path, **engine)
        models.append(EvaluatedModel(derainer, item.name, strength))
    return models


class EvaluateRows:
    """`(data set, pair)` to its `Row`s, or to the error that it ends with."""

    def __init__(
        self,
        load: Callable[[], Sequence[Deraining]],
        protocol: str | None,
        metrics: Sequence[str],
    ) -> None:
        self._protocol, self._metrics = protocol, metrics
        self._models: Sequence[Deraining] = ()
        self._problem: DerainError | None = None
        try:
            self._models = load()
        except DerainError as error:
            self._problem = error

    def __call__(self, table: Any) -> Iterator[Any]:  # noqa: ANN401 (pyarrow has no types)
        """The rows of a block, a table per pair."""
        pairs: dict[str, list[Pair]] = {}
        for dataset, pair in on_ray.objects_of(table):
            pairs.setdefault(dataset, []).append(pair)
        if self._problem is not None:
            yield on_ray.table_of([self._problem])
            return
        try:
            for row in evaluate(pairs, self._models, self._protocol, metrics=self._metrics):
                yield on_ray.table_of([row])
        except DerainError as error:
            yield on_ray.table_of([error])


def evaluate_on_ray(
    datasets: Mapping[str, Sequence[Pair]],
    weights: Sequence[Weights],
    engine: Mapping[str, Any],
    protocol: str | None,
    metrics: Sequence[str],
    strength: float,
    done: Collection[Key],
    on: str,
) -> Iterator[Row]:
    """As `evaluation.scoring.evaluate`, on the devices of a cluster; rows in the same order.

    Args:
        datasets: Name to pairs; their files are reachable from every machine.
        weights: The models.
        engine: Keyword arguments of `Derainer`.
        protocol: As of `evaluate`.
        metrics: As of `evaluate`.
        strength: Share of the rain that is removed.
        done: Rows that are known already and are left out.
        on: `ray`, or `ray://ADDRESS` of a running cluster.

    Raises:
        DerainError: As of `evaluate`; a cluster that cannot be reached or stopped.
    """
    wanted = [INPUT, *(item.name for item in weights)]
    cases = [
        (name, pair)
        for name, pairs in datasets.items()
        for pair in pairs
        if any((name, pair.name, model) not in done for model in wanted)
    ]
    if not cases:
        return
    with on_ray.started(on) as ray, on_ray.ray_errors(ray):
        devices = on_ray.devices_of(ray.cluster_resources(), str(engine.get("device", "auto")))
        engine = dict(engine) | {"device": devices.name}
        load = functools.partial(load_derainers, weights, engine, strength)
        actor = (load, protocol, list(metrics))
        found: dict[tuple[str, str], list[Row]] = {}
        for item in on_ray.on_devices(cases, EvaluateRows, actor, devices):
            if isinstance(item, DerainError):
                raise item
            found.setdefault((item.dataset, item.image), []).append(item)
    for name, pair in cases:
        rows = found.pop((name, pair.name), ())
        yield from (row for row in rows if key_of(row) not in done)
