"""Colour, depth and annotation of one view align to the pixel at any size; labels are painted in the colours."""

import pytest
import torch

from dataloader import ViewDataset, ViewStoreWriter, load_scannet_scene
from dataloader.depth_registration import register_depth
from tests.dataloader.scannet_fixture import (
    fixture_intrinsics,
    fixture_poses,
    trace_room,
    trace_room_labels,
    write_scannet_scene,
)
from utils.images import resize_nearest
from utils.labels import label_set

SIZES = [(62, 62), (48, 64), (31, 50), (124, 124)]
PALETTE = torch.from_numpy(label_set().colors).float()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alignment") / "scene0000_00"
    return load_scannet_scene(write_scannet_scene(folder, size=(120, 160), depth_size=(90, 130), num_frames=4))


def nearest_class(color: torch.Tensor) -> torch.Tensor:
    """Class whose colour is nearest to each pixel of ``[3, H, W]``."""
    return torch.cdist(color.float().flatten(1).T, PALETTE).argmin(1).reshape(color.shape[-2:])


def edge_free(label: torch.Tensor) -> torch.Tensor:
    """Pixels whose 3x3 neighbours all have their class: there, blending cannot change the colour."""
    padded = torch.nn.functional.pad(label[None, None].float(), (1, 1, 1, 1), mode="replicate")[0, 0]
    windows = padded.unfold(0, 3, 1).unfold(1, 3, 1)
    return (windows.amin((-1, -2)) == label) & (windows.amax((-1, -2)) == label)


@pytest.mark.parametrize("size", SIZES)
def test_photo_and_annotation_of_a_resized_camera_agree(scene, size):
    # The original cropped annotations and squeezed colours of the same frame: 1.34 times off horizontally.
    camera = scene.cameras(size=size)
    for index in range(len(scene)):
        label, _ = trace_room_labels(camera.camera_to_world[index], camera.intrinsics[index], size)
        color = scene.read_color(index, size)
        assert color.is_contiguous() and color.dtype == torch.uint8
        seen, inner = nearest_class(color), edge_free(label)
        assert inner.float().mean() > 0.5
        assert (seen == label)[inner].float().mean() > 0.999
        shifted = torch.roll(label, 2, dims=1)  # the test notices two pixels
        assert (seen == shifted).float().mean() < (seen == label).float().mean() - 0.02


@pytest.mark.parametrize("size", SIZES)
def test_depth_of_another_camera_lies_on_the_colour_image(scene, size):
    camera = scene.cameras(size=size)
    for index in range(len(scene)):
        _, expected = trace_room(camera.camera_to_world[index], camera.intrinsics[index], size)
        found = scene.read_depth(index, size)
        seen = found > 0
        assert seen.float().mean() > 0.97
        # Nearest neighbour: half a depth pixel, on walls seen at a slant, and half a millimetre.
        assert (found - expected)[seen].abs().quantile(0.99) < 0.03


def test_depth_camera_beside_the_colour_camera():
    size, pose = (60, 80), fixture_poses(1)[0]
    depth_intrinsics, intrinsics = fixture_intrinsics((120, 160)), fixture_intrinsics(size)
    offset = torch.eye(4, dtype=torch.float64)
    offset[0, 3] = 0.04
    _, depth = trace_room(pose @ offset, depth_intrinsics, (120, 160))
    _, expected = trace_room(pose, intrinsics, size)
    found = register_depth(depth.float(), depth_intrinsics, intrinsics, size, offset)
    seen = found > 0
    assert seen.float().mean() > 0.9
    assert (found - expected)[seen].abs().quantile(0.99) < 0.03
    # Without the offset it would be off by about 2 pixels.
    ignored = register_depth(depth.float(), depth_intrinsics, intrinsics, size, torch.eye(4))
    assert (ignored - expected).abs().mean() > 2 * (found - expected)[seen].abs().mean()


def test_sample_of_a_dataset_is_one_view(scene, tmp_path):
    size = (62, 62)
    stores = []
    for name, frames in (("a", [0, 1]), ("b", [2])):
        camera = scene.cameras(size, frames)
        channels = {"rgb": ("uint8", (3, *size)), "photo": ("uint8", (3, *size)), "sh": ("uint8", (27, *size)),
                    "label": ("uint8", size)}  # fmt: skip
        sh_range = torch.tensor([[0.0, 20.0 + len(frames)]]).expand(27, 2)  # stores differ in range
        writer = ViewStoreWriter.create(tmp_path / name, camera, channels, {}, sh_range)
        for view, frame in enumerate(frames):
            label, _ = trace_room_labels(camera.camera_to_world[view], camera.intrinsics[view], size)
            writer.write(view, {
                "rgb": torch.from_numpy(label_set().colors)[label].permute(2, 0, 1),
                "photo": scene.read_color(frame, size),
                "sh": label.expand(27, *size).float(),
                "label": label,
            })  # fmt: skip
        writer.finish()
        stores.append(tmp_path / name)
    for color in ("rgb", "photo"):
        dataset = ViewDataset(stores, inputs="rgb+sh", color=color)
        assert len(dataset) == 3
        for sample in (dataset[index] for index in range(3)):
            label, inner = sample["label"], edge_free(sample["label"])
            assert (nearest_class(sample["color"] * 255) == label)[inner].float().mean() > 0.999
            assert (sample["sh"] - label).abs().max() <= 22 / 510 + 1e-5


def test_nearest_labels_and_resized_cameras_share_pixel_centres(scene):
    camera = scene.cameras(size=(120, 160), frames=[0])
    label, _ = trace_room_labels(camera.camera_to_world[0], camera.intrinsics[0], (120, 160))
    small = camera.resized((40, 32))  # odd factors: 3 and 5, so pixel centres coincide
    direct, _ = trace_room_labels(small.camera_to_world[0], small.intrinsics[0], (40, 32))
    assert torch.equal(resize_nearest(label, (40, 32)), direct)
