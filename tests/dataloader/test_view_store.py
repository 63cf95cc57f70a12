"""View stores: coding errors as stated, resuming, atomic finish, and opening without reading."""

import json
import os
import resource

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dataloader import CameraList, ViewStore, ViewStoreWriter, add_channel
from dataloader.view_channels import decode, encode
from utils.errors import UserError
from utils.spherical_harmonics import SH_CHANNELS

SIZE = (6, 8)
CHANNELS = {
    "rgb": (torch.uint8, (3, *SIZE)),
    "sh": (np.uint8, (27, *SIZE)),
    "depth": ("uint16", SIZE),
    "alpha": ("uint8", SIZE),
}
SH_RANGE = torch.stack((torch.linspace(-2, -0.1, 27), torch.linspace(0.3, 4, 27)), dim=1)


def make_cameras(count: int, size=SIZE, info=None) -> CameraList:
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, 0, 3] = torch.arange(count)
    return CameraList("scene0000_00", [str(i) for i in range(count)], poses, torch.eye(3), size, info or [])


def make_views(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low, high = SH_RANGE[:, 0, None, None], SH_RANGE[:, 1, None, None]
    return {
        "rgb": torch.rand(count, 3, *SIZE, generator=generator),
        "sh": low + (high - low) * torch.rand(count, 27, *SIZE, generator=generator),
        "depth": 6 * torch.rand(count, *SIZE, generator=generator),
        "alpha": torch.rand(count, *SIZE, generator=generator),
    }


def write_store(path, count=4, settings=None, overwrite=False):
    cameras = make_cameras(count)
    writer = ViewStoreWriter.create(path, cameras, CHANNELS, settings or {"step": 0.5}, SH_RANGE, overwrite)
    if writer is not None:
        writer.write(range(count), make_views(count))
        writer.finish()
    return writer


def test_values_come_back_within_the_stated_error(tmp_path):
    write_store(tmp_path / "store")
    store, views = ViewStore.open(tmp_path / "store"), make_views(4)
    assert (len(store), store.size, store.channels) == (4, SIZE, tuple(CHANNELS))
    for index in range(4):
        error = {name: (store.read(name, index) - views[name][index]).abs() for name in CHANNELS}
        assert error["rgb"].max() <= 1 / 510 + 1e-6 and error["alpha"].max() <= 1 / 510 + 1e-6
        assert error["depth"].max() <= 0.0005 + 1e-6
        bound = (SH_RANGE[:, 1] - SH_RANGE[:, 0]) / 510
        assert (error["sh"].amax((1, 2)) <= bound + 1e-6).all()
    assert store.clipped == {"rgb": 0, "sh": 0, "depth": 0, "alpha": 0}
    assert torch.equal(store.cameras.camera_to_world, make_cameras(4).camera_to_world)
    assert torch.equal(store.sh_range, SH_RANGE)


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float32, (1, SH_CHANNELS, 1, 3), elements=st.floats(-100, 100, width=32)),
    st.floats(-50, 50, width=32), st.floats(0, 50, width=32),
)  # fmt: skip
def test_quantized_sh_is_clamped_counted_and_bounded(sh, low, width):
    sh, high = torch.from_numpy(sh), low + width
    sh_range = torch.tensor([[low, high]], dtype=torch.float32).repeat(SH_CHANNELS, 1)
    stored, clipped = encode("sh", sh, "uint8", sh_range)
    inside = sh.clamp(*sh_range[0].tolist())
    error = (decode("sh", stored, sh_range) - inside).abs().max()
    assert error <= width / 510 + 1e-5 * max(1, abs(low), abs(high))
    # Within half a step outside the range a value still rounds to a level: it is not counted.
    step = width / 255
    margin = 1e-3 * step + 1e-5 * max(1, abs(low))
    assert ((sh < low - step / 2 - margin) | (sh > high + step / 2 + margin)).sum() <= clipped[0]
    assert clipped[0] <= ((sh < low - step / 2 + margin) | (sh > high + step / 2 - margin)).sum()


