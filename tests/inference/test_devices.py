"""Precisions: what "auto" means on this and on other processors."""

import pytest

from derain_cli.errors import UsageError
from derain_cli.inference import devices
from derain_cli.inference.devices import choose_precision, cpu_multiplies_bf16


@pytest.mark.parametrize(
    ("cpuinfo", "native"),
    [
        ("flags\t\t: fpu sse avx2 avx512f avx512_bf16 amx_tile\n", True),
        ("flags\t\t: fpu sse avx2 amx_bf16\n", True),
        ("Features\t: fp asimd i8mm bf16 dgh\n", True),
        ("flags\t\t: fpu sse avx2 avx512f\n", False),
        ("model name\t: bf16 in the name only\nflags\t: avx2\n", False),
        ("", False),
    ],
)
def test_native_bf16_is_read_from_the_processors_flags(tmp_path, cpuinfo, native):
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert cpu_multiplies_bf16(path) is native


def test_an_unreadable_list_of_flags_means_fp32(tmp_path):
    assert not cpu_multiplies_bf16(tmp_path / "none")


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_bf16_where_it_is_native(monkeypatch, native, precision):
    monkeypatch.setattr(devices, "cpu_multiplies_bf16", lambda: native)
    assert choose_precision("auto", "cpu") == precision
    assert choose_precision("fp32", "cpu") == "fp32"


def test_an_unknown_precision_names_the_known_ones():
    with pytest.raises(
        UsageError, match=r"unknown precision 'int8'\. Known: auto, fp32, bf16, fp16"
    ):
        choose_precision("int8", "cpu")
