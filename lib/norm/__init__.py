"""Batch normalisation in one op with what follows it in a residual network: activation, dropout, residual."""

from lib.norm.ops import can_fuse, normalise

__all__ = ["can_fuse", "normalise"]
