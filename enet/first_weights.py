"""Training that begins with the weights of a finished one: fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from enet.backbones import build_network
from enet.checkpoints import load_checkpoint
from enet.module import SegmentationModule
from enet.options import NetworkOptions
from utils.errors import UserError, short
from utils.identity import FileSet

_STEM = "stem."


@dataclass(frozen=True)
class FirstWeights:
    """A checkpoint whose weights a network begins with.

    The network may take other images beside the colour than the checkpoint's did: of its stem, the weights that have
    the same name and shape there are taken, and the others stay random. All others must be there. Normalisation and
    class weights are those of the new training views.

    Attributes:
        path: of the checkpoint.
    """

    path: Path

    def identity(self) -> FileSet:
        """Of the file."""
        return FileSet({"checkpoint": self.path})

    @cached_property
    def _loaded(self) -> SegmentationModule:
        return load_checkpoint(self.path)

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes that the checkpoint was trained or validated on."""
        return list(self._loaded.hparams["scenes"])

    def check(self, options: NetworkOptions) -> None:
        """Raise :class:`UserError` where the file cannot be used for such a network."""
        if options.pretrained:
            raise UserError(f"train.start = '{self.path}' and NetworkOptions.pretrained both give first weights; "
                            "choose one")
        self._taken(build_network(options))

    def load_into(self, module: SegmentationModule) -> None:
        """Replace the network's weights; see :meth:`check`."""
        module.network.load_state_dict(self._taken(module.network), strict=False)

    def _taken(self, network: nn.Module) -> dict[str, Tensor]:
        """The file's weights by name, those that the network has too."""
        there, wanted = self._loaded.network.state_dict(), network.state_dict()
        same = {name: values for name, values in there.items()
                if name in wanted and wanted[name].shape == values.shape}  # fmt: skip
        lacking = [name for name in wanted if name not in same and not name.startswith(_STEM)]
        if lacking:
            raise UserError(f"train.start = '{self.path}' holds another network than NetworkOptions gives: it lacks "
                            f"{short(lacking)}, or has it in another shape; choose NetworkOptions.backbone as it was "
                            "trained with")
        return same
