"""connections.toml, what edges cost, and which ones a search may choose."""

import itertools
import math
import tomllib
from pathlib import Path

import pytest

from derain_cli.connections.file import FoundConnections, model_option, read_connections, to_toml
from derain_cli.connections.space import GIGA, SearchSpace
from derain_cli.errors import ConfigError
from derain_cli.models import build_model
from derain_cli.models.rdmc import (
    CANDIDATES,
    PAPER_CONNECTIONS,
    RdmcConfig,
    all_connections,
    multiply_adds,
)
from derain_cli.training.configs.train import TrainConfig


def alphas_for(edges, strength: float = 2.0) -> list[list[float]]:
    return [
        [strength if edge in edges else 0.1 * i for i, edge in enumerate(row)] for row in CANDIDATES
    ]


def found_of(edges=PAPER_CONNECTIONS, **space) -> FoundConnections:
    return FoundConnections(SearchSpace(**space), alphas_for(edges), {"steps": 7, "data": 'a "b"'})


@pytest.fixture
def written(tmp_path) -> Path:
    path = tmp_path / "connections.toml"
    path.write_text(to_toml(found_of()))
    return path


def test_file_says_edges_alphas_entropies_and_costs(written):
    content = tomllib.loads(written.read_text())
    assert content["format"] == 1
    assert {tuple(edge) for edge in content["connections"]} == set(PAPER_CONNECTIONS)
    assert content["multiply_adds"] == multiply_adds(RdmcConfig())
    assert (content["keep"], content["budget"], content["steps"]) == (2, 0.0, 7)
    assert content["data"] == 'a "b"'
    tables = {(table["from"], table["to"]): table for table in content["edge"]}
    assert set(tables) == set(all_connections())
    assert sum(table["multiply_adds"] for edge, table in tables.items() if table["chosen"]) == (
        multiply_adds(RdmcConfig()) - multiply_adds(RdmcConfig(connections=()))
    )
    assert [tables[edge]["alpha"] for edge in PAPER_CONNECTIONS] == [2.0] * 4
    for kind in ("skip_up", "skip_down"):
        shares = [table["share"] for table in tables.values() if table["kind"] == kind]
        assert sum(shares) == pytest.approx(1)
        entropy = -sum(share * math.log(share) for share in shares)
        assert content["entropy"][kind] == pytest.approx(entropy)


def test_file_round_trip_builds_the_network(written):
    option = model_option(read_connections(written))
    config = TrainConfig(model_option=(option,))
    model = build_model("rdmc", config.model_options())
    assert set(model.config.connections) == set(PAPER_CONNECTIONS)
    assert set(model.connections) == {"3_9", "4_8", "2_8", "3_7"}


def test_file_of_another_shape_says_how_to_train_it(tmp_path):
    shape = RdmcConfig(widths=(2, 2, 2, 2, 4), stages=1)
    text = to_toml(found_of(shape=shape))
    line = text.splitlines()[1]
    assert "--model-option 'widths=[2, 2, 2, 2, 4]' --model-option 'stages=1'" in line
    assert "--model-option" not in to_toml(found_of()).splitlines()[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "has format 2, this version reads 1"),
        ("format = 1", "", "has format None, this version reads 1"),
        ("format = 1", "format =", "is not TOML"),
        ("[4, 8]]", "[4, 7]]", "no such edge 4-7; there are 1-6, 1-7"),
        ("[4, 8]]", "[8, 4]]", "no such edge 8-4"),
        ("[4, 8]]", "[4, 8, 1]]", r"no such edge \[4, 8, 1\]"),
        ("[4, 8]]", "7]", "no such edge 7"),
        ("[4, 8]]", "[[4], 8]]", r"no such edge \[4\]-8"),
        ("[4, 8]]", "[3, 7]]", "names an edge twice"),
        ("[4, 8]]", "[4, 10]]", "contradicts itself: edge 4-8 has chosen = true"),
        (", [4, 8]]", "]", "edge 4-8 has chosen = true, but the list does not name it"),
        ("[4, 8]]", "[4, 8], [1, 6]]", "edge 1-6 has chosen = false, but the list does name it"),
        ("to = 6", "to = 5", "no such edge 1-5"),
        ("from = 1\n", "", "no such edge None-6"),
    ],
)
def test_contradictory_files_are_refused(written, old, new, message):
    text = written.read_text()
    assert old in text
    written.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=rf"{written.name}'.*{message}") as refused:
        read_connections(written)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("listed", ["", "connections = []", "connections = 3"])
