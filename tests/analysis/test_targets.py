"""Targets are objects that original views see, by class and size; held-out views decide nothing where they must not."""

from dataclasses import replace

import pytest
import torch

from analysis.targets import TargetOptions, check_targets, find_targets
from dataloader import ViewStore, ViewStoreWriter
from tests.analysis.box_room import SIZE, camera_list, mesh, trajectory, write_store
from utils.cameras import look_at
from utils.errors import UserError
from utils.labels import class_index

SINK, TOILET, TABLE = (class_index(name) for name in ("sink", "toilet", "table"))
OPTIONS = TargetOptions()


def poses(*pairs):
    eyes, points = (torch.tensor(values).double() for values in zip(*pairs, strict=True))
    return look_at(eyes, points)


AT_SINK, AT_TOILET = ((4.3, 1.0, 1.5), (2.5, 2.0, 0.6)), ((1.6, 1.2, 1.5), (0.45, 0.5, 0.35))


def targets_of(tmp_path, views, options=OPTIONS, classes=(TOILET, SINK, TABLE), **store):
    views = ViewStore.open(write_store(tmp_path / "room", poses(*views), **store))
    return find_targets(mesh(), views, classes, options)


def test_objects_that_views_see_in_the_classes_order(tmp_path):
    found = targets_of(tmp_path, [AT_SINK, AT_TOILET, AT_TOILET])
    classes = [target.instance.class_index for target in found]
    assert classes == [TOILET, SINK]  # no view shows the table
    assert [(target.number, target.frame) for target in found] == [(0, "1"), (0, "0")]
    assert found[0].views == 3  # behind the sink in the first view, too


def test_an_object_behind_another_is_not_seen(tmp_path):
    low_behind_the_sink = ((3.3, 2.9, 0.5), (0.45, 0.5, 0.35))
    assert TOILET not in {t.instance.class_index for t in targets_of(tmp_path, [low_behind_the_sink])}


def test_enough_views_and_enough_of_the_object(tmp_path):
    views = [AT_SINK, AT_TOILET, AT_TOILET]
    assert [t.instance.class_index for t in targets_of(tmp_path, views, replace(OPTIONS, min_views=2))] == [TOILET]
    assert targets_of(tmp_path / "b", views, replace(OPTIONS, min_seen=0.9)) == []  # no view shows a back


def test_held_out_views_do_not_count(tmp_path):
    store = {"attributes": {"held_out": ["0", "not rendered"]}}
    views = [AT_SINK, AT_TOILET, AT_TOILET]
    assert len(targets_of(tmp_path, views, **store)) == 2
    silent = write_store(tmp_path / "silent", poses(*views))
    blind = replace(OPTIONS, held_out=False)
    found = targets_of(tmp_path / "b", views, blind, **store)
    assert [t.instance.class_index for t in found] == [TOILET]
    with pytest.raises(UserError, match="does not say which frames were held out"):
        check_targets(ViewStore(silent), blind)


def test_the_largest_of_a_class_stay(tmp_path):
    table_as_sink = mesh()
    table_as_sink.labels[table_as_sink.labels == 7] = 34
    store = ViewStore.open(write_store(tmp_path / "room", poses(AT_SINK, ((1.5, 1.5, 1.6), (4.2, 3.2, 0.6)))))
    both = find_targets(table_as_sink, store, [SINK], OPTIONS)
    assert [t.number for t in both] == [0, 1] and both[0].instance.area > both[1].instance.area
    assert len(find_targets(table_as_sink, store, [SINK], replace(OPTIONS, max_per_class=1))) == 1


def test_what_is_missing_is_named(tmp_path):
    writer = ViewStoreWriter.create(tmp_path / "bare", camera_list(trajectory(1)), {"rgb": ("uint8", (3, *SIZE))}, {})
    writer.write(0, {"rgb": torch.ones(3, *SIZE, dtype=torch.uint8)})
    writer.finish()
    with pytest.raises(UserError, match="bare.*depth"):
        check_targets(ViewStore.open(tmp_path / "bare"), OPTIONS)
    with pytest.raises(UserError, match="merge_distance = 0.0"):
        TargetOptions(merge_distance=0.0)
