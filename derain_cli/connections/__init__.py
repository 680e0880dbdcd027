"""Cross-level connections of RDMC: the search space and its results."""
