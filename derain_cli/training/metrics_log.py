"""A run's log, `metrics.jsonl`: the one place that reads it."""

import json
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, in order.

    A line that a kill cut short, that is no JSON object or that names no step is left out, and a
    run without a log has none: a log tells of a run, it never stands in its way.
    """
    path = folder / METRICS
    text = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
    parsed = (_parsed(line) for line in text.splitlines())
    return [line for line in parsed if isinstance(line, dict) and isinstance(line.get("step"), int)]


def _parsed(line: str) -> Any:  # noqa: ANN401 (any JSON value)
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
