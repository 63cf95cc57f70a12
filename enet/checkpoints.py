"""Networks from files: this project's checkpoints, the original project's, and ENet-ScanNet's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from enet.encoder_network import encoder_network, is_encoder
from enet.module import SegmentationModule
from enet.options import ViewOptions
from enet.original_names import is_original, original_network
from utils.checkpoints import open_checkpoint
from utils.errors import UserError, check_choice, reading, short
from utils.labels import benchmark_set, label_set, nyu40_set
from utils.limits import LARGEST_SIDE

_WHAT, _ADVICE = "a checkpoint of the train task, or of the original project or ENet-ScanNet", "train again"

# The original project's, of photographs, of rendered colour, and of SH images channel by channel (R0..R8, G0.., B0..).
_PHOTO = (0.496342, 0.466664, 0.440796), (0.277856, 0.286230, 0.291129)
_RENDERED = (0.50275189, 0.45223128, 0.39241619), (0.28362849, 0.27880838, 0.27457628)
_SH = (
    (0.00824186, 0.11539002, 0.06089742, 0.06155786, 0.05825128, 0.0593638, 0.09168289, 0.05926862, 0.11279657,
     -0.04009821, 0.14060101, 0.06198773, 0.0599228, 0.05789624, 0.05871703, 0.08233076, 0.0594893, 0.09212159,
     -0.08556332, 0.1680364, 0.06273864, 0.0581194, 0.05829075, 0.05739062, 0.06550323, 0.05976876, 0.0617659),
    (0.36573967, 0.36615546, 0.31597748, 0.31306109, 0.50109065, 0.48896791, 0.44744172, 0.38749937, 0.54356951,
     0.36309892, 0.35698321, 0.31197455, 0.3092862, 0.49163777, 0.47873379, 0.43714261, 0.37999565, 0.52787927,
     0.36710315, 0.36049178, 0.31901154, 0.31674267, 0.4975526, 0.48383487, 0.44135966, 0.38612645, 0.52761967),
)  # fmt: skip


def load_checkpoint(
    path: str | Path, device: torch.device | str = "cpu", color: str | None = None
) -> SegmentationModule:
    """A trained network from its file, in evaluation mode; nothing in the file is run.

    Args:
        path: best.ckpt or last.ckpt of a training; a file of the original project ("epoch", "miou", "state_dict",
            "optimizer") or of ENet-ScanNet, or their weights alone; as saved by one process or several, compiled or
            not, in any precision.
        device: where the network goes.
        color: whether another project's network was trained on photographs ("photo") or renders ("rgb"), which its file
            does not say: by default on renders if it takes SH images, else on photographs. A checkpoint of this
            project says it.

    Returns:
        The module: called with colour in 0..1 (and SH images as stores hold them) it gives logits, ``predict``
        probabilities of the label set's classes after "unannotated". Outputs for NYU40's ids become those of the
            classes that the label set has for them.

    Raises:
        UserError: the file is absent, damaged, or no such network's; or ``color`` is not what it says.
    """
    content = open_checkpoint(path, _WHAT, _ADVICE, "cpu")
    with reading(path, _WHAT, _ADVICE):
        if "hyper_parameters" in content:
            module = _own(content)
            says = ViewOptions(**module.hparams["views"]).color
            if color not in (None, says):
                raise UserError(f"{path} was trained with color = {says!r}, not {color!r}")
        else:
            module = _foreign(_weights(content), color)
        for name, values in module.state_dict().items():
            if not torch.isfinite(values).all():
                raise ValueError(f"{name} holds NaN or infinity")
    return module.to(device).eval()


def _own(content: Mapping[str, Any]) -> SegmentationModule:
    labels = tuple(content["hyper_parameters"]["labels"])
    if labels != label_set().names:
        raise UserError(f"it was trained for other classes ({short(labels)}) than those of {label_set().path}; set "
                        "label_set.table to the table that it was trained with")
    # Not Lightning's load_from_checkpoint, which imports what hyper-parameters name.
    module = SegmentationModule(**content["hyper_parameters"])
    module.load_state_dict({_plain_name(name): values for name, values in content["state_dict"].items()})
    if not all(isinstance(scene, str) for scene in module.hparams["scenes"]):
        raise TypeError("its scenes are no names")
    trained_size(module)
    return module


def trained_size(module: SegmentationModule) -> tuple[int, int] | None:
    """Height and width of the images that a network was trained on, or None; ``ValueError`` if they are no size."""
    size = module.hparams["size"]
    if size is None:
        return None
    if len(size) != 2 or not all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in size):
        raise ValueError(f"its size is {short(size)}")
    return tuple(size)


def check_size(module: SegmentationModule, path: Path, size: tuple[int, int], other_size: bool, option: str) -> None:
    """Refuse images of another size than a network was trained on.

    Args:
        module, path: the network and its file.
        size: of the images.
        other_size: whether they may have another size.
        option: that says so.

    Raises:
        UserError: they may not.
    """
    trained = trained_size(module)
    if trained not in (None, tuple(size)) and not other_size:
        raise UserError(
            f"{path} was trained on images of {trained[1]}x{trained[0]} pixels, these have {size[1]}x{size[0]}; choose "
            f"others, or set {option} = True to use it as it is"
        )


def _weights(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Of a file that holds them with other things or alone, by plain names."""
    weights = content.get("state_dict", content.get("model", content))
    if not isinstance(weights, Mapping) or not weights:
        raise TypeError("it holds no weights")
    for name, values in weights.items():
        if not isinstance(name, str) or not isinstance(values, Tensor):
            raise TypeError("its weights are no tensors with names")
        if not (values.is_floating_point() or name.endswith("num_batches_tracked")):
            raise TypeError(f"its weights are {values.dtype}")
    plain = {_plain_name(name): values for name, values in weights.items()}
    if len(plain) < len(weights):
        raise ValueError("two of its weights have one name")
    return plain