def test_half_precision_sh_and_what_does_not_fit():
    sh = torch.tensor([0.123456, -7.0, 1e6, float("nan")]).reshape(1, 1, 1, 4).expand(1, SH_CHANNELS, 1, 4)
    stored, clipped = encode("sh", sh, "float16")
    assert stored.dtype == torch.float16 and clipped.tolist() == [2 * SH_CHANNELS]
    assert abs(stored[0, 0, 0, 0].item() - 0.123456) <= 2**-11 * 0.123456


def test_depth_is_rounded_to_millimetres_not_to_halves():
    # float16 depth, as the original stored it, is off by up to 2 mm at 5 m and by 1 cm at 20 m.
    depth = torch.tensor([[[0.0, 1.2344, 4.99951, 20.0006, 65.535, 70.0, torch.inf]]])
    stored, clipped = encode("depth", depth, "uint16")
    assert stored.flatten().tolist() == [0, 1234, 5000, 20001, 65535, 65535, 0]
    assert clipped.tolist() == [1]


def test_clipped_values_are_reported(tmp_path, caplog):
    writer = ViewStoreWriter.create(tmp_path / "store", make_cameras(2), CHANNELS, {}, SH_RANGE)
    views = make_views(2)
    views["sh"][1, 5, 0, :3] = 100.0
    views["depth"][0, 0, 0] = 80.0
    writer.write([0, 1], views)
    assert writer.finish().clipped == {"rgb": 0, "sh": 3, "depth": 1, "alpha": 0}
    assert "3 values of sh" in caplog.text


def test_interrupted_writing_goes_on_where_it_stopped(tmp_path, resume):
    path, cameras, views = tmp_path / "store", make_cameras(5), make_views(5)
    writer = ViewStoreWriter.create(path, cameras, CHANNELS, {}, SH_RANGE)
    writer.write(3, {name: values[3] for name, values in views.items()})
    writer.write([0], {name: values[:1] for name, values in views.items()})
    del writer
    with pytest.raises(UserError, match="not a view store.*unfinished"):
        ViewStore.open(path)
    writer = ViewStoreWriter.create(path, cameras, CHANNELS, {}, SH_RANGE)
    assert writer.pending() == [1, 2, 4]
    with pytest.raises(RuntimeError, match="3 views are not written, the first is 1"):
        writer.finish()
    writer.write([1, 2, 4], {name: values[[1, 2, 4]] for name, values in views.items()})
    resumed = writer.finish()
    single = ViewStoreWriter.create(tmp_path / "single", cameras, CHANNELS, {}, SH_RANGE)
    single.write(range(5), views)
    single.finish()
    names = sorted(path.name for path in resumed.path.iterdir())
    assert names == ["alpha.npy", "cameras.json", "depth.npy", "meta.json", "rgb.npy", "settings.json", "sh.npy"]
    for name in names:
        assert (resumed.path / name).read_bytes() == (tmp_path / "single" / name).read_bytes(), name


def test_finished_store_is_not_made_again(tmp_path):
    path = tmp_path / "store"
    assert write_store(path) is not None
    assert write_store(path) is None
    with pytest.raises(UserError, match="step = 0.5 there, 0.1 now"):
        write_store(path, settings={"step": 0.1})
    with pytest.raises(UserError, match="views = 4 there, 3 now"):
        write_store(path, count=3)
    assert write_store(path, settings={"step": 0.1}, overwrite=True) is not None


def test_opening_reads_no_pixels(tmp_path):
    size, count = (100, 100), 40
    writer = ViewStoreWriter.create(tmp_path / "big", make_cameras(count, size), {"sh": ("float16", (27, *size))}, {})
    for index in range(0, count, 10):
        writer.write(range(index, index + 10), {"sh": torch.full((10, 27, *size), 0.25)})
    writer.finish()
    file_bytes = (tmp_path / "big" / "sh.npy").stat().st_size
    before = _bytes_read()
    store = ViewStore.open(tmp_path / "big")
    assert store.read("sh", 7).mean() == 0.25
    assert _bytes_read() - before < file_bytes / 10  # one view of 40, headers and JSON
    assert not [line for line in open("/proc/self/maps") if "big/sh.npy" in line]
    assert store.tensor("sh").shape == (count, 27, *size) and store.tensor("sh").dtype == torch.float16


