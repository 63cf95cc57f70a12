"""The report's first picture and its words: numbers of ``compare``, and what cannot be compared."""

import json
import shutil
from dataclasses import replace

import pytest

from analysis.experiment import compare_rows
from analysis.report.differences import differences
from analysis.report.links import raw_files
from analysis.report.page import render_template
from analysis.report.results_section import results_section
from analysis.report.runs import find_runs, group_runs
from analysis.report.summary import summary
from tests.analysis.test_experiment import scores
from tests.analysis.test_report import empty_page, write_run
from utils.files import read_json, write_json


def write_scored(folder, row, seed, accuracy, rooms="abcde", **options):
    """A run whose test has counts by scene."""
    name = f"{row}_{seed}"
    write_run(folder, name, accuracy, seed=seed, **options)
    path = folder / name / "test" / "scores" / "results.json"
    counts = scores(row, seed, accuracy, rooms=rooms).to_json()["by_scene"]
    path.write_text(json.dumps(read_json(path) | {"by_scene": counts, "scenes": list(rooms)}))


def write_fused(folder, row, seed, accuracy, checkpoint="sha256:1"):
    """Fused scores of such a run, and which network's both are."""
    test = folder / f"{row}_{seed}" / "test"
    shutil.copytree(test / "scores", test / "fused")
    path = test / "fused" / "results.json"
    counts = scores(row, seed, accuracy).to_json()["by_scene"]
    write_json(path, read_json(path) | {"by_scene": counts, "mean_iou": accuracy})
    for part, network in (("scores", "sha256:1"), ("fused", checkpoint)):
        write_json(test / part / "settings.json", {"checkpoint": network, "stores": []})


def groups_of(folder):
    return group_runs(find_runs(folder)[0])[0]


