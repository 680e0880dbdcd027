"""Checkpoints: names, files, the Hub."""

# Defined in a module without heavy imports, because `derain --help` shows them.
DEFAULT_WEIGHTS = "nimbus-real"
