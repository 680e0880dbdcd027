"""Drawings, made without torch: SVG of our own, and curves by matplotlib."""
