"""Plenoxel ops: rendering, fitting and resampling sparse voxel grids (`ops`), and their plain reference (`reference`)."""
