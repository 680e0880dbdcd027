"""What stands on a field is all there is to write for an option."""

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import typer
from typer.testing import CliRunner

from derain_cli.cli.runs import options_from
from derain_cli.errors import ConfigError
from derain_cli.training.configs.fields import (
    changed,
    facts,
    hidden,
    option,
    unused,
    without_unused,
    word_of,
)
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.configs.presets import preset_values
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.run_folder import RunFolder

CONFIGS = (TrainConfig, FinetuneConfig, SearchConfig)


@dataclass(frozen=True)
class ToyConfig(TrainConfig):
    """A config with two fields of its own, each written in one place."""

    command: ClassVar[str] = "toy"

    strength: float = option(
        0.25, "How strong the toy is.", group="Toys", above=0, most=2, free_on_resume=True
    )
    toys: int = option(3, "How many toys.", group="Toys", least=1, recipes=("collaborative",))


def help_of(config: TrainConfig) -> str:
    app = typer.Typer()

    @app.command()
    @options_from(config)
    def toy(**options: object) -> None:
        """Play."""

    return CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).stdout


def test_a_new_field_is_in_the_help():
    text = help_of(ToyConfig())
    panel = text.partition("─ Toys ─")[2].partition("╰")[0]
    assert "--strength" in panel
    assert "number  How strong the toy is. [default: 0.25]" in panel
    recipe_panel = text.partition("─ Only with --recipe collaborative ─")[2].partition("╰")[0]
    assert "--toys" in recipe_panel


def test_a_new_field_has_its_range():
    for value in (0.0, 2.5):
        with pytest.raises(ConfigError, match=f"`strength` is {value}; it must be above 0, to 2"):
            ToyConfig(strength=value)
    with pytest.raises(ConfigError, match="`strength` is 'much'; it must be a number"):
        ToyConfig(strength="much")


def test_a_new_field_may_differ_on_resume_only_when_it_says_so(tmp_path):
    config = ToyConfig(recipe="collaborative")
    RunFolder(tmp_path).open(config, resume=False)
    RunFolder(tmp_path).open(dataclasses.replace(config, strength=1.5), resume=True)
    with pytest.raises(ConfigError, match="`resume` with another `toys`: the run has 3, now 4"):
        RunFolder(tmp_path).open(dataclasses.replace(config, toys=4), resume=True)


def test_a_new_field_is_refused_where_its_recipe_is_not_taken():
    with pytest.raises(ConfigError, match="`toys` is not used by recipe 'supervised', which has"):
        ToyConfig(toys=4)
    assert ToyConfig(recipe="collaborative", toys=4).toys == 4
    assert without_unused(ToyConfig, {"toys": 4, "seed": 1}) == {"seed": 1}


def test_a_recipe_of_a_stranger_may_use_every_field():
    assert not unused(TrainConfig, "of_a_stranger")
    assert TrainConfig(recipe="of_a_stranger", loss=("l1:1",)).loss == ("l1:1",)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_option_of_a_command_has_a_sentence_and_a_panel(kind):
    known_recipes = {name for config in CONFIGS for name in config.recipes}
    names = {item.name for item in dataclasses.fields(kind)}
    for item in dataclasses.fields(kind):
        known = facts(item)
        assert known.help.endswith("."), item.name
        assert known.group, item.name
        assert word_of(item) or item.type is bool, item.name
        assert set(known.recipes) <= known_recipes, item.name
        assert set(known.hidden_in) <= {config.command for config in CONFIGS}, item.name
        assert set(known.yields_to) <= names, item.name
        assert known.former not in names, item.name


def test_commands_hide_what_no_recipe_of_theirs_uses():
    assert not hidden(TrainConfig)
    assert {"loss", "images", "model", "output_weights"} <= hidden(FinetuneConfig)
    unused = {"model", "recipe", "accumulate", "output_weights", "scale_weights"}
    assert hidden(SearchConfig) == unused


def test_a_changed_field_keeps_the_rest_of_its_parents():
    item = {item.name: item for item in dataclasses.fields(SearchConfig)}["steps"]
    assert (item.default, facts(item).above, facts(item).stated) == (5000, 0, True)
    with pytest.raises(ConfigError, match="`steps` is 0; it must be above 0"):
        SearchConfig(steps=0)
    again = changed(TrainConfig, "seed", most=9)
    assert (again.default, facts(again).least, facts(again).most) == (0, 0, 9)


def test_config_of_an_earlier_version_reads_under_the_new_names(tmp_path):
    fields = json.loads(TrainConfig().to_json())
    del fields["images"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields | {"pictures": 7}))
    assert TrainConfig.read(path).images == 7


def test_what_a_file_says_of_another_recipe_is_left_out():
    fields = {"recipe": "collaborative", "loss": ["l1:1"], "seed": 5}
    assert TrainConfig.from_mapping(fields) == TrainConfig(recipe="collaborative", seed=5)


def test_a_preset_gives_a_recipe_what_it_uses():
    values = preset_values("rdmc", "paper", {"recipe": "collaborative"})
    assert "loss" not in values
    assert values["crop"] == 128
    assert TrainConfig(**values, recipe="collaborative").recipe == "collaborative"
    assert "rain" in preset_values("rdmc", "wide-rain", {"backgrounds": 64})
    assert "rain" not in preset_values("rdmc", "wide-rain", {"dataset": ("mine",)})
