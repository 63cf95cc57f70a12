import utils  # noqa: F401  (before PyTorch: see utils/cores.py)
