"""Training: a recipe says what happens to one batch, the trainer what happens between batches."""
