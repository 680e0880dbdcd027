"""The papers' tables as data: complete, consistent, and of configs that can be."""

import re

import pytest
import torch

from derain_cli.datasets.known import DATASETS
from derain_cli.errors import UsageError
from derain_cli.evaluation import published
from derain_cli.models import build_model
from derain_cli.reproduce.catalogue import OUT_OF_REACH, TABLES, find_table
from derain_cli.reproduce.plan import Options, chosen_rows, job_of, jobs_of
from derain_cli.reproduce.tables import COMMANDS, Column, quoted
from derain_cli.training.configs.finetune import FinetuneConfig, method_values
from derain_cli.training.configs.presets import preset_values
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.objectives import parse_loss

NINETEEN = (
    *("hcn-1", "hcn-2", "hcn-3", "hcn-4", "hcn-8", "hcn-9", "hcn-11", "hcn-12"),
    *("moss-1", "moss-2", "moss-3", "moss-4"),
    *("rdmc-1", "rdmc-2", "rdmc-3", "rdmc-4", "rdmc-5", "rdmc-search"),
    *("menet-1", "menet-2", "menet-4"),
    *("gu-2", "gu-4", "gu-5", "gu-6", "gu-10"),
)
EVERY = list(TABLES.values())


def test_every_table_of_the_papers_is_there():
    assert {*NINETEEN, "gu-claim"} == set(TABLES)
    assert all(table.name == name for name, table in TABLES.items())


@pytest.mark.parametrize("table", EVERY, ids=lambda table: table.name)
def test_a_table_is_consistent(table):
    names = [row.name for row in table.rows]
    assert len(set(names)) == len(names)
    assert not table.against or table.against in names
    assert all(row.method for row in table.rows)
    labels = {column.label: column for column in table.columns}
    for row in table.rows:
        for label, figures in row.paper.items():
            assert len(figures) == len(labels[label].metrics)
        seen = set()
        for run in row.runs:
            assert run.command in COMMANDS
            assert not run.after or run.after in seen
            seen.add(run.name)
    for column in table.columns:
        assert column.dataset in DATASETS or column.dataset == "network"


@pytest.mark.parametrize("table", EVERY, ids=lambda table: table.name)
def test_every_run_is_a_config_and_a_network(table, tmp_path):
    # Of the grids of gu2023 one row a number of patches is enough.
    jobs = jobs_of(table, Options(out=tmp_path, data_root=tmp_path))
    for job in jobs if len(jobs) < 20 else jobs[::17]:
        options = dict(job.run.options)
        if job.run.command == "search":
            continue
        if job.run.command == "finetune":
            config = FinetuneConfig(**(method_values(options["recipe"], options) | options))
        else:
            config = TrainConfig(**(preset_values(options["model"], "paper", options) | options))
            assert parse_loss(config.loss)
        if not job.earlier:
            with torch.device("meta"):
                build_model(config.model, config.model_options())


def test_rows_of_one_run_name_share_its_options():
    """A name is a folder: two runs of one name must be the same run."""
    for table in EVERY:
        known = {}
        for row in table.rows:
            for run in row.runs:
                assert known.setdefault(run.name, run) == run, (table.name, run.name)


def test_figures_agree_with_those_that_eval_quotes():
    """`derain eval --compare-paper` and the tables were typed apart."""
    texts = {
        "hcn-1": (published.HCN_TABLE_1, {"hcn": "HCN"}),
        "rdmc-1": (published.RDMC_TABLE_1, {"rdmc": "RDMC"}),
        "menet-2": (published.MENET_TABLE_2, {}),
    }
    for name, (text, ours) in texts.items():
        head, *lines = (re.split(r"\s{2,}", line) for line in text.strip().splitlines())
        by_method = {method.lower(): cells for method, *cells in lines}
        matched = 0
        for row in TABLES[name].rows:
            method = ours.get(row.name, re.sub(r" \(.*", "", row.method)).lower()
            cells = by_method.get(method)
            if cells is None:
                continue
            matched += 1
            for dataset, cell in zip(head[1:], cells, strict=True):
                assert row.paper[dataset] == tuple(float(part) for part in cell.split("/"))
        assert matched == len(lines)