def _plain_name(name: str) -> str:
    """Without what torch.compile and training in several processes put before it."""
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _foreign(weights: Mapping[str, Tensor], color: str | None) -> SegmentationModule:
    if is_original(weights):
        network = original_network(weights)
    elif is_encoder(weights):
        network = encoder_network(weights)
    else:
        raise ValueError("it names neither hyper_parameters nor weights of a known network")
    color = color or ("rgb" if network.uses_sh else "photo")
    check_choice("color", color, ("rgb", "photo"))
    module = SegmentationModule(network={"stem": "conv_sum" if network.uses_sh else "rgb"}, views={"color": color})
    module.network = _of_the_label_set(network)
    for name, (mean, std) in (("color", _PHOTO if color == "photo" else _RENDERED), ("sh", _SH)):
        getattr(module, f"{name}_mean").copy_(torch.tensor(mean))
        getattr(module, f"{name}_std").copy_(torch.tensor(std))
    return module


def _of_the_label_set(network: nn.Module) -> nn.Module:
    """The network, or with the outputs that the label set's classes have.

    Raises:
        UserError: it has the benchmark's or NYU40's classes, and the label set does not follow from them.
        ValueError: it has outputs that nothing is known about.
    """
    wanted, benchmark, nyu40 = label_set(), benchmark_set(), nyu40_set()
    if network.num_classes == benchmark.num_classes:
        if wanted.names != benchmark.names:
            raise UserError(f"it has the ScanNet benchmark's classes, not those of {wanted.path}; set label_set.table "
                            "= 'configs/labels/scannet20.tsv'")
        return network
    if network.num_classes == nyu40.num_classes:
        return _Nyu40Network(network)
    raise ValueError(f"it has {network.num_classes} classes; known are ScanNet's {benchmark.num_classes}, with "
                     f"unannotated, and NYU40's {nyu40.num_classes}")


class _Nyu40Network(nn.Module):
    """Logits of the label set's classes; probabilities of the ids that are one class, or unannotated, add up."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.beside, self.uses_sh = network, network.beside, network.uses_sh
        wanted = label_set()
        classes = wanted.class_of_id[: network.num_classes].tolist()
        self._outputs = [[id for id, index in enumerate(classes) if index == k] for k in range(wanted.num_classes)]
        without = [name for name, ids in zip(wanted.names, self._outputs, strict=True) if not ids]
        if wanted.id_system != "nyu40" or without:
            raise UserError(f"it has NYU40's classes, of which those of {wanted.path} are not made; choose another "
                            "label_set.table, such as 'configs/labels/nyu40.tsv'")

    def forward(self, color: Tensor, sh: Tensor | None = None, geometry: Tensor | None = None) -> Tensor:
        logits = self.network(color, sh, geometry)
        return torch.cat([logits[:, ids].logsumexp(1, keepdim=True) for ids in self._outputs], dim=1)
