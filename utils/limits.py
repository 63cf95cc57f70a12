"""Limits of what files may announce: far beyond real data, and small enough that arithmetic stays finite."""

LARGEST_SIDE = 1 << 20  # pixels of an image, or voxels of a grid
FARTHEST = 1e12  # lengths and camera parameters: beyond it, float32 squares of lengths are infinite
