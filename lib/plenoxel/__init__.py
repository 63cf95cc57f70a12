"""Plenoxel ops: rendering, fitting and resampling sparse voxel grids (`ops`), and a plain `reference`."""
