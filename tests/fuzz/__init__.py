"""Seeded mutations of files of every kind, and what reading them may lead to: see `harness`."""
