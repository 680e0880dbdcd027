"""Runs that are killed at any moment, and what they may leave behind: see `harness`."""
