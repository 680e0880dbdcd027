"""Data sets: the known ones, their layouts, their images and their faults."""
