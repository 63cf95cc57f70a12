"""The LightningModule: any of the networks, its losses and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from enet.backbones import build_network
from enet.class_weights import class_weights
from enet.lightning import pl
from enet.losses import dice_loss, lovasz_softmax_loss, pixel_weights, weighted_cross_entropy
from enet.metrics import ScanNetIoU, class_iou, mean_accuracy, pixel_accuracy
from enet.options import LossOptions, NetworkOptions, OptimizerOptions
from enet.statistics import TrainingStatistics
from enet.stems import COLOR_CHANNELS
from enet.step_graph import StepGraph, gradient_norm, plain_optimizer_state, set_learning_rate
from enet.view_source import DeferredBatch, ViewBatch
from utils.errors import UserError
from utils.labels import label_set
from utils.seeding import generator
from utils.spherical_harmonics import SH_CHANNELS

_NO_STEP = 2**62
_SMALLEST_STD = 1e-3  # a constant channel is only centred


class SegmentationModule(pl.LightningModule):
    """Trains and validates a segmentation network on the batches of any source of views.

    Class weights and normalisation statistics are buffers, so a checkpoint holds everything that inference needs.

    Args:
        network, loss, optimizer: fields of :class:`NetworkOptions`, :class:`LossOptions`, :class:`OptimizerOptions`.
        views: fields of :class:`enet.options.ViewOptions`; stored in the checkpoint.
        scenes: names of the scenes trained or validated on; likewise stored.
        size: height and width of the images trained on, likewise; None where it is not known.
        labels: names of the classes, likewise.
        seed: of the initial weights and of dropout.
    """

    def __init__(
        self,
        network: dict[str, Any],
        loss: dict[str, Any] | None = None,
        optimizer: dict[str, Any] | None = None,
        views: dict[str, Any] | None = None,
        scenes: Sequence[str] = (),
        size: Sequence[int] | None = None,
        labels: Sequence[str] = (),
        seed: int = 0,
    ):
        super().__init__()
        labels = list(labels or label_set().names)
        self.save_hyperparameters()
        self._loss_options = LossOptions(**(loss or {}))
        self._optimizer_options = OptimizerOptions(**(optimizer or {}))
        self._seed = seed
        torch.manual_seed(generator(seed, "weights").initial_seed())
        self.network = build_network(NetworkOptions(**network))
        self.register_buffer("class_weights", torch.ones(self.network.num_classes))
        normalised = {"color": COLOR_CHANNELS, "sh": SH_CHANNELS, "geometry": self.network.beside.geometry_channels}
        for name, channels in normalised.items():
            if not channels:
                continue
            self.register_buffer(f"{name}_mean", torch.zeros(channels))
            self.register_buffer(f"{name}_std", torch.ones(channels))
        for name in ("_loss_sum", "_norm_sum"):
            self.register_buffer(name, torch.zeros(()), persistent=False)
        self.register_buffer("_val_sums", torch.zeros(4, dtype=torch.float64), persistent=False)
        self.register_buffer("_first_bad_step", torch.tensor(_NO_STEP), persistent=False)
        self.register_buffer("_min_quality", torch.zeros(()), persistent=False)  # a recorded step reads it anew
        self._steps = 0
        self.train_iou, self.val_iou = ScanNetIoU(), ScanNetIoU()
        self.val_confusion: Tensor | None = None  # of the last validation, over all processes
        self._graph: StepGraph | None = None
        self.records_steps = False  # whether a training step is one CUDA graph

    def set_statistics(self, statistics: TrainingStatistics) -> None:
        """Take over class weights and normalisation from the training split."""
        scheme = self._loss_options.class_weights
        self.class_weights.copy_(class_weights(scheme, statistics.class_pixels, statistics.view_pixels))
        for name in ("color", "sh", "geometry"):
            mean, std = getattr(statistics, f"{name}_mean"), getattr(statistics, f"{name}_std")
            if mean is not None:
                getattr(self, f"{name}_mean").copy_(mean)
                getattr(self, f"{name}_std").copy_(std.clamp(min=_SMALLEST_STD))

    def forward(
        self,
        color: Tensor,  # [B, 3, H, W] 0..1
        sh: Tensor | None = None,  # [B, 27, H, W]
        geometry: Tensor | None = None,  # [B, G, H, W]
    ) -> Tensor:
        """Logits [B, C, H, W] of images that are not normalised yet."""
        color = (color - self.color_mean[:, None, None]) / self.color_std[:, None, None]
        if sh is not None:
            sh = (sh - self.sh_mean[:, None, None]) / self.sh_std[:, None, None]
        if geometry is not None and self.network.beside.geometry:
            normalised = (geometry - self.geometry_mean[:, None, None]) / self.geometry_std[:, None, None]
            geometry = torch.where(geometry == 0, 0, normalised)  # nothing is nothing to the network as well
        return self.network(color, sh, geometry)

    def _loss_and_prediction(self, batch: DeferredBatch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Cross-entropy sum, sum of its weights, other losses, and predicted and true classes uint8 [B, H, W]."""
        views = batch.resolve()
        logits = self(views.color, views.sh, views.geometry)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        truth = views.label.long()
        counted = None
        if views.weight is not None:
            counted = pixel_weights(views.weight, self._min_quality, self._loss_options.quality)
        entropy, weight = weighted_cross_entropy(logits, truth, self.class_weights, counted)
        other = logits.new_zeros(())
        if self._loss_options.lovasz:
            other = other + self._loss_options.lovasz * lovasz_softmax_loss(logits, truth)
        if self._loss_options.dice:
            other = other + self._loss_options.dice * dice_loss(logits, truth)
        return entropy, weight, other, logits.detach().argmax(1).to(torch.uint8), views.label

    def on_train_batch_start(self, batch: DeferredBatch, batch_idx: int) -> None:
        """Set what depends on the epoch alone, so that a resumed epoch starts like one that was not interrupted."""
        if batch_idx == 0:
            dropout = generator(self._seed, "dropout", self.current_epoch, self.global_rank)
            torch.manual_seed(dropout.initial_seed())
            optimizer = self.optimizers().optimizer
            set_learning_rate(optimizer, self._optimizer_options.learning_rate_at(self.current_epoch))
            self._min_quality.fill_(self._loss_options.min_quality_at(self.current_epoch))
            if self.records_steps and self._graph is None:
                self._graph = StepGraph(self.network, optimizer, self._loss_of_step)

    def training_step(self, batch: DeferredBatch, batch_idx: int) -> Tensor:
        if self._graph is None:
            loss, prediction, label = self._loss_of_step(batch)
        else:
            loss, prediction, label, norm = self._graph(batch)
            self._norm_sum += norm
        self._loss_sum += loss.detach()
        bad = torch.where(torch.isfinite(loss.detach()), _NO_STEP, self._steps)
        torch.minimum(self._first_bad_step, bad, out=self._first_bad_step)
        self._steps += 1
        self.train_iou.update(prediction, label)
        return loss

    def _loss_of_step(self, batch: DeferredBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The loss to minimise, and predicted and true classes."""
        entropy, weight, other, prediction, label = self._loss_and_prediction(batch)
        return entropy / self._mean_over_processes(weight).clamp(min=1e-6) + other, prediction, label

    # With a graph these three of Lightning's steps are part of training_step.

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if self._graph is None:
            super().backward(loss, *args, **kwargs)

    def on_after_backward(self) -> None:
        if self._graph is None:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            self._norm_sum += gradient_norm(self.network) / (1.0 if scaler is None else scaler.get_scale())

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        if self._graph is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if self._graph is None:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        else:
            optimizer_closure()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for state in checkpoint.get("optimizer_states", ()):
            plain_optimizer_state(state)

    def _mean_over_processes(self, weight: Tensor) -> Tensor:
        """DDP averages gradients over processes: dividing by the mean weight gives the loss of the joint batch."""
        if self.trainer.world_size == 1:
            return weight
        weight = weight.detach().clone()
        torch.distributed.all_reduce(weight)
        return weight / self.trainer.world_size

    def _refuse_non_finite(self) -> None:
        """Stop a training that has gone wrong before anything is measured or saved; the device is waited for once.

        Raises:
            UserError: a loss or a weight is NaN or infinite.
        """
        advice = "lower OptimizerOptions.learning_rate, or look for what is wrong with these views by 'verify'"
        step = int(self._first_bad_step)
        if step != _NO_STEP:
            views = self.trainer.datamodule.describe_step(self.current_epoch, step)
            raise UserError(
                f"the loss is NaN or infinite in step {step} of epoch {self.current_epoch} ({views}); {advice}"
            )
        for name, values in self.network.state_dict().items():
            if values.is_floating_point() and not torch.isfinite(values).all():
                raise UserError(f"the network's {name} holds NaN or infinite values after epoch {self.current_epoch}; "
                                f"{advice}")

    def on_validation_epoch_start(self) -> None:
        self._refuse_non_finite()

    def on_train_epoch_end(self) -> None:
        self._refuse_non_finite()
        self.log_dict(
            {
                "train/loss": self._loss_sum / max(self._steps, 1),
                "train/gradient_norm": self._norm_sum / max(self._steps, 1),
                "train/mean_iou": self.train_iou.compute().float(),
                "learning_rate": self._optimizer_options.learning_rate_at(self.current_epoch),
            },
            sync_dist=True,
        )
        self._loss_sum.zero_()
        self._norm_sum.zero_()
        self._steps = 0
        self.train_iou.reset()

    def validation_step(self, batch: DeferredBatch, batch_idx: int) -> None:
        entropy, weight, other, prediction, label = self._loss_and_prediction(batch)
        self._val_sums += torch.stack((entropy, weight, other, torch.ones_like(other))).double()
        self.val_iou.update(prediction, label)

    def on_validation_epoch_end(self) -> None:
        self.val_confusion = self.val_iou.total()
        self.val_iou.reset()
        entropy, weight, other, batches = self.trainer.strategy.reduce(self._val_sums.clone(), reduce_op="sum")
        self._val_sums.zero_()
        scores = {
            "val/mean_iou": class_iou(self.val_confusion).nanmean(),
            "val/mean_accuracy": mean_accuracy(self.val_confusion),
            "val/pixel_accuracy": pixel_accuracy(self.val_confusion),
            "val/loss": entropy / weight.clamp(min=1e-6) + other / batches,
        }
        self.log_dict({name: torch.nan_to_num(score).float() for name, score in scores.items()}, sync_dist=True)

    def classify(self, views: ViewBatch) -> Tensor:
        """Predicted classes uint8 [B, H, W]."""
        return self(views.color, views.sh, views.geometry).argmax(1).to(torch.uint8)

    @torch.inference_mode()
    def predict(
        self,
        color: Tensor,  # [B, 3, H, W] 0..1
        sh: Tensor | None = None,  # [B, 27, H, W] as stored; needed if network.uses_sh
        geometry: Tensor | None = None,  # [B, G, H, W] of enet.geometry; needed if network.beside.geometry
    ) -> Tensor:
        """Probabilities [B, C, H, W] of the classes of images that are not normalised yet, in evaluation mode.

        SH are in the axes that ``ViewOptions.sh_frame`` of the training names: "grid", the default, is as stored.

        Raises:
            UserError: geometry that the network takes is missing.
            ValueError: SH are missing, or images are of other shapes.
        """
        beside = self.network.beside
        if beside.geometry and geometry is None:
            raise UserError(f"the network takes {', '.join(beside.geometry)} of the field beside the colour, which are "
                            "missing; compute them by enet.geometry.geometry_images and pass them as geometry")
        if color.dim() != 4 or color.shape[1] != COLOR_CHANNELS:
            raise ValueError(f"color must be [B, 3, H, W], found {list(color.shape)}")
        beside.check(color, sh, geometry)
        taken = sh if beside.uses_sh else None, geometry if beside.geometry else None
        training = self.training
        try:
            return self.eval()(color, *taken).float().softmax(1)
        finally:
            self.train(training)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        options = self._optimizer_options
        return torch.optim.Adam(
            self.network.parameters(),
            lr=options.learning_rate,
            betas=tuple(options.betas),
            eps=options.epsilon,
            weight_decay=options.weight_decay,
            fused=True,
        )

