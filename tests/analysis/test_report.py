"""The report: rows, deviations and budgets from runs on disk, and a page that needs nothing else."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from analysis.report.curves import plot_curves, read_curves
from analysis.report.fused_section import fused_section
from analysis.report.page import render_template
from analysis.report.runs import find_runs, fusion_table, group_runs, unequal_budgets
from analysis.report.search_section import plot_search, search_section
from analysis.report.summary import summary
from analysis.task_analyze import analyze
from analysis.task_filter import filter as filter_domes
from analysis.task_report import report
from analysis.task_sample import sample
from dataloader import ViewStore
from tests.analysis.box_room import write_scan, write_store
from tests.analysis.pages import open_page, seen
from utils.files import read_json, write_json
from utils.images import write_image
from utils.labels import colorize, label_set


def write_run(runs_dir, name, mean_iou, stem="rgb", color="rgb", seed=0, novel=False, epochs=5, tested=True, scene="a",
              inputs=("sh",)):  # fmt: skip
    training = runs_dir / name / "training"
    training.mkdir(parents=True)
    folders = ["original", "novel"] if novel else ["original"]
    (training / "settings.json").write_text(json.dumps({
        "network": {"stem": stem, "inputs": inputs}, "views": {"color": color},
        "budget": {"seed": seed, "epochs": epochs},
        "training": [{"folder": folder, "scene": scene} for folder in folders],
    }))
    iou = dict.fromkeys(label_set().names[1:]) | {"wall": mean_iou, "sink": mean_iou}
    scores = {"mean_iou": mean_iou, "pixel_accuracy": 0.5, "class_iou": iou, "views": 7}
    (training / "results.json").write_text(json.dumps(
        {"validation": scores, "parameters": 351948, "training_views": 40, "epochs": epochs, "seconds": 9.0}))
    samples = training / "samples"
    if tested:
        samples = runs_dir / name / "test" / "scores" / "samples"
        samples.mkdir(parents=True)
        (samples.parent / "results.json").write_text(json.dumps(scores))
    truth = colorize(torch.ones(8, 8, dtype=torch.uint8))
    prediction = colorize(torch.full((8, 8), 2 + seed, dtype=torch.uint8))
    write_image(samples / "000.png", torch.cat((truth * 0 + 90, truth, prediction), dim=2))


def write_search(folder):
    """Twelve trials as the search task leaves them: the higher the rate, the better, and weights do not matter."""
    trials = [{"number": number, "mean_iou": 0.1 + 0.01 * number, "OptimizerOptions.learning_rate": 1e-4 * 2**number,
               "LossOptions.class_weights": ("enet", "none")[number % 2]} for number in range(12)]
    best = {name: trials[-1][name] for name in ("OptimizerOptions.learning_rate", "LossOptions.class_weights")}
    write_json(folder / "metrics.json",
               {"best_trial": 11, "best_mean_iou": 0.21, "best": best, "trials": trials, "failed_trials": 2})


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("work")
    write_store(tmp_path / "views" / "original" / "room")
    write_store(tmp_path / "views" / "novel" / "room")
    write_scan(tmp_path / "scans" / "room")
    views, scans = str(tmp_path / "views" / "original"), str(tmp_path / "scans")
    analyze(views, str(tmp_path / "analysis"), tail=["sink"], sh_pixels=600)
    sample(views, scans, str(tmp_path / "domes"), classes=["sink"])
    filter_domes(str(tmp_path / "domes"), scans, str(tmp_path / "domes_filtered"), device="cpu")
    field = tmp_path / "fields" / "plenoxel_scannet_room"
    (field / "render_model").mkdir(parents=True)
    (field / "results.json").write_text(json.dumps(
        {"psnr": 21.5, "psnr_given_pose": 21.0, "psnr_neutral": 20.25, "ssim": 0.7,
         "held_out": {"0": {"psnr": 21.5, "ssim": 0.7}}}))
    write_image(field / "render_model" / "0.jpg", torch.rand(3, 10, 40))
    write_run(tmp_path / "runs", "rendered_rgb", 0.30)
    write_run(tmp_path / "runs", "rendered_rgb_1", 0.34, seed=1)
    write_run(tmp_path / "runs", "rendered_rgb_sh", 0.40, stem="conv_sum", tested=False)
    write_run(tmp_path / "runs", "rendered_rgb_sh_concat", 0.36, stem="concat")
    write_run(tmp_path / "runs", "rendered_rgb_sh_concat_1", 0.38, stem="concat", seed=1)
    write_search(tmp_path / "search")
    with SummaryWriter(tmp_path / "runs" / "rendered_rgb" / "training" / "tensorboard") as writer:
        for step, loss in ((10, 2.0), (20, 1.0)):
            writer.add_scalar("train/loss", loss, step)
    return tmp_path


def run_report(work):
    folders = ("fields", "views/original", "views/novel", "analysis", "domes", "domes_filtered", "runs")
    paths = (str(work / folder) for folder in folders)
    return report(str(work / "report"), *paths, search_dir=str(work / "search"), title="A <b>title</b>")


def groups_of(folder):
    groups, _ = group_runs(find_runs(folder)[0])
    return {group.title: group for group in groups}


def test_rows_and_deviation_over_seeds(tmp_path):
    write_run(tmp_path, "novel_rgb_sh", 0.6, stem="conv_sum", novel=True)
    write_run(tmp_path, "rendered_rgb_0", 0.30)
    write_run(tmp_path, "rendered_rgb_1", 0.34, seed=1)
    write_run(tmp_path, "camera_rgb", 0.5, color="photo")
    table = groups_of(tmp_path)
    assert list(table) == ["camera RGB", "rendered RGB", "RGB + SH, with novel views"]
    mean, deviation = table["rendered RGB"].mean_iou
    assert mean == pytest.approx(0.32) and deviation == pytest.approx(0.04 / 2**0.5)
    assert table["camera RGB"].mean_iou == (0.5, None)
    assert table["rendered RGB"].class_iou("bed") is None


def test_rows_are_told_apart_by_their_name_and_not_by_their_settings(tmp_path):
    write_run(tmp_path, "rendered_rgb", 0.30)
    write_run(tmp_path, "half_of_the_rooms", 0.20, seed=1)  # like another seed of the first, by its settings alone
    write_run(tmp_path, "mine_2", 0.10, seed=1)  # of its own: its seed is not 2
    table = groups_of(tmp_path)
    assert {title: len(group.runs) for title, group in table.items()} == {
        "rendered RGB": 1, "half_of_the_rooms": 1, "mine_2": 1}  # fmt: skip


@pytest.mark.parametrize(
    "others, reason",
    [
        ([{"seed": 1, "epochs": 9}], "budget.epochs = 5 there, 9 now"),
        ([{"seed": 1, "scene": "b"}], r"training\[0\].scene"),
        ([{"seed": 1, "tested": False}], "only some are tested"),
    ],
)
def test_runs_of_one_name_that_are_not_alike_are_not_averaged(tmp_path, others, reason):
    write_run(tmp_path, "row_0", 0.30)
    for other in others:
        write_run(tmp_path, "row_1", 0.50, **other)
    groups, remarks = group_runs(find_runs(tmp_path)[0])
    assert [(group.title, group.mean_iou[0]) for group in groups] == [("row_0", 0.30), ("row_1", 0.50)]
    assert len(remarks) == 1 and re.search(reason, remarks[0])


def test_a_seed_that_occurs_twice_is_not_averaged(tmp_path):
    write_run(tmp_path, "row", 0.30)
    write_run(tmp_path, "row_0", 0.50)
    groups, remarks = group_runs(find_runs(tmp_path)[0])
    assert [group.title for group in groups] == ["row", "row_0"] and "two have the seed 0" in remarks[0]


def test_a_row_that_is_not_what_the_papers_is_does_not_stand_for_it(tmp_path):
    write_run(tmp_path, "novel_rgb", 0.30)  # no store of novel views
    (group,), (remark,) = group_runs(find_runs(tmp_path)[0])
    assert group.paper is None and group.title == "novel_rgb"
    assert "novel_rgb is not the paper's row" in remark and "novel views False instead of True" in remark
    write_run(tmp_path, "rendered_rgb_sh", 0.30, stem="conv_sum", inputs=["sh", "depth"])
    assert "inputs ['sh', 'depth'] instead of ['sh']" in group_runs(find_runs(tmp_path)[0])[1][1]


@pytest.mark.parametrize("poses", [None, {"jittered": {"metres": 0.1}}])
def test_a_run_on_live_views_stands_beside_those_on_stores(tmp_path, poses):
    """Its settings say of what it was trained on in another form: fields and meshes instead of stores."""
    write_run(tmp_path, "rendered_rgb_0", 0.25)
    write_run(tmp_path, "live_rgb_0", 0.5)
    path = tmp_path / "live_rgb_0" / "training" / "settings.json"
    live = {"live": [{"scene": "b", "field": "sha256:0"}, {"scene": "c", "field": "sha256:1"}], "poses": poses}
    write_json(path, read_json(path) | {"training": live})
    found = groups_of(tmp_path).values()
    assert {group.name: group.first.novel_views for group in found} == {"rendered_rgb": False,
                                                                        "live_rgb": poses is not None}
    assert "trained on 40 views of 3 scenes" in summary(list(found), None)[0]


def test_no_run_is_left_out_in_silence(tmp_path):
    write_run(tmp_path, "row", 0.30)
    write_run(tmp_path, "none", None, tested=False)
    (tmp_path / "stopped" / "training.partial").mkdir(parents=True)
    runs, left_out = find_runs(tmp_path)
    assert [run.name for run in runs] == ["row"]
    assert [line.split()[1] for line in left_out] == ["none", "stopped"] and "not finished" in left_out[1]


def test_learning_curves_are_read_from_event_files(work, tmp_path):
    runs = shutil.copytree(work / "runs", tmp_path / "runs")
    tensorboard = runs / "rendered_rgb" / "training" / "tensorboard"
    curves = read_curves(tensorboard, ["train/loss", "val/mean_iou"])
    assert list(curves) == ["train/loss"]
    assert (curves["train/loss"].steps, curves["train/loss"].values) == ([10, 20], [2.0, 1.0])
    assert plot_curves(find_runs(runs)[0]) is not None
    shutil.rmtree(tensorboard)
    assert plot_curves(find_runs(runs)[0]) is None


def test_unequal_budgets_are_told(tmp_path):
    write_run(tmp_path, "rendered_rgb", 0.3)
    write_run(tmp_path, "rendered_rgb_sh", 0.4, stem="conv_sum", epochs=9, seed=4)
    assert unequal_budgets(list(groups_of(tmp_path).values())) == ["budget.epochs"]
    assert fusion_table(list(groups_of(tmp_path).values())) == []  # two stems of which one takes in no SH


def test_page_is_self_contained_and_its_pictures_exist(work):
    metrics = run_report(work)
    assert metrics["mean_iou"]["rendered RGB"] == pytest.approx(32)
    page = (work / "report" / "index.html").read_text()
    assert "<script" not in page and "http" not in re.sub(r'src="data:[^"]*"', "", page)
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert len(sources) >= 12
    for source in sources:
        kind, content = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", source).groups()
        assert Image.open(io.BytesIO(base64.b64decode(content))).format == kind.upper()
    text = re.sub(r"<[^>]+>|\s+", " ", page)
    assert "32.0 ±2.8" in re.sub(" +", " ", text)
    assert "A &lt;b&gt;title" in page and "Run rendered_rgb_sh was not tested" in page


def test_other_forms_hold_the_same_numbers(work):
    run_report(work)
    content = json.loads((work / "report" / "report.json").read_text())
    assert content["results"]["rows"][0]["mean_iou"] == pytest.approx(32)
    assert "base64" not in json.dumps(content)
    markdown = (work / "report" / "report.md").read_text()
    assert "| rendered RGB | 32.0 ± 2.8 |" in markdown and "| room | 21.50 | 21.00 | 20.25 | 0.700 |" in markdown
    header, first, *_ = (work / "report" / "results.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert (row["mean_iou"], row["seeds"], row["iou_sink"], row["iou_bed"]) == ("32.000", "2", "32.000", "")


def test_novel_views_double_the_pixels_but_not_the_shares(work):
    run_report(work)
    content = json.loads((work / "report" / "report.json").read_text())
    assert content["classes"]["after"] == [2 * count for count in content["classes"]["before"]]
    assert content["tail_gain"] == pytest.approx(1.0)


def test_an_empty_folder_gives_a_page_that_says_what_is_missing(tmp_path):
    metrics = run_report(tmp_path)
    page = (tmp_path / "report" / "index.html").read_text()
    assert len(metrics["missing"]) == 6 and "<img" not in page
    page = page.replace("&#39;", "'")
    assert all(f"run '{task}'" in page for task in ("train", "fit", "analyze", "sample", "render"))


def test_the_best_score_is_one_of_test_views_where_there_are_some(tmp_path):
    write_run(tmp_path / "runs", "high", 0.9, tested=False)
    run_report(tmp_path)
    assert "90.0&thinsp;%</b><span>best mIoU of validation views: high" in (tmp_path / "report/index.html").read_text()
    write_run(tmp_path / "runs", "low", 0.2)
    run_report(tmp_path)
    assert "20.0&thinsp;%</b><span>best mIoU: low" in (tmp_path / "report/index.html").read_text()


def test_stems_are_compared_over_their_seeds(work):
    run_report(work)
    content = json.loads((work / "report" / "report.json").read_text())
    fusion = {row["title"]: row for row in content["results"]["fusion"]}
    assert list(fusion) == ["concat", "conv_sum", "rgb"]
    assert fusion["concat"]["mean_iou"] == pytest.approx(37) and fusion["concat"]["paper_mean_iou"] == 39.6
    assert fusion["concat"]["mean_iou_std"] == pytest.approx(100 * 0.02 / 2**0.5)
    assert fusion["concat"]["class_iou"]["sink"]["std"] == pytest.approx(100 * 0.02 / 2**0.5)
    assert fusion["conv_sum"]["mean_iou_std"] is None
    rows = {row["title"]: row["paper_mean_iou"] for row in content["results"]["rows"]}
    assert rows == {"rendered RGB": 40.0, "rendered RGB + SH": 41.0, "rendered RGB + SH (concat)": 39.6}
    assert "| concat | 37.0 ± 1.4 | 39.6 |" in (work / "report" / "report.md").read_text()


def test_the_search_shows_its_best_trials(work):
    run_report(work)
    content = json.loads((work / "report" / "report.json").read_text())["search"]
    assert content["parameters"] == ["OptimizerOptions.learning_rate", "LossOptions.class_weights"]
    assert [trial["number"] for trial in content["trials"]] == list(range(11, 1, -1))
    assert content["trials"][0] == {"number": 11, "mean_iou": pytest.approx(21), "values": ["0.205", "none"]}
    assert (content["count"], content["failed"]) == (12, 2)
    page = (work / "report" / "index.html").read_text()
    assert "Hyper-parameter search" in page and "best.gin" in page
    assert "| 11 | 21.00 | 0.205 | none |" in (work / "report" / "report.md").read_text()
    assert search_section(work / "absent") is None


def test_a_searchs_plot_has_a_panel_for_each_hyper_parameter(work):
    found = read_json(work / "search" / "metrics.json")
    figure = plot_search(found["trials"], list(found["best"]))
    history, rate, weights = figure.axes
    assert (rate.get_xscale(), weights.get_xscale()) == ("log", "linear")
    assert [label.get_text() for label in weights.get_xticklabels()] == ["enet", "none"]
    best = rate.collections[1].get_offsets()[0]
    assert list(best) == pytest.approx([found["best"]["OptimizerOptions.learning_rate"], 21])
    assert history.lines[0].get_ydata()[-1] == pytest.approx(21)


def test_the_page_opens_in_a_browser(work):
    run_report(work)
    address = (work / "report" / "index.html").as_uri()
    with open_page(address, (390, 800)) as phone:
        assert phone.wait_for("document.readyState === 'complete'")
        assert phone.evaluate("document.documentElement.scrollWidth <= 390"), "nothing sticks out of a phone's screen"
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        bright = seen(phone).mean()
        phone.call("Emulation.setEmulatedMedia", features=dark)
        assert seen(phone).mean() < bright / 2
    with open_page(address) as page:
        assert page.wait_for("document.readyState === 'complete'")
        widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(widths) >= 12 and min(widths) > 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
        assert page.wait_for(page.shows("Hyper-parameter search"), 1)
        assert seen(page).std() > 10
        assert not page.errors, page.errors


def test_fused_predictions_stand_beside_those_of_single_views(tmp_path):
    store = write_store(tmp_path / "views" / "room")
    label = ViewStore.open(store).tensor("label").numpy()
    (tmp_path / "fused" / "room").mkdir(parents=True)
    np.save(tmp_path / "fused" / "room" / "label.npy", label)
    scores = {kind: {"mean_iou_of_present": iou, "mean_iou": 0.0, "pixel_accuracy": 0.5}
              for kind, iou in (("single", 0.3), ("fused", 0.45))}
    scenes = {"room": {"views": len(label), **scores}, "unlabelled": {"views": 3, "single": None, "fused": None}}
    write_json(tmp_path / "fused" / "run" / "metrics.json", {**scores, "vertices": None, "scenes": scenes})
    found = fused_section(tmp_path / "fused", tmp_path / "views", 3)
    assert [row["scene"] for row in found["scenes"]] == ["room"] and found["gained"] == 1
    assert (found["single_iou"], found["fused_iou"]) == pytest.approx((30, 45))
    (picture,) = found["pictures"]
    assert picture["fused"] == picture["truth"] and picture["render"].startswith("data:image/jpeg")
    np.save(tmp_path / "fused" / "room" / "label.npy", label[:-1])  # of another rendering: no picture, but scores
    assert fused_section(tmp_path / "fused", tmp_path / "views", 3)["pictures"] == []
    assert fused_section(tmp_path / "absent", tmp_path / "views", 3) is None
    assert fused_section(None, tmp_path, 3) is None
    assert found["unlabelled"] == ["unlabelled"]
    page, text = (render_template(name, {**empty_page(), "fused": found}) for name in ("page.html", "page.md"))
    assert "Predictions fused in the fields" in page and "1 of 1 scenes gain" in page
    assert "| room | 12 | 30.0 | 45.0 | 50.0 | 50.0 |" in text


def test_fused_labels_of_scenes_without_labels_are_shown(tmp_path):
    store = write_store(tmp_path / "views" / "kitchen")
    with_labels = ViewStore.open(store)
    label = with_labels.tensor("label").numpy()
    (tmp_path / "fused" / "kitchen").mkdir(parents=True)
    np.save(tmp_path / "fused" / "kitchen" / "label.npy", label)
    none = {"single": None, "fused": None, "vertices": None}
    scenes = {"kitchen": {"views": len(label), **none}}
    write_json(tmp_path / "fused" / "run" / "metrics.json", {**none, "scenes": scenes})
    meta = read_json(store / "meta.json")
    del meta["channels"]["label"]
    write_json(store / "meta.json", meta)
    found = fused_section(tmp_path / "fused", tmp_path / "views", 3)
    assert found["scenes"] == [] and found["unlabelled"] == ["kitchen"] and len(found["pictures"]) == 4
    assert all(picture["truth"] is None for picture in found["pictures"])
    page, text = (render_template(name, {**empty_page(), "fused": found}) for name in ("page.html", "page.md"))
    assert "Without labels to compare with: kitchen." in page and "mIoU of single views" not in page
    assert page.count('alt="fused labels"') == 4 and 'alt="annotation"' not in page
    assert "Without labels to compare with: kitchen." in text and "mIoU of single views" not in text


def empty_page():
    names = ("results", "search", "fields", "classes", "domes", "original_views", "novel_views", "records", "tail_gain")
    return {**dict.fromkeys(names), "title": "t", "missing": []}
