"""Synthetic rain: kinds, layers, and pairs made of them."""
