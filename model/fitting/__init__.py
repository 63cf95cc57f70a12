"""Fitting a radiance field to posed photographs (Plenoxels' optimisation with our additions)."""
