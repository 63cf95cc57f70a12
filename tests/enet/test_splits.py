"""No room is in two splits, and every way to hold out validation views does what it says."""

import pytest

from enet.options import SplitOptions
from enet.splits import choose_views, hold_out_rooms, refuse_overlap, room_of
from utils.errors import UserError


def names(entries) -> list[str]:
    return [f"{entry.path.parent.name}/{entry.path.name}" for entry in entries]


def test_scans_of_one_room_are_one_room():
    assert room_of("scene0012_03") == "scene0012" and room_of("kitchen_01") == "kitchen_01"
    refuse_overlap({"train": ["scene0000_00", "scene0001_00"], "val": ["scene0002_01"]})
    with pytest.raises(UserError, match="train holds scene0000_00 and test holds scene0000_01, scans of the same room"):
        refuse_overlap({"train": ["scene0000_00"], "val": ["scene0002_00"], "test": ["scene0000_01"]})
    with pytest.raises(UserError, match="the same scene"):
        refuse_overlap({"val": ["kitchen"], "test": ["kitchen"]})


def test_whole_rooms_are_held_out():
    scenes = [f"scene{room:04d}_{scan:02d}" for room in range(10) for scan in range(3)]
    training, validation = hold_out_rooms(scenes, 0.2, seed=0)
    assert sorted(training + validation) == scenes and len(validation) == 6
    refuse_overlap({"train": training, "val": validation})
    assert hold_out_rooms(scenes, 0.2, seed=0)[1] == validation
    with pytest.raises(UserError, match="val_frames = 'held_out'"):
        hold_out_rooms(["scene0000_00", "scene0000_01"], 0.5, seed=0)


def choose(folders, train="all", val=None, frames=None, every=0, test=None):
    options = SplitOptions(train_scenes=train, val_scenes=val, val_frames=frames, val_every=every, test_scenes=test)
    return choose_views(folders, options, seed=0)


def test_novel_views_are_trained_on_but_never_validated(make_store, views):
    novel = make_store("scene0000_00", folder="novel").parent
    make_store("scene0002_00", folder="novel")
    training, validation = choose([views, novel], val=["scene0002_00"], test=["scene0003_00"])
    assert names(training) == ["views/scene0000_00", "views/scene0001_00", "novel/scene0000_00"]
    assert names(validation) == ["views/scene0002_00"]


def test_a_folder_without_a_view_of_any_scene_is_refused(make_store, views):
    """A row with novel views of which none was accepted must not train as the row without."""
    other = make_store("scene0009_00", folder="novel").parent
    with pytest.raises(UserError, match="novel holds views of none of the 2 scenes .such as scene0000_00."):
        choose([views, other], val=["scene0002_00"], test=["scene0003_00"])


def test_single_room_holds_out_every_nth_view(make_store):
    views = make_store("room", count=7).parent
    novel = make_store("room", folder="novel", count=3).parent
    training, validation = choose([views, novel], every=3)
    assert [entry.indices for entry in training] == [(1, 2, 4, 5), None]
    assert [entry.indices for entry in validation] == [(0, 3, 6)]


def test_frames_kept_out_of_the_field_validate_whatever_was_rendered_of_them(make_store):
    """Of frames 0 to 13, every fourth was kept out; every second one was rendered."""
    rendered = [str(frame) for frame in range(0, 14, 2)]
    views = make_store("room", count=7, names=rendered, held_out=["0", "4", "8", "12"]).parent
    training, validation = choose([views], frames="held_out")
    assert [entry.indices for entry in training] == [(1, 3, 5)]
    assert [entry.indices for entry in validation] == [(0, 2, 4, 6)]
    assert choose([views], every=2) == (training, validation)
    with pytest.raises(UserError, match="every 4th view is not what was held out of its field, which is 0, 4, 8, 12"):
        choose([views], every=4)


def test_what_is_not_held_out_is_not_guessed(make_store):
    with pytest.raises(UserError, match="does not say which frames were held out of its field"):
        choose([make_store("silent", folder="a").parent], frames="held_out")
    with pytest.raises(UserError, match="0 of its 4 views are held out"):
        choose([make_store("all_fitted", folder="b", held_out=[]).parent], frames="held_out")
    with pytest.raises(UserError, match="val_frames = 'fitted' is unknown; use 'held_out'"):
        choose([make_store("room", folder="c").parent], frames="fitted")


def test_refusals(make_store, views):
    with pytest.raises(UserError, match="val_every = 1 leaves nothing"):
        choose([views], every=1)
    with pytest.raises(UserError, match="SplitOptions.val_scenes and SplitOptions.val_every are set"):
        choose([views], val=["scene0002_00"], every=2)
    with pytest.raises(UserError, match="val_scenes holds scene0002_00 and test_scenes holds scene0002_00"):
        choose([views], val=["scene0002_00"], test=["scene0002_00"])
    there = "which holds 4 scenes: scene0000_00, scene0001_00, scene0002_00, scene0003_00"
    for given in ({"train": ["nope"]}, {"train": ["nope"], "every": 2}, {"val": ["nope"]}):
        with pytest.raises(UserError, match=f"scene 'nope' is not in .*/views, {there}"):
            choose([views], **given)
    with pytest.raises(UserError, match="same room"):
        make_store("scene0001_01")
        choose([views], train=["scene0000_00", "scene0001_00"], val=["scene0001_01"])
