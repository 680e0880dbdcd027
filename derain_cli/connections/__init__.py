"""Cross-level connections of RDMC: the search space and what was found."""
