"""Scores of models on pairs, compared and reported."""
