"""The room of :mod:`tests.dataloader.scannet_fixture` as ScanNet++ and ARKitScenes would have recorded it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dataloader.mesh import load_mesh
from tests.dataloader.scannet_fixture import fixture_intrinsics, fixture_poses, trace_room, write_room_mesh
from tests.dataloader.scene_exports import quaternion
from utils.cameras import look_at, rigid_inverse, scale_intrinsics
from utils.depth_images import write_depth
from utils.images import write_image
from utils.labels import benchmark_set

SIZE, DEPTH_SIZE = (24, 32), (12, 16)
COUNT = 10  # photographs
TEST = ("DSC00003.JPG", "DSC00007.JPG")
VIDEO = "41048190"
START, STEP = 3418.0, 0.05  # seconds of the first photograph and between two; poses are twice as far apart


def write_scannetpp(root: Path, name: str = "a1b2c3d4e5", model: str = "PINHOLE") -> Path:
    """Write ``root/data/NAME``, and splits and metadata beside it; returns the scene's folder."""
    scene = root / "data" / name
    poses, intrinsics = fixture_poses(COUNT), fixture_intrinsics(SIZE)
    photographs = [trace_room(pose, intrinsics, SIZE)[0] for pose in poses]
    dslr = [f"DSC{number:05}.JPG" for number in range(COUNT)]
    for image, file in zip(photographs, dslr, strict=True):
        for folder in ("resized_images", "resized_undistorted_images"):
            write_png(scene / "dslr" / folder / file, image)
    for folder, files, camera_model in (("dslr", dslr, model), ("iphone", phone_names(".jpg"), "PINHOLE")):
        names = [f"video/{file}" if folder == "iphone" else file for file in files]
        write_colmap_text(scene / folder / "colmap", names, poses, intrinsics, camera_model)
    lists = {"train": [file for file in dslr if file not in TEST], "test": list(TEST), "has_masks": False}
    (scene / "dslr" / "train_test_lists.json").write_text(json.dumps(lists))
    _write_transforms(scene / "dslr" / "nerfstudio" / "transforms_undistorted.json", intrinsics)
    _write_phone(scene / "iphone", poses, intrinsics, photographs)
    _write_scans(scene / "scans", root / "metadata")
    (root / "splits").mkdir(exist_ok=True)
    (root / "splits" / "nvs_sem_train.txt").write_text(f"{name}\n")
    return scene


def phone_names(suffix: str = "") -> list[str]:
    """The phone's film has ten frames a second of which every tenth has a pose."""
    return [f"frame_{10 * number:06}{suffix}" for number in range(COUNT)]


def write_png(path: Path, image: Tensor) -> None:
    """Exact colours under a name that ends as the data set's do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path.with_suffix(".png"), image)
    path.with_suffix(".png").rename(path)


def write_colmap_text(folder: Path, names: list[str], poses: Tensor, intrinsics: Tensor, model: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (fx, _, cx), (_, fy, cy), _ = intrinsics.tolist()
    parameters = [fx, fy, cx, cy, *([0.1, 0.0, 0.0, 0.0] if model == "OPENCV_FISHEYE" else [])]
    (folder / "cameras.txt").write_text(f"1 {model} {SIZE[1]} {SIZE[0]} {' '.join(map(repr, parameters))}\n")
    lines = ["# Image list"]
    for number, (name, pose) in enumerate(zip(names, rigid_inverse(poses), strict=True), 1):
        numbers = [*quaternion(pose[:3, :3]), *pose[:3, 3].tolist()]
        lines += [f"{number} {' '.join(map(repr, numbers))} 1 {name}", ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("# points\n1 1.0 2.0 0.5 10 20 30 0.5 1 0\n")


def _write_transforms(path: Path, intrinsics: Tensor) -> None:
    (fx, _, cx), (_, fy, cy), _ = intrinsics.tolist()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": SIZE[1], "h": SIZE[0], "k1": 0.0,
                                "k2": 0.0, "k3": 0.0, "k4": 0.0, "camera_model": "PINHOLE", "frames": []}))  # fmt: skip


def _write_phone(folder: Path, poses: Tensor, intrinsics: Tensor, photographs: list[Tensor]) -> None:
    depth_intrinsics = scale_intrinsics(intrinsics, SIZE, DEPTH_SIZE)
    tracked = {}
    mask = torch.full((1, *SIZE), 255, dtype=torch.uint8)
    mask[:, :5] = 0
    for name, pose, image in zip(phone_names(), poses, photographs, strict=True):
        write_png(folder / "rgb" / f"{name}.jpg", image)
        write_image(folder / "rgb_masks" / f"{name}.png", mask.expand(3, -1, -1))
        write_depth(folder / "depth" / f"{name}.png", trace_room(pose, depth_intrinsics, DEPTH_SIZE)[1])
        tracked[name] = {"timestamp": 1.0, "pose": np.eye(4).tolist(), "aligned_pose": pose.tolist(),
                         "intrinsic": intrinsics.tolist()}  # fmt: skip
    write_png(folder / "rgb" / "frame_000005.jpg", photographs[0])
    (folder / "pose_intrinsic_imu.json").write_text(json.dumps(tracked))


def _write_scans(folder: Path, metadata: Path) -> None:
    """A segment for each patch of the room, an object for each class, and a shelf within the largest of them."""
    write_room_mesh(folder / "labels.ply", with_labels=True)
    labels = load_mesh(folder / "labels.ply").labels.numpy()
    (folder / "labels.ply").unlink()
    write_room_mesh(folder / "mesh_aligned_0.05.ply", with_labels=False)
    segments = np.arange(len(labels)) // 9 * 10
    groups = [{"id": number, "objectId": 7 + number, "label": class_name(id), "segments":
               np.unique(segments[labels == id]).tolist()} for number, id in enumerate(np.unique(labels))]  # fmt: skip
    (folder / "segments.json").write_text(json.dumps({"segIndices": segments.tolist()}))
    (folder / "segments_anno.json").write_text(json.dumps({"segGroups": groups}))
    names = ["nothing like it", *(name for name in benchmark_set().names[1:])]
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "semantic_classes.txt").write_text("\n".join(names) + "\n")
    write_semantic_mesh(folder, [names.index(class_name(id)) for id in labels])


def class_name(id: int) -> str:
    """The benchmark's name of a NYU40 id."""
    return benchmark_set().names[benchmark_set().ids.index(int(id))]


