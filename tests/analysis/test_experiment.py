"""The table of an experiment: hand-made counts, an independent calculation, and what is refused."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.experiment import RunScores, class_groups, class_iou, compare_rows, with_fused_rows
from analysis.task_compare import as_markdown, compare, finished_runs
from utils.errors import UserError
from utils.labels import label_set

CLASSES = label_set().names[1:]
ROOMS = ("a", "b", "c", "d", "e")


def scores(row: str, seed: int, accuracy: float, settings: str = "s", rooms=ROOMS, labels: int = 0) -> RunScores:
    """Each class is found in a share of its pixels that depends on the room; what is missed is taken for class 0."""
    drawn = np.random.default_rng(labels)
    truth = drawn.integers(200, 4000, (len(rooms), len(CLASSES)))
    noise = np.random.default_rng([seed, *row.encode()]).normal(0, 0.01, truth.shape)
    hits = (truth * np.clip(accuracy + np.linspace(-0.2, 0.2, len(rooms))[:, None] + noise, 0, 1)).astype(int)
    predicted = hits.copy()
    predicted[:, 0] += (truth - hits).sum(axis=1)
    return RunScores(row, seed, settings, np.stack([truth, predicted, hits], axis=1), tuple(rooms))


def test_iou_by_hand():
    counts = np.zeros((3, 20), int)
    counts[:, 0] = (10, 8, 6)  # 6 / 12
    counts[:, 1] = (0, 5, 0)  # only predicted
    iou = class_iou(counts)
    assert iou[0] == 0.5 and iou[1] == 0 and np.isnan(iou[2:]).all()


def test_groups_are_by_pixels_and_leave_out_what_does_not_occur():
    truth = np.arange(20) * 10
    groups = class_groups(truth)
    assert groups["tail"].tolist() == list(range(1, 8)) and groups["common"].tolist() == list(range(8, 14))
    assert groups["head"].tolist() == list(range(14, 20))


def test_means_and_intervals_are_those_of_a_plain_loop():
    runs = [scores(row, seed, accuracy) for row, accuracy in (("base", 0.5), ("better", 0.6)) for seed in range(3)]
    base, better = compare_rows(runs, "base", draws=5**5, seed=1)

    def mean_iou(members, chosen):
        return np.mean([100 * class_iou(sum(run.counts[room] for room in chosen)).mean() for run in members])

    whole = range(len(ROOMS))
    assert base.mean == pytest.approx(mean_iou(runs[:3], whole))
    assert better.mean == pytest.approx(mean_iou(runs[3:], whole))
    each = [mean_iou([run], whole) for run in runs[:3]]
    assert base.deviation == pytest.approx(np.std(each, ddof=1))
    assert base.difference is None
    assert better.difference.mean == pytest.approx(better.mean - base.mean)
    every = [mean_iou(runs[3:], chosen) - mean_iou(runs[:3], chosen) for chosen in itertools.product(whole, repeat=5)]
    low, high = np.percentile(every, (2.5, 97.5))  # of all draws there are
    assert better.difference.low == pytest.approx(low, abs=0.15)
    assert better.difference.high == pytest.approx(high, abs=0.15)
    assert better.difference.resolved


def test_equal_rows_are_not_resolved():
    runs = [scores("base", seed, 0.5) for seed in range(3)] + [scores("same", seed, 0.5) for seed in range(3)]
    assert not compare_rows(runs, "base")[1].difference.resolved


@pytest.mark.parametrize(
    "runs, message",
    [
        ([("base", 0), ("base", 1), ("row", 0)], r"row 'row' has finished runs with the seeds \[0\], the baseline"),
        ([("row", 0)], "the baseline 'base' has no finished run; there are row"),
    ],
)
def test_incomplete_rows_are_refused(runs, message):
    with pytest.raises(UserError, match=message):
        compare_rows([scores(row, seed, 0.5) for row, seed in runs], "base")


def test_what_cannot_be_compared_is_refused():
    base = [scores("base", 0, 0.5), scores("base", 1, 0.5)]
    with pytest.raises(UserError, match="differ in more than their seed"):
        compare_rows([*base, scores("row", 0, 0.5), scores("row", 1, 0.5, settings="other")], "base")
    with pytest.raises(UserError, match="'row' with seed 0 was tested on other rooms or labels than 'base'"):
        compare_rows([*base, scores("row", 0, 0.5, labels=1), scores("row", 1, 0.5)], "base")
    with pytest.raises(UserError, match="tested on other rooms"):
        compare_rows([*base, scores("row", 0, 0.5, rooms="fghij"), scores("row", 1, 0.5)], "base")


def test_the_task_reads_what_it_keeps_and_writes_into_a_document(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for row, accuracy in (("rendered_rgb", 0.5), ("better", 0.7)):
        for seed in range(2):
            run = scores(row, seed, accuracy)
            (results / f"{row}_{seed}.json").write_text(json.dumps(run.to_json()))
            again = RunScores.from_json(run.to_json())
            assert np.array_equal(again.counts, run.counts) and again.rooms == run.rooms
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- compare: begin -->\nold\n<!-- compare: end -->\nafter\n")
    found = compare(str(tmp_path / "out"), results_dir=str(results), document=str(page))
    assert found["better"]["mean_iou"] > found["rendered_rgb"]["mean_iou"]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("<!-- compare: end -->\nafter\n") and "\nold\n" not in text
    assert "| `better` |" in text and "**+" in text
    assert json.loads((tmp_path / "out/table.json").read_text())[0]["row"] in ("better", "rendered_rgb")
    page.write_text("no place")
    with pytest.raises(UserError, match="has no place for the table"):
        compare(str(tmp_path / "out"), results_dir=str(results), document=str(page))
    with pytest.raises(UserError, match="no finished run of worse"):
        compare(str(tmp_path / "out"), results_dir=str(results), rows=["worse"])


def fused(run: RunScores, accuracy: float) -> RunScores:
    """With fused scores of the same rooms."""
    return replace(run, fused=scores(run.row + "f", run.seed, accuracy).counts)


def test_fused_predictions_are_a_row_beside_the_single_views():
    runs = [fused(scores(row, seed, accuracy), accuracy + 0.15) for row, accuracy in (("base", 0.5), ("better", 0.6))
            for seed in range(2)]  # fmt: skip
    every = with_fused_rows([*runs, *(scores("plain", seed, 0.4) for seed in range(2))])
    results = {result.row: result for result in compare_rows(every, "base", draws=200)}
    assert list(results) == ["base", "base (fused)", "better", "better (fused)", "plain"]
    single, gained = results["better"], results["better (fused)"]
    expected = [100 * class_iou(run.fused.sum(axis=0)).mean() for run in runs if run.row == "better"]
    assert gained.mean == pytest.approx(np.mean(expected))
    assert gained.gain.mean == pytest.approx(gained.mean - single.mean) and gained.gain.resolved
    assert gained.difference.mean == pytest.approx(gained.mean - results["base"].mean)
    assert single.gain is None and results["plain"].gain is None and results["base (fused)"].difference.mean > 5
    pairs = [replace(run, row=row, counts=counts, fused=None) for run in runs if run.row == "better"
             for row, counts in (("better", run.counts), ("again", run.fused))]  # fmt: skip
    alone = compare_rows(pairs, "better", draws=200)
    assert (alone[1].difference, alone[1].tail_difference) == (gained.gain, gained.tail_gain)
    text = as_markdown(list(results.values()), "base", len(ROOMS))
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert rows[:5] == ["base", "base (fused)", "better", "better (fused)", "plain"] and rows[5:7] == ["base", "better"]
    assert f"| `better` | {single.mean:.2f} | {gained.mean:.2f} | **{gained.gain.mean:+.2f} (" in text


def test_fused_scores_of_some_seeds_alone_are_refused():
    runs = [fused(scores("base", 0, 0.5), 0.6), scores("base", 1, 0.5)]
    with pytest.raises(UserError, match="row 'base' has no fused scores for the seeds 1, others have them"):
        with_fused_rows(runs)


def test_fused_scores_are_kept_and_read_again():
    run = fused(scores("base", 0, 0.5), 0.6)
    again = RunScores.from_json(json.loads(json.dumps(run.to_json())))
    assert np.array_equal(again.fused, run.fused) and np.array_equal(again.counts, run.counts)
    assert RunScores.from_json(scores("base", 0, 0.5).to_json()).fused is None
    damaged = run.to_json()
    del damaged["fused_by_scene"]["c"]
    with pytest.raises(KeyError):
        RunScores.from_json(damaged)


def test_fused_scores_of_another_test_are_refused(tmp_path):
    write_run(tmp_path, "base_0", 0)
    test = tmp_path / "base_0/test"
    (test / "fused").mkdir()
    content = {"by_scene": scores("other", 0, 0.7).to_json()["by_scene"]}
    (test / "fused/results.json").write_text(json.dumps(content))
    made_from = {"checkpoint": "sha256:1", "stores": ["a"], "samples": 12}
    for part in ("scores", "fused"):
        (test / part / "settings.json").write_text(json.dumps(made_from))
    (run,) = finished_runs(tmp_path)
    assert run.fused[0, 0].tolist() == content["by_scene"]["a"]["truth"] and run.fused.sum() != run.counts.sum()
    (test / "scores/settings.json").write_text(json.dumps({**made_from, "checkpoint": "sha256:2"}))
    with pytest.raises(UserError, match="is of another checkpoint than .*run 'test' on base_0"):
        finished_runs(tmp_path)


def write_run(folder, name, seed, tested=True, finished=True):
    training = folder / name / ("training" if finished else "training.partial")
    training.mkdir(parents=True)
    (training / "settings.json").write_text(json.dumps({"budget": {"seed": seed, "epochs": 2}, "training": []}))
    if not finished:
        return
    (folder / name / "run.json").write_text(json.dumps([{"gpu": None, "python": "3", "packages": {}}]))
    (training / "results.json").write_text(json.dumps(
        {"epochs": 2, "best_epoch": 1, "seconds": 3.0, "images_per_second": 4.0}))
    if tested:
        content = scores("any", seed, 0.5).to_json()
        (folder / name / "test/scores").mkdir(parents=True)
        (folder / name / "test/scores/results.json").write_text(json.dumps(
            {"mean_iou": 0.5, "pixel_accuracy": 0.5, "by_scene": content["by_scene"]}))


def test_runs_belong_to_the_row_of_their_name_and_none_is_left_out(tmp_path):
    for name, seed in (("base_0", 0), ("base_1", 1), ("row_2", 0), ("alone", 3)):
        write_run(tmp_path, name, seed)
    assert [(run.row, run.seed) for run in finished_runs(tmp_path)] == [
        ("alone", 3), ("base", 0), ("base", 1), ("row_2", 0)]  # fmt: skip


@pytest.mark.parametrize("state, task", [({"tested": False}, "test"), ({"finished": False}, "train")])
def test_a_run_that_is_not_done_is_named_unless_its_row_is_not_wanted(tmp_path, state, task):
    write_run(tmp_path, "base_0", 0)
    write_run(tmp_path, "row_0", 0, **state)
    with pytest.raises(UserError, match=f"run '{task}' on row_0"):
        finished_runs(tmp_path)
    assert [run.row for run in finished_runs(tmp_path, ["base"])] == ["base"]