def _bytes_read() -> int:
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])  # rchar: what read calls returned, cached or not


def test_many_stores_need_no_file_handles(tmp_path):
    write_store(tmp_path / "store")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 20, hard))
    try:
        stores = [ViewStore.open(tmp_path / "store") for _ in range(100)]
        assert all(store.read("rgb", 1).shape == (3, *SIZE) for store in stores)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_channels_are_added_together_or_not_at_all(tmp_path):
    write_store(tmp_path / "store")

    def fail(label, depth):
        label[:] = 1
        raise RuntimeError("killed")

    def fill(label, depth):
        assert (label.shape, label.dtype, depth.dtype) == ((4, *SIZE), np.uint8, np.uint16)
        label[:], depth[:] = 7, 1500

    names = ("label", "depth_mesh")
    with pytest.raises(RuntimeError, match="killed"):
        add_channel(tmp_path / "store", names, fail, {"near": 0.01})
    assert not list((tmp_path / "store").glob("*label*"))
    assert add_channel(tmp_path / "store", names, fill, {"near": 0.01})
    store = ViewStore.open(tmp_path / "store")
    assert store.read("label", 3).unique().tolist() == [7] and store.read("label", 3).dtype == torch.int64
    assert store.read("depth_mesh", 0).unique().tolist() == [1.5]
    assert not add_channel(tmp_path / "store", names, fail, {"near": 0.01})  # there already
    with pytest.raises(UserError, match=r"label already.*\(near = 0.01 there, 0.02 now\).*overwrite"):
        add_channel(tmp_path / "store", "label", fail, {"near": 0.02})
    assert add_channel(tmp_path / "store", "label", lambda array: array.fill(9), {"near": 0.02}, overwrite=True)
    assert ViewStore.open(tmp_path / "store").read("label", 0).max() == 9
    with pytest.raises(RuntimeError, match="killed"):
        add_channel(tmp_path / "store", names, fail, {"near": 0.03}, overwrite=True)
    assert "label" not in ViewStore.open(tmp_path / "store").channels  # rather none than one under wrong settings
    assert not list((tmp_path / "store").glob(".*"))


def test_damaged_stores_are_named(tmp_path):
    with pytest.raises(UserError, match="nothing is there"):
        ViewStore.open(tmp_path / "store")
    write_store(tmp_path / "store")
    path = tmp_path / "store" / "sh.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"sh\.npy is \d+ bytes long, expected \d+"):
        ViewStore.open(tmp_path / "store").read("sh", 0)
    np.save(path, np.empty((2, 2), dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"sh\.npy holds object"):
        ViewStore.open(tmp_path / "store").tensor("sh")
    with pytest.raises(UserError, match="no channel 'label'.*annotate"):
        ViewStore.open(tmp_path / "store").read("label", 0)
    with pytest.raises(IndexError):
        ViewStore.open(tmp_path / "store").read("rgb", 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["channels"].update({"../../etc/x": {"dtype": "uint8", "shape": list(SIZE)}}), "unknown channel"),
        (lambda m: m.update(views=-5), "-5 where"), (lambda m: m.update(views=10**9), "too short for the 1000000000"),
        (lambda m: m.update(views=float("inf")), "inf where"), (lambda m: m.update(views="4"), "'4' where"),
        (lambda m: m.update(views=True), "True where"), (lambda m: m.update(size=[10**12, 8]), "where"),
        (lambda m: m.update(size=[-6, -8]), "-6 where"), (lambda m: m.update(size="ab"), "'a' where"),
        (lambda m: m.update(size=[6.0, 8.0]), "6.0 where"), (lambda m: m.update(size=7), "TypeError"),
        (lambda m: m.update(channels=[]), "AttributeError"), (lambda m: m["channels"].update(rgb=None), "TypeError"),
        (lambda m: m["channels"]["rgb"].update(dtype="object"), "ValueError"),
        (lambda m: m["channels"]["rgb"].update(dtype=[]), "ValueError"), (lambda m: m.pop("clipped"), "is missing"),
        (lambda m: m.update(sh_range="abc"), "Error"), (lambda m: m.update(sh_range=[1.0]), "27 pairs"),
        (lambda m: m.update(sh_range=[[float("nan")] * 2] * 27), "27 pairs"),
        (lambda m: m.update(sh_range=[[10**400, 0]] * 27), "Overflow"), (lambda m: m.update(sh_range=None), "8 bits"),
        (lambda m: m.update(scene="../.."), "'../..' cannot be a scene's name"),
        (lambda m: m.update(version="9" * 1000), "has version"), (lambda m: m.update(attributes=3), "TypeError"),
    ],
)  # fmt: skip
def test_descriptions_that_no_store_has_are_refused(tmp_path, change, message):
    write_store(tmp_path / "store")
    path = tmp_path / "store" / "meta.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))
    with pytest.raises(UserError, match=message) as caught:
        ViewStore.open(tmp_path / "store")
    assert str(path) in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("meta", ["[]", "null", "7", "[" * 10**5, "9" * 10**4, "\0"])
