"""The mutants are up to date: each finds its text, changes it, and names tests that exist."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTANTS = runpy.run_path(str(Path(__file__).with_name("mutants.py")))["MUTANTS"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_text_stands_once_in_its_file(mutant):
    text = (ROOT / "derain_cli" / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert all((ROOT / test).is_file() for test in mutant.tests)


def test_there_are_at_least_86_and_no_two_of_one_name():
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= 86
    assert len(set(names)) == len(names)
