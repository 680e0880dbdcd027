"""The version of this package, alone in a file so that nothing else has to be imported for it."""

__version__ = "0.1.0"
