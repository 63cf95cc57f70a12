"""Generated rooms as meshes: reproducible, complete, sound, and long-tailed in their classes."""

import itertools

import numpy as np
import pytest

from dataloader.synthesis import RoomOptions, build_room, textures
from dataloader.synthesis.layout import FloorPlan
from dataloader.synthesis.materials import Material, MaterialTable
from dataloader.synthesis.piece import Nyu40, Piece
from dataloader.synthesis.room_types import ROOM_TYPES
from tests.dataloader.synthesis_helpers import (
    PICTURE_OPTIONS,
    ROOM_OPTIONS,
    ROOMS,
    SEED,
    default_path,
    default_room,
    faces_seen,
)
from utils.errors import UserError
from utils.labels import ids_to_classes, label_set


def test_same_seed_and_index_give_the_same_room_and_others_do_not():
    first, again = default_room(3), build_room(SEED, 3, ROOM_OPTIONS)
    for name in ("vertices", "normals", "uv", "faces", "labels", "material"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert first.materials.color.tobytes() == again.materials.color.tobytes()
    other_seed, other_index = build_room(SEED + 1, 3, ROOM_OPTIONS), build_room(SEED, 3 + ROOMS, ROOM_OPTIONS)
    assert other_seed.kind == other_index.kind == first.kind
    assert len({room.size for room in (first, other_seed, other_index)}) == 3


def test_the_default_rooms_hold_all_classes_and_show_them_long_tailed():
    pixels = np.zeros(label_set().num_classes)
    for index in range(ROOMS):
        room = default_room(index)
        classes = ids_to_classes(room.labels[room.faces[:, 0]])
        pixels += np.bincount(classes[faces_seen(room, default_path(index), PICTURE_OPTIONS)].ravel(),
                              minlength=label_set().num_classes)
    share = dict(zip(label_set().names, pixels / pixels.sum(), strict=True))
    assert min(share.values()) > 0, share
    assert max(share.values()) > 20 * min(share.values())
    assert {"wall", "floor"} == set(sorted(share, key=share.get)[-2:])
    assert share["sink"] < 0.01 and share["picture"] < 0.02


@pytest.mark.parametrize("index", range(ROOMS))
def test_a_camera_inside_always_sees_a_surface(index):
    assert (faces_seen(default_room(index), default_path(index), PICTURE_OPTIONS) >= 0).all()


@pytest.mark.parametrize("kind", ROOM_TYPES)
def test_mesh_is_sound(kind):
    options = RoomOptions(types=(kind,), edge=0.1)
    room = build_room(7, 0, options)
    assert room.faces.min() == 0 and room.faces.max() == len(room.vertices) - 1
    assert (room.labels[room.faces] == room.labels[room.faces[:, :1]]).all()  # no vertex between two labels
    assert np.isfinite(room.vertices).all() and np.isfinite(room.uv).all()
    assert np.allclose(np.linalg.norm(room.normals, axis=1), 1, atol=1e-4)
    assert (room.vertices >= -1e-4).all() and (room.vertices <= np.array(room.size) + 1e-4).all()
    assert set(np.unique(room.labels)) <= {int(label) for label in Nyu40}
    corners = room.vertices[room.faces]
    legs = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)
    assert np.percentile(legs, 99) < 1.6 * options.edge and legs.max() < 3 * options.edge


def test_default_meshes_have_as_many_faces_as_small_scannet_scenes():
    counts = [len(build_room(SEED, index, RoomOptions()).faces) for index in (0, 3)]
    assert 20_000 < min(counts) and max(counts) < 200_000


def test_pieces_do_not_overlap_and_keep_their_clearance():
    rng = np.random.default_rng(0)
    plan = FloorPlan(3.0, 3.0, 2.5)
    for _ in range(12):
        piece = Piece(0.3)
        piece.box((-0.3, -0.2, 0), (0.3, 0.2, 1), Material("plain", (1, 1, 1), (1, 1, 1)), Nyu40.BOX)
        plan.against_wall(piece, rng, clearance=0.4, gap=0.02)
    assert 4 <= len(plan.placed) < 12
    for a, b in itertools.combinations(plan.placed, 2):
        assert ((a.low >= b.high) | (b.low >= a.high)).any()
    for placed in plan.placed:
        to_wall = np.concatenate([placed.low[:2], 3.0 - placed.high[:2]])
        assert to_wall.min() == pytest.approx(0.02)


def test_textures_depend_on_place_and_stay_in_range():
    rng = np.random.default_rng(0)
    uv = rng.uniform(-2, 2, (4000, 2)).astype(np.float32)
    for name in textures.PATTERNS:
        table = MaterialTable.of([Material(name, (0.2, 0.5, 0.8), (0.9, 0.4, 0.1), 0.3, phase=3.3)])
        color = textures.albedo(table, np.zeros(4000, dtype=np.int16), uv)
        assert color.dtype == np.float32 and color.min() >= 0 and color.max() <= 1
        assert color.std(axis=0).max() > 0.02, name
        part = textures.albedo(table, np.zeros(100, dtype=np.int16), uv[:100])
        assert np.array_equal(part, color[:100]), name


def test_label_ids_are_those_of_the_benchmark():
    ids = {label.name.lower(): int(label) for label in Nyu40}
    known = {name.replace(" ", "_"): id for name, id in zip(label_set().names[1:], label_set().ids[1:], strict=True)}
    known["other_furniture"] = known.pop("otherfurniture")
    assert {name: ids[name] for name in known} == known
    assert not ids_to_classes(np.array([i for name, i in ids.items() if name not in known])).any()


def test_unknown_room_type_is_named():
    with pytest.raises(UserError, match="dungeon"):
        RoomOptions(types=("kitchen", "dungeon"))
