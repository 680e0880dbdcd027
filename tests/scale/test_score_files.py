"""Tables of scores that are no longer as `derain eval --csv` wrote them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from derain_cli.cli.app import app
from derain_cli.errors import UsageError
from derain_cli.scale.score_files import read_scores

HEAD = "dataset,group,image,model,protocol,psnr,seconds\n"
WHOLE = "rain12,,0,input,y,25.1,0.0\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("rain12,,1,inp", "row 3: not as many fields"),  # of a run that was killed
        ("rain12,,1,input,y,25.1,0.0,9", "row 3: not as many fields"),
        ("rain12,,1,input,y,25.1 dB,0.0", "row 3: could not convert string to float: '25.1 dB'"),
        ("rain12,,1,input,y,25.1,", "row 3: could not convert"),
        (f"rain12,,{'1' * 200_000},input,y,25.1,0.0", "field larger"),
    ],
)
def test_a_row_that_is_not_whole_is_named(tmp_path: Path, row: str, message: str) -> None:
    table = tmp_path / "scores.csv"
    table.write_text(HEAD + WHOLE)
    assert [line.scores for line in read_scores([table]).rows] == [{"psnr": 25.1}]
    table.write_text(HEAD + WHOLE + row)
    with pytest.raises(UsageError, match=message):
        read_scores([table])


def test_merging_never_replaces_one_of_the_tables(tmp_path: Path) -> None:
    tables = [tmp_path / f"{index}.csv" for index in range(2)]
    for index, table in enumerate(tables):
        table.write_text(HEAD + WHOLE.replace(",0,input", f",{index},input"))
    refused = CliRunner().invoke(app, ["merge", *map(str, tables), "-o", str(tables[0])])
    assert refused.exit_code == 2
    assert "is one of the inputs" in refused.stderr
    assert tables[0].read_text() == HEAD + WHOLE


def test_scores_of_two_protocols_are_never_averaged(tmp_path: Path) -> None:
    tables = [tmp_path / f"{index}.csv" for index in range(2)]
    tables[0].write_text(HEAD + WHOLE)
    tables[1].write_text(HEAD + WHOLE.replace(",0,input,y", ",1,input,rgb"))
    with pytest.raises(UsageError, match="'rain12' was scored under protocol 'y' and under 'rgb'"):
        read_scores(tables)


def test_models_of_other_images_are_merged(tmp_path: Path) -> None:
    """Each of two runs scored its own network, and only one image is common to both."""
    tables = [tmp_path / f"{index}.csv" for index in range(2)]
    for index, table in enumerate(tables):
        images = range(index, index + 2)
        table.write_text(HEAD + "".join(f"rain12,,{n},net-{index},y,2{n},0.1\n" for n in images))
    result = CliRunner().invoke(app, ["merge", *map(str, tables)])
    assert result.exit_code == 0, result.output
    assert "+0.00 [+0.00, +0.00]" in result.stdout
