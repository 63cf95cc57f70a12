"""Progress: estimates at changing costs, and lines of a log."""

import logging

import pytest

from utils import progress as module
from utils.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move: ``clock[0]`` is the time."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: False, raising=False)
    return now


def work(meter, clock, items, seconds):
    for _ in range(items):
        clock[0] += seconds
        meter.update()


def test_costs_that_are_known_count_from_the_beginning(clock):
    meter = Progress("fit", 20, parts=[(10, 1.0), (10, 4.0)])
    assert meter.seconds_left() is None
    work(meter, clock, 5, 2.0)
    assert meter.seconds_left() == pytest.approx(5 * 2 + 10 * 8)
    work(meter, clock, 10, 2.0)  # the second part is cheaper than thought
    work(meter, clock, 4, 50.0)
    assert meter.seconds_left() == pytest.approx(50.0)


def test_the_rate_is_that_of_the_latest_work(clock):
    meter = Progress("fit", 1000)
    work(meter, clock, 500, 0.01)
    work(meter, clock, 100, 1.0)
    assert meter.seconds_left() == pytest.approx(400, rel=0.05)  # 290 by the rate since the start


def test_what_was_done_before_does_not_count_for_the_rate(clock):
    meter = Progress("fit", 100)
    meter.skip(80)
    work(meter, clock, 10, 3.0)
    assert meter.seconds_left() == pytest.approx(30)


def test_one_line_a_scene_or_one_every_15_seconds(clock, caplog):
    caplog.set_level(logging.INFO)
    meter = Progress("render", 3, "scene", every=True)
    clock[0] += 2
    meter.update(note="room: 40 views")
    assert caplog.messages == ["render: 1/3, room: 40 views, 4 s left, 2 s a scene"]
    caplog.clear()
    work(Progress("x", 100), clock, 60, 0.5)
    assert len(caplog.messages) == 2