def test_other_json_is_no_store(tmp_path, meta):
    write_store(tmp_path / "store")
    (tmp_path / "store" / "meta.json").write_text(meta)
    with pytest.raises(UserError, match="meta.json cannot be read as"):
        ViewStore.open(tmp_path / "store")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_told_with_its_view(tmp_path, bad):
    writer = ViewStoreWriter.create(tmp_path / "s", make_cameras(3), {"sh": ("float16", (27, *SIZE))}, {})
    writer.write([0, 1, 2], {"sh": torch.full((3, 27, *SIZE), 65504.0)})
    store = writer.finish()
    values = np.load(tmp_path / "s" / "sh.npy", mmap_mode="r+")
    values[1, 26, 5, 7] = bad
    values.flush()
    assert float(store.read("sh", 0).max()) == float(store.read("sh", 2).max()) == 65504
    with pytest.raises(UserError, match=r"sh\.npy: view 1 holds NaN or infinity"):
        store.read("sh", 1)


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(UserError, match="no cameras"):
        ViewStoreWriter.create(tmp_path / "s", make_cameras(0), CHANNELS, {}, SH_RANGE)
    for channels, message in (({"rgb": ("float32", (3, *SIZE))}, "expected uint8"), ({"x": ("uint8", SIZE)}, "unknown"),
                              ({"sh": ("uint8", (9, *SIZE))}, r"\[27, 6, 8\]")):
        with pytest.raises(ValueError, match=message):
            ViewStoreWriter.create(tmp_path / "s", make_cameras(1), channels, {}, SH_RANGE)
    with pytest.raises(ValueError, match="needs sh_range"):
        ViewStoreWriter.create(tmp_path / "s", make_cameras(1), CHANNELS, {})
    writer = ViewStoreWriter.create(tmp_path / "s", make_cameras(1), CHANNELS, {}, SH_RANGE)
    with pytest.raises(ValueError, match="got channels"):
        writer.write(0, {"rgb": torch.zeros(3, *SIZE)})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", CHANNELS)
def test_values_that_are_not_numbers_are_refused_with_their_view(tmp_path, name, bad):
    views = make_views(4)
    views[name][2].view(-1)[5] = bad
    writer = ViewStoreWriter.create(tmp_path / "store", make_cameras(4), CHANNELS, {}, SH_RANGE)
    with pytest.raises(UserError, match=f"store: {name} of view 2 holds NaN or infinite values"):
        writer.write(range(4), views)
    assert writer.pending() == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "message"), [("rgb", "the field is black"), ("alpha", "the field is transparent")])
def test_a_store_in_which_nothing_shows_is_no_result(tmp_path, name, message):
    views = make_views(3)
    views[name].zero_()
    writer = ViewStoreWriter.create(tmp_path / "store", make_cameras(3), CHANNELS, {}, SH_RANGE)
    writer.write(range(3), views)
    with pytest.raises(UserError, match=f"{message} in every pixel of all 3 views"):
        writer.finish()
    assert not (tmp_path / "store").exists()
    views[name][2].view(-1)[0] = 1
    writer.write(2, {channel: values[2] for channel, values in views.items()})
    writer.finish()
    assert len(ViewStore(tmp_path / "store")) == 3