def write_semantic_mesh(folder: Path, labels: list[int]) -> None:
    """``mesh_aligned_0.05_semantic.ply``, whose labels are signed."""
    from plyfile import PlyData, PlyElement

    mesh = PlyData.read(str(folder / "mesh_aligned_0.05.ply"))
    vertex = mesh["vertex"].data
    table = np.zeros(len(vertex), dtype=[*vertex.dtype.descr, ("label", "i2")])
    for field in vertex.dtype.names:
        table[field] = vertex[field]
    table["label"] = labels
    PlyData([PlyElement.describe(table, "vertex"), mesh["face"]]).write(str(folder / "mesh_aligned_0.05_semantic.ply"))


def arkit_pose(seconds: float) -> Tensor:
    """Camera-to-world float64 ``[4, 4]`` of a camera that walks straight on and turns evenly."""
    time = seconds - START
    eye = torch.tensor([1.6 + 0.8 * time, 1.3 + 0.2 * time, 1.2], dtype=torch.float64)
    angle = torch.tensor(0.3 + 3.0 * time, dtype=torch.float64)
    return look_at(eye, eye + torch.stack((angle.cos(), angle.sin(), torch.tensor(-0.2).double())))


def arkit_intrinsics(number: int) -> Tensor:
    """Intrinsics of a photograph, whose focus breathes."""
    matrix = fixture_intrinsics(SIZE)
    matrix[0, 0] += 0.05 * (number % 3)
    return matrix


def write_arkitscenes(root: Path, frames: bool = False) -> Path:
    """Write a scene's folder and return it; with ``frames`` as 3dod has it, in ``VIDEO_frames``."""
    scene = root / VIDEO
    folder = scene / f"{VIDEO}_frames" if frames else scene
    confidence = torch.full(SIZE, 2, dtype=torch.uint8)
    confidence[:, :4], confidence[:, 4:8] = 0, 1
    for number in range(COUNT):
        name, intrinsics = f"{VIDEO}_{START + STEP * number:.3f}", arkit_intrinsics(number)
        color, depth = trace_room(arkit_pose(START + STEP * number), intrinsics, SIZE)
        write_image(folder / "lowres_wide" / f"{name}.png", color)
        write_depth(folder / "lowres_depth" / f"{name}.png", depth)
        write_image(folder / "confidence" / f"{name}.png", confidence)
        (fx, _, cx), (_, fy, cy), _ = intrinsics.tolist()
        # Intrinsics' names are rounded otherwise now and then.
        name = f"{VIDEO}_{START + STEP * number + 0.001 * (number % 2):.3f}"
        (folder / "lowres_wide_intrinsics").mkdir(exist_ok=True)
        (folder / "lowres_wide_intrinsics" / f"{name}.pincam").write_text(f"{SIZE[1]} {SIZE[0]} {fx} {fy} {cx} {cy}\n")
    write_trajectory(folder, [START + 2 * STEP * number for number in range(COUNT // 2 + 1)])
    write_room_mesh(scene / f"{VIDEO}_3dod_mesh.ply", with_labels=False)
    (scene / f"{VIDEO}_3dod_annotation.json").write_text('{"data": [], "skipped": false}')
    return scene


def write_trajectory(folder: Path, times: list[float]) -> None:
    """``lowres_wide.traj``: time, then world-to-camera as axis-angle and translation."""
    lines = []
    for time in times:
        pose = np.linalg.inv(arkit_pose(time).numpy())
        numbers = [*Rotation.from_matrix(pose[:3, :3]).as_rotvec(), *pose[:3, 3]]
        lines.append(f"{time:.5f} " + " ".join(f"{number:.12f}" for number in numbers))
    (folder / "lowres_wide.traj").write_text("\n".join(lines) + "\n")
