"""What is learned from annotations and results: class statistics, domes, view filtering, render quality, reports."""

import utils  # noqa: F401  (before PyTorch: see utils/cores.py)
