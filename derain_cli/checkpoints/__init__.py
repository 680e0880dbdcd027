"""Checkpoints: names, files, the Hub."""
