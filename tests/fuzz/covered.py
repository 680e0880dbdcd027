"""`python -m tests.fuzz.covered PARSER [-max_total_time=60]`: guided by coverage.

Atheris (libFuzzer; `pip install atheris`) keeps the inputs that reach new lines of our own parsers
and changes those further. What may leave a parser is in `parsers`. Options behind the parser's name
are libFuzzer's own; an input that fails is written as `crash-*` into the current folder.
"""

import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Fuzz one parser until the time is over or an input fails."""
    import atheris

    with atheris.instrument_imports(include=["derain_cli.images"]):
        from tests.fuzz.parsers import PARSERS, starts
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PARSERS:
        sys.exit(f"usage: python -m tests.fuzz.covered {'|'.join(PARSERS)} [libFuzzer's options]")
    if name == "safetensors":  # torch takes seconds to load
        with atheris.instrument_imports(include=["derain_cli.checkpoints"]):
            import derain_cli.checkpoints.files  # noqa: F401
    with tempfile.TemporaryDirectory() as corpus:
        for number, start in enumerate(starts(name)):
            (Path(corpus) / str(number)).write_bytes(start)
        options = ["-max_total_time=60", "-timeout=5", "-rss_limit_mb=2048", *sys.argv[2:], corpus]
        atheris.Setup([sys.argv[0], *options], PARSERS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
