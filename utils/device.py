"""Which device to compute on."""

from __future__ import annotations

import torch

from utils.errors import UserError


def choose_device(name: str = "auto") -> torch.device:
    """``"auto"`` is the GPU where there is one, else the CPU; any other name is taken as PyTorch's.

    Raises:
        UserError: a GPU is requested and there is none, or the name is unknown.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} is unknown; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} was requested but PyTorch sees no GPU; use device = 'auto' or 'cpu'")
    return device


def exact_device(device: torch.device) -> torch.device:
    """The device where a tensor made on ``device`` lies: one name for "cuda" and for the "cuda:0" that it means."""
    return torch.empty(0, device=device).device


def free_cached() -> None:
    """Give memory of GPUs that this process keeps for later back, so that other processes can have it."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
