"""PeRFception scenes: the format's keys, dtypes and shapes, round trips in every bit width, and safety."""

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytorch_lightning.callbacks import ModelCheckpoint

from dataloader import PerfceptionBackground, SceneTransform, load_perfception_scene, save_perfception_scene
from dataloader.perfception_config import find_value, read_config
from dataloader.quantization import dequantize_columns, pack_rows, quantize_columns, unpack_rows
from utils.errors import UserError

RESOLUTION = (12, 10, 8)
TRANSFORM = SceneTransform(torch.eye(4), torch.tensor([0.1, 0.2, 0.3]), 0.25, ["0", "20"])


def make_grid(voxels: int = 101, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    links_idx = torch.randperm(math.prod(RESOLUTION), generator=generator)[:voxels]
    return links_idx, 50 * torch.rand(voxels, generator=generator), 0.3 * torch.randn(voxels, 27, generator=generator)


def save(folder, bits=8, **options):
    links_idx, density, sh = make_grid()
    save_perfception_scene(folder, RESOLUTION, links_idx, density, sh, TRANSFORM, bits=bits, **options)
    return links_idx, density, sh


def load_as_public_reader(folder, quantize: bool, quantize_density: bool, quant_bit: int):
    """What PeRFception's ``on_load_checkpoint`` computes, written anew: links grid, density and SH parameters."""

    def dequantize(data, low, scale):
        if quant_bit in (8, 16):
            levels = data.float()
        else:
            per_byte = 8 // quant_bit
            levels = torch.zeros(len(data) * per_byte, *data.shape[1:])
            for k in range(per_byte):
                levels[k::per_byte] = data // 2 ** (8 - quant_bit * (k + 1)) % 2**quant_bit
        return levels * scale + low

    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    state, resolution = checkpoint["state_dict"], RESOLUTION
    density, sh = state["model.density_data"], state["model.sh_data"]
    if quantize_density:
        density = dequantize(density, checkpoint["model.density_data_min"], checkpoint["model.density_data_scale"])
    if quantize:
        sh = dequantize(sh, checkpoint["model.sh_data_min"], checkpoint["model.sh_data_scale"])
    index = state["model.links_idx"]
    i, j, k = (
        index // (resolution[1] * resolution[2]), index % (resolution[1] * resolution[2]) // resolution[2],
        index % resolution[2],
    )  # fmt: skip
    links = torch.full(resolution, -1, dtype=torch.int32)
    links[i, j, k] = torch.arange(len(index), dtype=torch.int32)
    assert state["model.basis_data"].shape == (0, 0, 0, 0) and state["model.background_data"].shape == (0, 0, 0)
    return links, density, sh


def test_keys_dtypes_and_shapes_of_the_format(tmp_path):
    links_idx, density, _ = save(tmp_path)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    found = {name: (str(values.dtype).removeprefix("torch."), tuple(values.shape)) for name, values in state.items()}
    assert found == {
        "model.density_data": ("float32", (101, 1)),
        "model.sh_data": ("uint8", (101, 27)),
        "model.links_idx": ("int64", (101,)),
        "model.basis_data": ("float32", (0, 0, 0, 0)),
        "model.background_data": ("float32", (0, 0, 0)),
    }
    assert checkpoint["model.sh_data_min"].shape == checkpoint["model.sh_data_scale"].shape == (1, 27)
    assert checkpoint["reso_idx"] == 0 and "pytorch-lightning_version" in checkpoint
    assert torch.equal(state["model.links_idx"], links_idx) and torch.equal(state["model.density_data"][:, 0], density)
    config = read_config(tmp_path)
    assert config["LitPlenoxel.reso"] == [[12, 10, 8]] and config["LitPlenoxel.quantize"] is True
    cells = np.load(tmp_path / "thick.npy")
    assert cells.dtype == np.int32 and np.array_equal(np.ravel_multi_index(cells.T, RESOLUTION), links_idx.numpy())
    assert (tmp_path / "init.npy").exists() and (tmp_path / "trans_info.npz").exists()


@pytest.mark.parametrize("bits", [32, 16, 8, 4, 2])
@pytest.mark.parametrize("quantize_density", [False, True])
def test_public_reader_gets_the_same_grid(tmp_path, bits, quantize_density):
    links_idx, _, _ = save(tmp_path, bits, quantize_density=quantize_density)
    ours = load_perfception_scene(tmp_path)
    links, density, sh = load_as_public_reader(tmp_path, bits < 32, quantize_density and bits < 32, bits)
    assert ours.resolution == RESOLUTION and torch.equal(ours.links_idx, links_idx)
    for row in (0, 57, 100):
        i, j, k = np.unravel_index(int(links_idx[row]), RESOLUTION)
        assert links[i, j, k] == row
    assert torch.equal(ours.sh, sh[:101].float()) and torch.equal(ours.density, density[:101, 0].float())
    assert (links >= 0).sum() == 101


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(-1e3, 1e3, width=32)),
    st.sampled_from([8, 4, 2]),
)
def test_quantization_error_is_half_a_step(values, bits):
    values = torch.from_numpy(values)
    packed, low, scale = quantize_columns(values, bits)
    restored = dequantize_columns(packed, low, scale, bits, len(values))
    # The rule's own 1e-12 shifts a level by at most 1e-12 levels of it; the rest is float32 arithmetic.
    slack = (2**bits) * 1e-12 + 4 * torch.finfo(torch.float32).eps * values.abs().amax(0)
    assert ((restored - values).abs() <= scale / 2 + slack).all()
    assert len(packed) == -(-len(values) * bits // 8)


def test_rounding_rule_is_exactly_the_public_one():
    # q = round((x - min) / (scale + 1e-12)), halves to even; scale = (max - min) / 255.
    values = torch.tensor([[0.0], [255.0], [0.5], [1.5], [100.49]])
    packed, low, scale = quantize_columns(values, 8)
    assert (low.item(), scale.item()) == (0.0, 1.0)
    assert packed[:, 0].tolist() == [0, 255, 0, 2, 100]


@pytest.mark.parametrize(("bits", "rows"), [(4, [[1], [2], [15]]), (2, [[1], [2], [3], [0], [3]]), (8, [[255]])])
def test_packing_puts_the_first_row_highest(bits, rows):
    levels = torch.tensor(rows, dtype=torch.uint8)
    packed = pack_rows(levels, bits)
    expected = {4: [0x12, 0xF0], 2: [0b01101100, 0b11000000], 8: [255]}[bits]
    assert packed[:, 0].tolist() == expected
    assert torch.equal(unpack_rows(packed, bits, len(rows)), levels)


def test_saving_what_was_loaded_changes_nothing(tmp_path):
    save(tmp_path / "a")
    first = load_perfception_scene(tmp_path / "a")
    save_perfception_scene(tmp_path / "b", first.resolution, first.links_idx, first.density, first.sh, first.transform)
    second = load_perfception_scene(tmp_path / "b")
    assert torch.equal(first.density, second.density) and torch.equal(first.links_idx, second.links_idx)
    torch.testing.assert_close(first.sh, second.sh, rtol=0, atol=1e-6)
    save(tmp_path / "c")
    for name in sorted(os.listdir(tmp_path / "a")):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes(), name


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_background_comes_along(tmp_path, bits):
    data = torch.rand(2 * 5 * 5, 3, 4, generator=torch.Generator().manual_seed(1))
    links = torch.arange(50, dtype=torch.int32).reshape(10, 5)
    save(tmp_path, bits, background=PerfceptionBackground(data, links))
    loaded = load_perfception_scene(tmp_path).background
    assert torch.equal(loaded.links, links) and loaded.data.shape == data.shape
    assert (loaded.data - data).abs().max() <= (0.5 / (2**bits - 1) + 1e-6 if bits < 32 else 0)


def test_both_checkpoint_names_and_a_path_to_the_file(tmp_path):
    _, density, _ = save(tmp_path)
    (tmp_path / "last.ckpt").rename(tmp_path / "data.ckpt")
    assert torch.equal(load_perfception_scene(tmp_path).density, density)
    assert torch.equal(load_perfception_scene(tmp_path / "data.ckpt").density, density)
    assert load_perfception_scene(tmp_path).transform.frame_ids == ["0", "20"]


@pytest.mark.parametrize(
    "text",
    [
        "LitPlenoxel.reso = [[12, 10, 8]]",
        "# it's (a\nLitPlenoxel.background_reso = 5\nLitPlenoxel.reso = \\\n    [[12, 10, 8],\n     [24, 20, 16]]\n",
        "import model.plenoxel\nmodel.LitPlenoxel.reso_list = [[12, 10, 8]]  # list",
        "train/LitPlenoxel.reso = [(12, 10, 8)]\nrun.name = 'x = [1'\n",
        "reso = [[12, 10, 8]]",
    ],
)
def test_resolution_is_found_in_any_spelling(tmp_path, text):
    save(tmp_path)
    (tmp_path / "config.gin").write_text(text)
    assert load_perfception_scene(tmp_path).resolution == RESOLUTION


def test_config_is_data_not_code(tmp_path):
    code = "__import__('os').system('false')"
    (tmp_path / "config.gin").write_text(f"a.b = {code}\nc.d = @f()\ne.f = 0.5\ninclude 'x.gin'")
    config = read_config(tmp_path)
    assert config == {"a.b": code, "c.d": "@f()", "e.f": 0.5}
    assert find_value(config, "f") == 0.5 and find_value(config, "b.f") is None


def test_a_config_in_a_data_folder_imports_and_includes_nothing(tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    (tmp_path / "hostile.py").write_text(f"open({str(trace)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    save(tmp_path)
    lines = ("from __gin__ import dynamic_registration", "import hostile", "LitPlenoxel.reso = [[12, 10, 8]]",
             f"include '{tmp_path}/hostile.py'", "reso = @hostile.x()")  # fmt: skip
    (tmp_path / "config.gin").write_text("\n".join(lines[:3]) + "\n" + lines[3])
    assert load_perfception_scene(tmp_path).resolution == RESOLUTION
    (tmp_path / "config.gin").write_text("\n".join(lines[4:]))
    with pytest.raises(UserError, match="reso is '@hostile.x\\(\\)'"):
        load_perfception_scene(tmp_path)
    assert not trace.exists()


class _Payload:
    def __reduce__(self):
        return (os.system, ("touch hacked",))


def _rewrite(folder, change):
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, folder / "last.ckpt")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path)
    _rewrite(tmp_path, lambda checkpoint: checkpoint.update(callbacks=_Payload()))
    with pytest.raises(UserError, match="could run code .*posix.system.*refused"):
        load_perfception_scene(tmp_path)
    assert not (tmp_path / "hacked").exists()


def test_lightnings_own_checkpoint_keys_do_no_harm(tmp_path):
    save(tmp_path)  # Lightning before 1.5 kept callbacks by class
    state = {ModelCheckpoint: {"best_model_score": torch.tensor(1.0), "best_model_path": "x"}}
    _rewrite(tmp_path, lambda checkpoint: checkpoint.update(callbacks=state))
    assert len(load_perfception_scene(tmp_path).density) == 101


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_truncated_checkpoint(tmp_path, keep):
    save(tmp_path)
    whole = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(UserError, match=r"last.ckpt .*truncated or damaged") as caught:
        load_perfception_scene(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "last.ckpt").unlink(), "holds no last.ckpt or data.ckpt"),
        (lambda folder: (folder / "config.gin").unlink(), "LitPlenoxel.reso"),
        (lambda folder: (folder / "config.gin").write_text("LitPlenoxel.reso = 256"), "expected a list"),
        (lambda folder: (folder / "config.gin").write_text("LitPlenoxel.reso = [[4, 4, 4]]"), "another resolution"),
        *((lambda folder, reso=reso: (folder / "config.gin").write_text(f"LitPlenoxel.reso = {reso}"), message)
          for reso, message in (
              ("[[1200, 1200, 1200]]", "announces a grid of .1200, 1200, 1200., and last.ckpt holds 101 voxels"),
              ("[[10000, 10000, 10000]]", "announces a grid"), ("[[1e999, 8, 8]]", "expected a list"),
              ("[[8.5, 8, 8]]", "expected a list"), ("['888']", "expected a list"), ("{1, 2}", "expected a list"),
              ("{0: [12, 10, 8]}", "expected a list"), ("[[-12, 10, -8]]", "expected a list"),
              (f"[[{10**40}, 8, 8]]", "expected a list"),
              (f"[[{'9' * 10000}, 8, 8]]", "expected a list"), ("[" * 10**5 + "]" * 10**5, "expected a list|absent"),
              ("-" * 10**5 + "1", "expected a list"), ("__import__('os').system('false')", "expected a list"),
          )),
        (lambda folder: (folder / "config.gin").write_text("a = (\n" + "xxxxxxx\n" * 60000), "names no resolution"),
        (lambda folder: (folder / "config.gin").write_bytes(bytes(range(256)) * 400), "names no resolution"),
        *((lambda folder, change=change: _rewrite(folder, change), message) for change, message in (
            (lambda c: c.update(reso_idx=10**30), "reso_idx"), (lambda c: c.update(reso_idx=math.nan), "ValueError"),
            (lambda c: c.update(reso_idx=torch.zeros(3)), "Error"), (lambda c: c.update(state_dict=None), "TypeError"),
            (lambda c: c["state_dict"].update({"model.links_idx": "x"}), "AttributeError"),
            (lambda c: c["state_dict"].update({"model.links_idx": torch.full((101,), float("nan"))}), "whole numbers"),
            (lambda c: c["state_dict"].update({"model.links_idx": torch.arange(101) - 5}), "run from -5"),
            (lambda c: c["state_dict"].update({"model.density_data": torch.zeros(101, 1, dtype=torch.complex64)}),
             "rows of bytes or floats"),
            (lambda c: c["state_dict"].update({"model.density_data": torch.zeros(101, 1, dtype=torch.bool)}),
             "rows of bytes or floats"),
            (lambda c: c.update({"model.sh_data_scale": torch.full((1, 27), float("nan"))}), "not finite"),
            (lambda c: c.update({"model.sh_data_scale": "a"}), "TypeError"),
            (lambda c: c.update({"model.sh_data_scale": torch.zeros(2000, 1, 1, 1000)}), "minimum or scale|broadcast"),
            (lambda c: c["state_dict"].update({"model.background_data": torch.zeros(1, 9, 4), "model.background_links":
                                               torch.zeros(2000, 1000, dtype=torch.int32)}), "directions for 1 rows"),
            (lambda c: c["state_dict"].update({"model.background_data": torch.zeros(8, 9, 4), "model.background_links":
                                               torch.full((4, 2), -2, dtype=torch.int32)}), "or one below -1"),
        )),
        (lambda folder: (folder / "trans_info.npz").unlink(), "trans_info.npz does not exist"),
        (lambda folder: _rewrite(folder, lambda c: c["state_dict"].pop("model.sh_data")), "model.sh_data.* is missing"),
        (lambda folder: _rewrite(folder, lambda c: c.pop("model.sh_data_min")), "_min or _scale is missing"),
        (lambda folder: _rewrite(folder, lambda c: c["state_dict"].update(
            {"model.links_idx": torch.arange(90)})), "rows for 90 occupied voxels"),
        (lambda folder: _rewrite(folder, lambda c: c["state_dict"]["model.density_data"].fill_(float("nan"))),
         "not finite"),
        (lambda folder: torch.save([1, 2], folder / "last.ckpt"), "holds a list"),
    ],
)  # fmt: skip
def test_mistakes_get_one_sentence(tmp_path, damage, message):
    save(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_perfception_scene(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda state: {"background_data": state["background_data"][:5]}, "for 32 rows"),
        (lambda state: {"background_links": state["background_links"][:5]}, "expected integers"),
        (lambda state: {"background_links": state["background_links"].reshape(-1)}, "expected integers"),
        (lambda state: {"background_links": state["background_links"] + 1000}, "for 1032 rows"),
        (lambda state: {"background_links": state["background_links"] * torch.nan}, "expected integers"),
        (lambda state: {"background_links": state["background_links"] > 0}, "expected integers"),
        (lambda state: {"background_links": torch.empty(0, 0, dtype=torch.int32)}, "expected integers"),
        (lambda state: {"background_data": state["background_data"].long()}, "int64"),
        (lambda state: {"background_data": state["background_data"][:, :1]}, "at least 2 layers"),
        (lambda state: {"background_data": state["background_data"].reshape(32, 12)}, "rows, layers, 4"),
        (lambda state: {"background_data": state["background_data"][..., :3]}, "broadcastable"),
        (lambda state: {"background_data": torch.full((32, 3, 4), torch.nan)}, "expected finite"),
    ],
)
def test_damaged_background_is_refused_in_one_sentence(damage, message, tmp_path):
    links = torch.arange(32, dtype=torch.int32).reshape(8, 4)
    save(tmp_path, 8, background=PerfceptionBackground(torch.rand(32, 3, 4), links))
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    state = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
    checkpoint["state_dict"].update({f"model.{name}": value for name, value in damage(state).items()})
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=message):
        load_perfception_scene(tmp_path)
