"""What went wrong with one image of a batch, as an error of ours."""

import logging

from derain_cli.batch.events import Job
from derain_cli.errors import DerainError, ImageError, ResourceError

log = logging.getLogger(__name__)


def as_derain_error(job: Job, error: Exception) -> DerainError:
    """The error itself, or one line about a bug, whose traceback goes to the log."""
    if isinstance(error, DerainError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError(f"{job.name!r}: not enough memory for an image of this size")
    log.error("unexpected error with %r", job.name, exc_info=error)
    return ImageError(f"{job.name!r}: unexpected {type(error).__name__}: {error}")
