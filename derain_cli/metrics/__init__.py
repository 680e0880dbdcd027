"""Scores of derained pictures; each a pure function."""
