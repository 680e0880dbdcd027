"""What decides a run: its options, and each paper's published settings."""
