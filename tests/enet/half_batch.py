"""What each of two processes does in a test; by itself, so that they start without all that a test imports."""

import torch
import torch.distributed

from enet import ENet
from enet.synchronized_norm import synchronize_norms


def gradients_of_half_a_batch(rank: int, folder: str, color: torch.Tensor) -> None:
    """Writes the gradients and buffers of a network that sees one of two halves, from the first process."""
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    network = ENet(5, dropout=(0.0, 0.0)).double()
    synchronize_norms(network)
    network.double()(color.chunk(2)[rank]).square().mean().backward()
    for parameter in network.parameters():  # what DistributedDataParallel does, which takes long to import
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= 2
    if rank == 0:
        torch.save({name: value.grad for name, value in network.named_parameters()}, f"{folder}/gradients.pt")
        torch.save({name: value for name, value in network.named_buffers()}, f"{folder}/buffers.pt")
    torch.distributed.destroy_process_group()  # or what gloo left running may abort a process that has finished
