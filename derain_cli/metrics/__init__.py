"""Scores of derained images; each a pure function."""
