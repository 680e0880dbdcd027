"""Losses, their weighting and the features they compare."""