def test_file_without_edges_is_refused(tmp_path, listed):
    path = tmp_path / "few.toml"
    path.write_text(f"format = 1\n{listed}\n")
    with pytest.raises(ConfigError, match=r"few\.toml' chooses no edge"):
        read_connections(path)


def test_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read connections .*: No such file"):
        read_connections(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_connections(tmp_path / "binary.toml")


def test_a_short_file_written_by_hand_is_enough(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("format = 1\nconnections = [[5, 10], [1, 6]]\n")
    assert read_connections(path) == ((5, 10), (1, 6))


def test_edges_in_the_list_must_be_whole_numbers(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("format = 1\nconnections = [[5.5, 10]]\n")
    with pytest.raises(ConfigError, match=r"no such edge 5\.5-10"):
        read_connections(path)


@pytest.mark.parametrize("keep", [1, 2, 3, 10])
def test_choice_without_a_budget_is_the_top_of_each_category(keep):
    alphas = [[math.sin(7 * i + 3 * row) for i in range(10)] for row in range(2)]
    tops = [
        sorted(zip(values, edges, strict=True), reverse=True)[:keep]
        for values, edges in zip(alphas, CANDIDATES, strict=True)
    ]
    expected = {edge for top in tops for _, edge in top}
    assert set(SearchSpace(keep=keep).choose(alphas)) == expected


@pytest.mark.parametrize("budget", [2.7, 2.9, 3.1, 3.7])
def test_choice_within_a_budget_is_the_likeliest_of_all_that_fit(budget):
    alphas = [[math.sin(5 * i + row) for i in range(10)] for row in range(2)]
    value = {
        edge: alpha
        for edges, row in zip(CANDIDATES, alphas, strict=True)
        for edge, alpha in zip(edges, row, strict=True)
    }
    space = SearchSpace(budget=budget)
    pairs = [list(itertools.combinations(row, 2)) for row in CANDIDATES]
    fitting = [
        ups + downs
        for ups, downs in itertools.product(*pairs)
        if space.cost(ups + downs) <= budget * GIGA
    ]
    best = max(fitting, key=lambda edges: sum(value[edge] for edge in edges))
    chosen = space.choose(alphas)
    assert set(chosen) == set(best)
    assert space.cost(chosen) <= budget * GIGA


def test_budget_that_nothing_meets_names_the_cheapest():
    with pytest.raises(
        ConfigError, match=r"`budget` is 2 GMAC, but .* keeps 2 of each kind has 2"
    ) as e:
        SearchSpace(budget=2.0)
    cheapest = float(str(e.value).split()[-1])
    assert len(SearchSpace(budget=cheapest).draw(1, 0)) == 1
    with pytest.raises(ConfigError):
        SearchSpace(budget=cheapest - 0.002)


@pytest.mark.parametrize("keep", [0, 11])
def test_impossible_number_of_edges_is_named(keep):
    with pytest.raises(ConfigError, match=f"`keep` is {keep}; it must be from 1 to 10"):
        SearchSpace(keep=keep)


def test_random_choices_differ_fit_the_budget_and_follow_the_seed():
    space = SearchSpace(budget=2.9)
    drawn = space.draw(30, seed=4)
    assert drawn == space.draw(30, seed=4)
    assert drawn[:5] == space.draw(5, seed=4)
    assert drawn != space.draw(30, seed=5)
    assert len(set(drawn)) == 30
    for edges in drawn:
        assert space.cost(edges) <= 2.9 * GIGA
        assert [sum(edge in row for edge in edges) for row in CANDIDATES] == [2, 2]


def test_all_choices_can_be_drawn_and_no_more():
    space = SearchSpace(keep=1)
    assert len(set(space.draw(100, 0))) == 100
    for count in (0, 101):
        with pytest.raises(ConfigError, match=rf"random {count}: it must be from 1 to 100"):
            space.draw(count, 0)
