"""Drawings in SVG, made without torch."""
