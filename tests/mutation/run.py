"""Plant each mistake of `mutants.py` in a copy of the package and see whether a test notices.

Run it: `python tests/mutation/run.py [NAME_PART ...]`. Prints `killed` or `SURVIVED` for each, and
how many of how many were killed; ends with 1 where one survived. About three seconds a mutant.
"""

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch  # loaded once, for all the children

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from mutants import MUTANTS, Mutant  # noqa: E402 (beside this file, which is no package)


def main(words: Sequence[str]) -> int:
    """Try every mutant whose name holds one of the words, or all; 1 if one survived."""
    torch.set_num_threads(1)
    chosen = [mutant for mutant in MUTANTS if any(word in mutant.name for word in words or [""])]
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = _copy_of_the_package(Path(folder))
        for mutant in chosen:
            dead = _is_killed(mutant, copy)
            killed += dead
            print(f"{'killed' if dead else 'SURVIVED'}  {mutant.name}", flush=True)
    print(f"{killed} of {len(chosen)} mutants killed")
    return 0 if killed == len(chosen) else 1


def _copy_of_the_package(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "derain_cli", folder / "derain_cli", ignore=ignored)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "weights").symlink_to(ROOT / "weights")
    return folder


def _is_killed(mutant: Mutant, copy: Path) -> bool:
    path = copy / "derain_cli" / mutant.file
    healthy = path.read_text(encoding="utf-8")
    if healthy.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: its text does not stand once in {mutant.file}")
    path.write_text(healthy.replace(mutant.old, mutant.new), encoding="utf-8")
    child = os.fork()
    if not child:
        os._exit(_test(mutant.tests, copy))
    _, status = os.waitpid(child, 0)
    path.write_text(healthy, encoding="utf-8")
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):
        raise SystemExit(f"{mutant.name}: the tests could not run (exit code {code})")
    return code == 1


def _test(tests: Sequence[str], copy: Path) -> int:
    """In the child: run tests on the copy; pytest's exit code."""
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = True
    with redirect_stdout(io.StringIO()):
        return int(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