def test_papers_figures_by_hand():
    """A few of each paper, read off its text."""
    figures = {
        ("hcn-2", "up2down", "rain200h"): (29.828, 0.9201),
        ("hcn-3", "full", "rain200h"): (29.970, 0.9211),
        ("hcn-4", "cascaded", "rain200h"): (29.642, 0.9188),
        ("moss-1", "moss", "ddn_sirr_test:dense"): (22.91,),
        ("moss-2", "moss-20", "rain200h"): (26.87, 0.858),
        ("moss-3", "labelled-40", "rain800"): (24.50, 0.814),
        ("moss-4", "no-self-training", "ddn_sirr_test:sparse"): (25.83, 0.890),
        ("rdmc-2", "sirr", "ddn_sirr_real"): (2.9551,),
        ("rdmc-3", "rdmc", "network"): (249, 3021),
        ("rdmc-4", "stage-3", "rain100l"): (36.5899, 0.9893),
        ("rdmc-5", "no-prior", "ddn_sirr_real"): (3.3423,),
        ("menet-1", "lp-le-lb", "rain100h"): (27.9586, 0.8393),
        ("menet-2", "gb-deep", "rain100h"): (28.7399, 0.8610),
        ("menet-4", "vgg", "rain100l"): (33.8075, 0.9550),
        ("gu-2", "resnet-medium-64", "rain100l"): (53.33, None, 25.02, 20.87),
    }
    for (name, row_name, label), wanted in figures.items():
        row = next(row for row in TABLES[name].rows if row.name == row_name)
        assert row.paper[label] == wanted, (name, row_name)


def test_tables_out_of_reach_say_why():
    assert all(len(table.reason) > 20 for table in OUT_OF_REACH)
    with pytest.raises(UsageError, match=r"'rdmc-6' \(Table VI.*cannot be run: needs SSD"):
        find_table("rdmc-6")
    with pytest.raises(UsageError, match=r"unknown table 'menet-9'\. Did you mean 'menet-"):
        find_table("menet-9")


def test_rows_are_chosen_by_name_and_wildcard():
    table = TABLES["menet-1"]
    assert [row.name for row in chosen_rows(table, ("lp",))] == ["lp"]
    assert [row.name for row in chosen_rows(table, ("lp-le-lt-*-ca",))] == [
        "lp-le-lt-gb-ca",
        "lp-le-lt-lb-ca",
    ]
    with pytest.raises(UsageError, match=r"no row 'lp-lx' to run\. Did you mean 'lp"):
        chosen_rows(table, ("lp-lx",))
    quoted_row = next(row for row in TABLES["hcn-1"].rows if row.name == "rescan")
    assert not quoted_row.is_ours
    assert quoted_row not in chosen_rows(TABLES["hcn-1"], ())


def test_a_row_trains_anew_for_each_training_set():
    table = TABLES["hcn-1"]
    row = next(row for row in table.rows if row.name == "hcn")
    names = [job_of(row, column, 0).name for column in table.columns]
    assert names == [
        "hcn-hcn--rain200h_train--seed0",
        "hcn-hcn--rain200l_train--seed0",
        "hcn-hcn--rain1200_train--seed0",
        "hcn-hcn--rain1400_train--seed0",
        "hcn-hcn--rain200h_train--seed0",
    ]


def test_a_chain_begins_with_what_it_starts_from(tmp_path):
    jobs = jobs_of(TABLES["hcn-11"], Options(out=tmp_path, data_root=tmp_path, seeds=2))
    assert [(job.run.name, job.seed) for job in jobs] == [
        ("hcn", 0),
        ("hcn", 1),
        ("hcn-frozen", 0),
        ("hcn-frozen", 1),
        ("hcn-online", 0),
        ("hcn-online", 1),
    ]
    assert all(job.earlier.name == f"hcn--rain200h_train--seed{job.seed}" for job in jobs[2:])


def test_cells_of_a_text_table():
    columns = [Column("rain12"), Column("rain100l", ("psnr",))]
    text = "row  method  rain12  rain100l\na  A (x)  30.5/0.9  -\nb  B's  -  31"
    rows = quoted(text, columns, {})
    assert rows[0].paper == {"rain12": (30.5, 0.9), "rain100l": (None,)}
    assert rows[1].paper == {"rain12": (None, None), "rain100l": (31.0,)}
    assert [row.method for row in rows] == ["A (x)", "B's"]
