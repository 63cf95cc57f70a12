"""Which views are drawn and when: by seed and epoch alone, over processes as in one."""

import torch

from enet.view_source import TrainingOrder, in_order


def views_of(steps) -> torch.Tensor:
    return torch.stack([step.views for step in steps])


def draws_of(steps) -> torch.Tensor:
    return torch.stack([step.draws for step in steps])


def test_epochs_draw_without_repetition_and_depend_on_seed_and_epoch():
    order = TrainingOrder(epoch_views=9, batch_size=4, seed=3)
    first = order.shuffled(num_views=10, num_draws=7, epoch=0)
    assert len(first) == len(order) == 2  # whole batches only
    assert views_of(first).shape == (2, 4) and draws_of(first).shape == (2, 4, 7) and len(views_of(first).unique()) == 8
    assert not torch.equal(views_of(order.shuffled(10, 7, epoch=1)), views_of(first))
    again = TrainingOrder(9, 4, seed=3).shuffled(10, 7, epoch=0)
    assert torch.equal(views_of(again), views_of(first)) and torch.equal(draws_of(again), draws_of(first))
    assert not torch.equal(views_of(TrainingOrder(9, 4, seed=4).shuffled(10, 7, 0)), views_of(first))


def test_epochs_of_more_views_than_there_are_pass_over_all_of_them():
    twice = TrainingOrder(epoch_views=20, batch_size=20).shuffled(num_views=10, num_draws=0, epoch=0)
    assert twice[0].views.bincount().tolist() == [2] * 10


def test_epochs_shorter_than_a_batch_have_one_step():
    (only,) = TrainingOrder(epoch_views=3, batch_size=160).shuffled(num_views=3, num_draws=1, epoch=0)
    assert only.views.sort().values.tolist() == [0, 1, 2] and only.draws.shape == (3, 1)


def test_processes_share_the_batches_of_one():
    whole = TrainingOrder(20, 6).shuffled(20, 7, epoch=2)
    parts = [TrainingOrder(20, 3, rank=rank, world_size=2).shuffled(20, 7, epoch=2) for rank in range(2)]
    assert torch.equal(torch.cat([views_of(part) for part in parts], 1), views_of(whole))
    assert torch.equal(torch.cat([draws_of(part) for part in parts], 1), draws_of(whole))
    few = [TrainingOrder(5, 3, rank=rank, world_size=2).shuffled(5, 0, epoch=0) for rank in range(2)]
    assert [views_of(part).numel() for part in few] == [2, 2]


def test_views_in_order_come_once_and_processes_share_them():
    assert [step.views.tolist() for step in in_order(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    shares = [in_order(7, 2, rank, world_size=2) for rank in range(2)]
    assert sorted(int(view) for share in shares for step in share for view in step.views) == list(range(7))
    assert all(step.draws is None for share in shares for step in share)
