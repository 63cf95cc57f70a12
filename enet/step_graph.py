"""A whole training step as one CUDA graph: views, forward, loss, backward and optimiser in a single launch.

A step of ENet is some 1500 small kernels; launched one by one, the host takes three times as long as the GPU computes.
The graph is recorded in the first step of a process and replayed in every other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from enet.view_source import DeferredBatch

Outputs = tuple[Tensor, ...]
_WARM_UP_STEPS = 3  # cuDNN chooses its algorithms before anything is recorded


class StepGraph:
    """Callable that trains on a batch as ``loss_of``, ``backward`` and ``optimizer.step()`` would.

    Everything in the step must be free of waiting for the device and of shapes that depend on data. Random numbers
    of the device's default generator go on from its state at each replay, so that seeding it between steps works.

    Args:
        module: whose parameters and buffers a step changes.
        optimizer: of its parameters, able to be captured (such as Adam).
        loss_of: the loss of a batch, first, and other tensors to return.
    """

    def __init__(
        self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[DeferredBatch], Outputs]
    ):
        self._module, self._optimizer, self._loss_of = module, optimizer, loss_of
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: Outputs = ()

    def __call__(self, batch: DeferredBatch) -> Outputs:
        """The loss, the other outputs and the gradient's norm, without gradient; the next call overwrites them.

        Raises:
            ValueError: the parts of a batch have other shapes than those of the first one.
        """
        leaves, structure = pytree.tree_flatten(batch.parts)
        if self._graph is None:
            self._inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            self._capture(DeferredBatch(batch.make, *pytree.tree_unflatten(self._inputs, structure)))
        for own, leaf in zip(self._inputs, leaves, strict=True):
            if isinstance(leaf, Tensor):
                if own.shape != leaf.shape:
                    raise ValueError(f"a batch of shape {tuple(leaf.shape)} in a training recorded for that of "
                                     f"{tuple(own.shape)}")
                own.copy_(leaf)
        self._graph.replay()
        return self._outputs

    def _capture(self, batch: DeferredBatch) -> None:
        """Record a step; weights, buffers, the optimiser's state and random numbers are then as they were."""
        device = next(self._module.parameters()).device
        _make_capturable(self._optimizer, device)
        changed = [*self._module.parameters(), *self._module.buffers()]
        kept = [tensor.detach().clone() for tensor in changed]
        kept_state = {
            parameter: {name: value.clone() for name, value in state.items()}
            for parameter, state in self._optimizer.state.items()
        }
        random_state = torch.cuda.get_rng_state(device)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_STEPS):
                self._step(batch)
        torch.cuda.current_stream(device).wait_stream(stream)
        self._optimizer.zero_grad(set_to_none=True)  # so that those recorded lie in the graph's memory
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._outputs = tuple(output.detach() for output in self._step(batch))
        with torch.no_grad():
            for tensor, before in zip(changed, kept, strict=True):
                tensor.copy_(before)
            for parameter, state in self._optimizer.state.items():
                for name, value in state.items():
                    if parameter in kept_state:
                        value.copy_(kept_state[parameter][name])
                    else:
                        value.zero_()  # as Adam begins
        torch.cuda.set_rng_state(random_state, device)

    def _step(self, batch: DeferredBatch) -> Outputs:
        self._optimizer.zero_grad(set_to_none=True)
        # Casts of the weights belong to each step: a cache of them would hold those of a step before.
        dtype, mixed = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        with torch.autocast("cuda", dtype, enabled=mixed, cache_enabled=False):
            outputs = self._loss_of(batch)
        with torch.autocast("cuda", enabled=False):
            outputs[0].backward()
        outputs = (*outputs, gradient_norm(self._module))
        self._optimizer.step()
        return outputs


def gradient_norm(module: torch.nn.Module) -> Tensor:
    """The Euclidean norm of all parameters' gradients, a scalar on their device, without waiting for it."""
    return torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def _make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    for group in optimizer.param_groups:
        group["capturable"] = True
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).to(device)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set it for all parameters, also where a graph reads it from the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def plain_optimizer_state(state: dict[str, Any]) -> None:
    """Undo what a graph asks of an optimiser in its ``state_dict``: checkpoints are the same with and without one."""
    for group in state["param_groups"]:
        group["lr"], group["capturable"] = float(group["lr"]), False
