"""Chosen cameras stand in free space, see their target, are no duplicates, and are the same whoever asks."""

from dataclasses import replace

import pytest
import torch

from analysis.dome_selection import (
    CANDIDATE_REASONS,
    DomeSelector,
    SelectionOptions,
    refused_by_reason,
    refused_places,
    selected_cameras,
)
from analysis.filtering import REASONS, FilterOptions
from analysis.observers import Observers
from analysis.room_space import RoomSpace, SpaceOptions
from analysis.targets import TargetOptions, find_targets
from dataloader import ViewStore
from tests.analysis.box_room import camera_list, mesh, pixel_of, ray_cast, trajectory, write_store
from tests.analysis.test_room_space import distance_to_surfaces
from utils.labels import class_index

CLASSES = [class_index("toilet"), class_index("sink")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ViewStore.open(write_store(tmp_path_factory.mktemp("views") / "room"))


def choose(store, room=None, seed=0, most=12, classes=CLASSES, **options):
    room = room or mesh()
    targets = find_targets(room, store, classes, TargetOptions())
    originals = camera_list(trajectory())
    space = RoomSpace(room, trajectory()[:, :3, 3].numpy(), SpaceOptions())
    observers = Observers.from_store(store.path, 200)
    selector = DomeSelector(room, originals, observers, space, 0.0, seed, SelectionOptions(**options))
    selection = selector.choose(targets, most)
    cameras = selected_cameras(selection, [len(poses) for poses in selection.poses], targets, originals)
    return selection, cameras


def test_every_chosen_camera_is_good(store):
    selection, cameras = choose(store)
    assert [len(poses) for poses in selection.poses] == [12, 12]
    labels, depth = ray_cast(cameras.camera_to_world, cameras.intrinsics[0])
    for pose, info, label, distance in zip(cameras.camera_to_world, cameras.info, labels, depth, strict=True):
        assert distance_to_surfaces(pose[:3, 3].numpy()) >= SpaceOptions().clearance
        assert torch.allclose(pixel_of(info["target_point"], pose), torch.tensor(info["target_pixel"]).double())
        assert (label == info["target_class_index"]).float().mean() >= 0.2
        assert distance.min() >= FilterOptions().min_distance - 0.03  # judged in a smaller image
    assert len(set(cameras.names)) == 24 and cameras.names[0] == "dome00_toilet_000"
    assert (cameras.info[12]["target"], cameras.info[12]["target_class"]) == (1, "sink")


def test_no_two_cameras_are_near_and_look_alike(store):
    _, cameras = choose(store)
    poses = torch.cat((cameras.camera_to_world, trajectory()))
    gaps = torch.cdist(poses[:, :3, 3], poses[:, :3, 3])
    angles = torch.acos((poses[:, :3, 2] @ poses[:, :3, 2].T).clamp(-1, 1))
    alike = ((gaps < 0.15) & (angles < 0.2)).triu(1)
    alike[len(cameras):] = False  # recorded ones may be
    assert not alike.any()


def test_refused_candidates_are_counted_with_known_reasons(store):
    selection, _ = choose(store)
    counted = refused_by_reason(selection)
    assert set(counted) <= set(CANDIDATE_REASONS) | set(REASONS) and counted["no_clearance"] > 0
    assert {reason: len(places) for reason, places in refused_places(selection).items()} == dict(counted)


def test_the_seed_decides_and_a_smaller_budget_takes_the_first(store):
    _, cameras = choose(store, seed=1)
    assert torch.equal(cameras.camera_to_world, choose(store, seed=1)[1].camera_to_world)
    assert not torch.equal(cameras.camera_to_world, choose(store, seed=2)[1].camera_to_world)
    fewer = choose(store, seed=1, most=5)[1]
    assert torch.equal(fewer.camera_to_world[:5], cameras.camera_to_world[:5])


def test_a_class_more_does_not_move_the_first_ones_cameras(store):
    alone = choose(store, classes=CLASSES[:1])[1]
    assert torch.equal(alone.camera_to_world, choose(store)[1].camera_to_world[:12])


def test_the_order_of_faces_changes_nothing(store):
    room = mesh()
    order = torch.randperm(len(room.faces), generator=torch.Generator().manual_seed(2))
    again = choose(store, replace(room, faces=room.faces[order]))[1]
    assert torch.equal(again.camera_to_world, choose(store)[1].camera_to_world)


def test_a_hidden_object_of_a_common_class_is_not_taken_for_its_neighbour(store):
    selection, cameras = choose(store, min_target_share=0.99)
    assert len(cameras) == 0 and refused_by_reason(selection)["target_hidden"] > 0


def test_what_recorded_cameras_hardly_saw_is_not_taken(store):
    _, cameras = choose(store, min_observed=0.5)
    assert len(cameras) and all(info["observed"] >= 0.5 for info in cameras.info)
    assert min(info["observed"] for info in choose(store, min_observed=0.1)[1].info) < 0.5


def test_a_target_that_was_hardly_seen_keeps_its_best_observed_cameras(store):
    few, cameras = choose(store, min_observed=1.1, at_least=2, candidates=128)
    assert [len(poses) for poses in few.poses] == [2, 2]
    everything, _ = choose(store, min_observed=0.0, candidates=128, most=999)
    for chosen, all_of_them in zip(few.info, everything.info, strict=True):
        assert chosen[0]["observed"] == max(info["observed"] for info in all_of_them)
    assert len(choose(store, min_observed=1.1, at_least=0, candidates=128)[1]) == 0


def test_no_targets_give_an_empty_list(store):
    _, cameras = choose(store, classes=[class_index("bed")])
    assert len(cameras) == 0 and cameras.camera_to_world.shape == (0, 4, 4)
