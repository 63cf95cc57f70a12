"""The budget: rare classes get more views a scene, nobody gets none, and quotas are kept."""

import pytest

from analysis.budget import BudgetOptions, class_quota, share_out

OPTIONS = BudgetOptions(views_per_class=40, min_per_target=2, max_per_target=10, max_per_scene=0)


def test_a_class_that_few_scenes_show_gets_more_in_each():
    assert class_quota(5, 1, OPTIONS) == 8
    assert class_quota(20, 1, OPTIONS) == 2
    assert class_quota(7, 1, OPTIONS) == 6  # 5.7, rounded up


def test_every_target_gets_its_least_and_none_more_than_the_most():
    assert class_quota(100, 3, OPTIONS) == 6
    assert class_quota(1, 3, OPTIONS) == 30


def test_targets_of_a_class_share_evenly_and_leave_what_one_cannot_use_to_others():
    assert share_out([10, 10], [18, 18], {18: 8}, OPTIONS) == [3, 2]
    assert share_out([10, 1], [18, 18], {18: 8}, OPTIONS) == [4, 1]
    assert share_out([10, 0], [18, 18], {18: 8}, OPTIONS) == [5, 0]


def test_a_full_scene_still_gives_every_target_one_first():
    limited = BudgetOptions(views_per_class=40, min_per_target=2, max_per_target=10, max_per_scene=5)
    assert share_out([10, 10, 10], [18, 16, 7], {18: 5, 16: 5, 7: 5}, limited) == [2, 2, 1]


@pytest.mark.parametrize("available", [[], [0], [0, 0]])
def test_nothing_available_gives_nothing(available):
    assert share_out(available, [18] * len(available), {18: 1}, OPTIONS) == [0] * len(available)
