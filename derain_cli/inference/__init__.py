"""The engine: devices, tiles and memory of derained images."""
