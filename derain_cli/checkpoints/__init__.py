"""Checkpoints: names, files, the Hub."""

# Here, where nothing heavy is loaded, because `derain --help` names them.
DEFAULT_WEIGHTS = "rdmc-real"