def test_differences_are_those_of_compare(tmp_path):
    for seed in range(2):
        write_scored(tmp_path, "rendered_rgb_sh", seed, 0.6, stem="conv_sum")
        write_scored(tmp_path, "rendered_rgb", seed, 0.5)
        write_scored(tmp_path, "mine", seed, 0.5)
    found = differences(groups_of(tmp_path))
    assert (found["baseline"], found["scenes"], found["seeds"], found["not_compared"]) == ("rendered RGB", 5, 2, [])
    runs = [scores(row, seed, accuracy) for row, accuracy in (("rendered_rgb", 0.5), ("rendered_rgb_sh", 0.6))
            for seed in range(2)]  # fmt: skip
    expected = compare_rows(runs, "rendered_rgb")[1].difference
    first, second = found["rows"]
    assert (first["title"], first["mean"]) == ("rendered RGB + SH", pytest.approx(expected.mean))
    assert (first["low"], first["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert first["resolved"] and not second["resolved"]
    assert 50 < first["at"]["low"] < first["at"]["mean"] < first["at"]["high"] < 100
    words = " ".join(summary(groups_of(tmp_path), found))
    assert f"rendered RGB + SH {expected.mean:+.1f} points" in words and "Not resolved" in words and "mine" in words


def test_fused_scores_are_a_row_and_a_gain_with_the_interval_of_compare(tmp_path):
    for seed in range(2):
        write_scored(tmp_path, "rendered_rgb", seed, 0.5)
        write_scored(tmp_path, "rendered_rgb_sh", seed, 0.6, stem="conv_sum")
        write_fused(tmp_path, "rendered_rgb_sh", seed, 0.7)
    found = results_section(tmp_path, tmp_path)
    assert [row["title"] for row in found["rows"]] == ["rendered RGB", "rendered RGB + SH", "rendered RGB + SH (fused)"]
    assert found["rows"][2]["mean_iou"] == pytest.approx(70) and found["rows"][2]["paper_mean_iou"] is None
    (gain,) = found["gains"]["rows"]
    runs = [scores(row, seed, accuracy) for row, accuracy in (("rendered_rgb_sh", 0.6), ("rendered_rgb_sh", 0.7))
            for seed in range(2)]  # fmt: skip
    runs[2:] = [replace(run, row="fused") for run in runs[2:]]
    expected = compare_rows(runs, "rendered_rgb_sh")[1].difference
    assert (gain["title"], gain["mean"]) == ("rendered RGB + SH", pytest.approx(expected.mean))
    assert (gain["low"], gain["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert [row["title"] for row in found["differences"]["rows"]] == ["rendered RGB + SH", "rendered RGB + SH (fused)"]
    names = ["rendered_rgb_0", "rendered_rgb_sh_0", "rendered_rgb_sh_0 (fused)"]
    assert found["predictions"][0]["columns"][2:] == names
    page, text = (render_template(name, {**empty_page(), "fused": None, "results": found})
                  for name in ("page.html", "page.md"))  # fmt: skip
    assert "What fusing predictions in the fields adds" in page and "rendered RGB + SH (fused)" in page
    assert f"without labels: rendered RGB + SH {expected.mean:+.1f} ({expected.low:+.1f} to" in text


def test_fused_scores_that_do_not_belong_are_left_out_and_named(tmp_path):
    for seed in range(2):
        write_scored(tmp_path, "rendered_rgb", seed, 0.5)
    write_fused(tmp_path, "rendered_rgb", 0, 0.6, checkpoint="sha256:2")
    found = results_section(tmp_path, tmp_path)
    assert len(found["rows"]) == 1 and found["gains"] is None
    assert "Fused scores of rendered_rgb_0 are left out: they are of another checkpoint" in found["left_out"][0]
    shutil.rmtree(tmp_path / "rendered_rgb_0/test/fused")
    write_fused(tmp_path, "rendered_rgb", 0, 0.6)
    found = results_section(tmp_path, tmp_path)
    assert found["gains"] is None and "rendered_rgb_1 has none; test it" in found["left_out"][0]


def test_one_scene_gives_no_interval(tmp_path):
    write_scored(tmp_path, "rendered_rgb", 0, 0.5, rooms="a")
    write_scored(tmp_path, "rendered_rgb_sh", 0, 0.6, rooms="a", stem="conv_sum")
    found = differences(groups_of(tmp_path))
    assert found["rows"][0]["low"] is None and not found["rows"][0]["resolved"]
    assert "one test scene gives no interval" in " ".join(summary(groups_of(tmp_path), found))


def test_what_was_measured_otherwise_is_not_compared_but_named(tmp_path):
    write_scored(tmp_path, "rendered_rgb", 0, 0.5)
    write_scored(tmp_path, "rendered_rgb_sh", 1, 0.6, stem="conv_sum")
    write_scored(tmp_path, "other_rooms", 0, 0.6, rooms="fghij")
    write_run(tmp_path, "old", 0.4)
    found = differences(groups_of(tmp_path))
    assert found["rows"] == []
    reasons = dict(reason.split(": ", 1) for reason in found["not_compared"])
    assert "with the seeds [1]" in reasons["rendered RGB + SH"] and "other rooms" in reasons["other_rooms"]
    assert "no scores by scene" in reasons["old"]
    assert differences(groups_of(tmp_path)[:1]) is None


def test_words_say_data_and_budget(tmp_path):
    write_scored(tmp_path, "rendered_rgb", 0, 0.5, epochs=12)
    words = summary(groups_of(tmp_path), None)
    assert words[0] == "Data: trained on 40 views of 1 scene, tested on 7 views of 5 scenes."
    assert words[1].startswith("Budget of a run: 12 epochs; 1 seed a row. That is small (the paper trains up to 1000")
    write_scored(tmp_path, "long", 0, 0.5, epochs=1000)
    assert "12 to 1,000 epochs" in summary(groups_of(tmp_path), None)[1]


def test_links_lead_to_files_from_the_page(tmp_path):
    write_scored(tmp_path / "the runs", "rendered_rgb", 0, 0.5)
    links = raw_files(tmp_path / "the runs" / "rendered_rgb_0", tmp_path / "report")
    assert {link["name"]: link["href"] for link in links} == {
        name: f"../the%20runs/rendered_rgb_0/{name}"
        for name in ("test/scores/results.json", "training/results.json", "training/settings.json")
    }
