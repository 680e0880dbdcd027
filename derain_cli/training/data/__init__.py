"""Training samples and where they come from."""
