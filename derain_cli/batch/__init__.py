"""Many images: what is read, where each result goes, and the pipeline between.

`plan_batch` turns what the user named into a list of jobs and settles every output path before
the first pixel is read: no two results share a path, no original is a target, an existing file is
a target only under `overwrite`. `run_batch` then decodes, derains and writes with the three stages
overlapping, yields what happened in the order of the plan, and never stops for one bad image.

The name of a result depends on its own source and the options alone, never on the other inputs:
a second run with `skip_existing`, or with fewer inputs, finds the same names. Where two results
would share a name the whole batch is therefore refused instead of numbered.

The files, imports pointing down: `pipeline` (the order of results); `encoding`, `network` and
`decoding`, its three stages; `plan`, `places` and `inputs`; and what all of them use. Other modules
import from here alone.
"""

from derain_cli.batch.events import Event, Frames, Motion, Plan, Result, Started, Summary
from derain_cli.batch.inputs import read_list
from derain_cli.batch.interruption import Interrupter
from derain_cli.batch.layers import rain_layer
from derain_cli.batch.options import STDIN, BatchOptions
from derain_cli.batch.pipeline import run_batch
from derain_cli.batch.plan import plan_batch
from derain_cli.batch.writing import write_result

__all__ = [
    "STDIN",
    "BatchOptions",
    "Event",
    "Frames",
    "Interrupter",
    "Motion",
    "Plan",
    "Result",
    "Started",
    "Summary",
    "plan_batch",
    "rain_layer",
    "read_list",
    "run_batch",
    "write_result",
]
