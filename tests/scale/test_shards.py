import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain_cli.errors import UsageError
from derain_cli.scale.shards import Shard, parse_shard, place_of


@given(st.lists(st.text(min_size=1), max_size=50), st.integers(1, 20))
def test_shards_together_hold_each_image_exactly_once(names: list[str], count: int) -> None:
    shards = [Shard(index, count) for index in range(count)]
    for name in names:
        assert sum(shard.holds(name) for shard in shards) == 1


def test_the_hash_is_the_same_on_every_machine_and_for_ever() -> None:
    # A change of these numbers would make two versions of the program do images twice.
    assert place_of("holiday/a.jpg") == 0x49D32677EEC5411C
    assert place_of("ä.jpg") == place_of("a\u0308.jpg")
    assert place_of("below/b.png") == place_of("below\\b.png")


def test_shards_are_of_similar_size() -> None:
    names = [f"drone/{index:06}.jpg" for index in range(20_000)]
    sizes = [sum(Shard(index, 8).holds(name) for name in names) for index in range(8)]
    assert max(sizes) < 1.1 * min(sizes)


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("0/1", {}, Shard(0, 1)),
        ("7/8", {}, Shard(7, 8)),
        ("auto/8", {"JOB_COMPLETION_INDEX": "7"}, Shard(7, 8)),
        ("auto", {"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "4"}, Shard(2, 4)),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_MAX": "4",
            },
            Shard(2, 4),
        ),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "8",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "8",
                "SLURM_ARRAY_TASK_STEP": "4",
            },
            Shard(2, 3),
        ),
        ("auto/16", {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "1"}, Shard(9, 16)),
    ],
)
def test_what_names_a_shard(text: str, environment: dict[str, str], expected: Shard) -> None:
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("8/8", {}, "8 shards are 0/8 to 7/8"),
        ("0/0", {}, "N must be at least 1"),
        ("1", {}, "must be I/N"),
        ("-1/4", {}, "must be I/N"),
        ("a/b", {}, "must be I/N"),
        ("auto", {}, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"),
        ("auto", {"JOB_COMPLETION_INDEX": "0"}, "write --shard auto/N"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "x"}, "'x', not a number"),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_COUNT": "2",
                "SLURM_ARRAY_TASK_MIN": "3",
                "SLURM_ARRAY_TASK_MAX": "7",
            },
            "the Slurm array has gaps",
        ),
    ],
)
def test_what_names_none(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shard(text, environment)
