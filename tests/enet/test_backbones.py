"""The larger network behind the same module."""

import importlib.util

import gin
import pytest
import torch

from enet.backbones import SegFormer, build_network
from enet.options import NetworkOptions
from enet.task_train import train
from tests.enet.bindings import bind_split
from utils.errors import UserError

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs transformers"
)


@needs_transformers
@pytest.mark.parametrize("stem", ["rgb", "concat"])
def test_segformer_gives_logits_of_the_images_size(stem):
    network = SegFormer(21, stem)
    assert network(torch.randn(2, 3, 61, 50), torch.randn(2, 27, 61, 50)).shape == (2, 21, 61, 50)
    assert 3.7e6 < sum(parameter.numel() for parameter in network.parameters()) < 3.8e6


@needs_transformers
def test_segformer_trains_and_is_measured(make_store, tmp_path):
    views = [make_store(scene, size=(36, 40)) for scene in ("scene0000_00", "scene0001_00")][0].parent
    gin.bind_parameter("NetworkOptions.backbone", "segformer_b0")
    gin.bind_parameter("NetworkOptions.stem", "concat")
    bind_split(["scene0000_00"], ["scene0001_00"], None)
    results = train(
        views=[str(views)], runs_dir=str(tmp_path), name="run", epochs=1, batch_size=4, device="cpu",
    )  # fmt: skip
    gin.clear_config()
    assert results["parameters"] > 3.7e6 and results["validation"]["mean_iou"] is not None


@needs_transformers
def test_segformer_refuses_tiny_images():
    with pytest.raises(ValueError, match="32x32"):
        SegFormer(21)(torch.randn(1, 3, 31, 40))


def test_refusals():
    with pytest.raises(UserError, match="conv_sum.*'rgb' and 'concat'"):
        SegFormer(21, "conv_sum")
    with pytest.raises(UserError, match="resnet"):
        build_network(NetworkOptions(backbone="resnet"))
    with pytest.raises(UserError, match="stem = 'sum'"):
        NetworkOptions(stem="sum")
