"""Label sets: the benchmark's table, others, and tables that are none."""

from pathlib import Path

import gin
import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.label_table import LARGEST_ID
from utils.labels import class_index, colorize, ids_to_classes, label_set, label_settings, read_label_set

TABLES = Path(__file__).parents[2] / "configs" / "labels"


@pytest.fixture
def chosen():
    """Chooses a table for the time of a test."""

    def choose(path) -> None:
        with gin.unlock_config():
            gin.bind_parameter("label_set.table", str(path))

    return choose


def table(folder: Path, *rows: str, ids: str = "# ids: nyu40", header: str = "id\tname\tcolor\tclass\ttail") -> Path:
    path = folder / "own.tsv"
    path.write_text("\n".join((ids, header, *rows)) + "\n", encoding="utf-8")
    return path


def test_the_benchmark_is_the_default():
    benchmark = label_set()
    assert benchmark.num_classes == 21 and len(set(map(tuple, benchmark.colors.tolist()))) == 21
    assert benchmark.ids == (0, *range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39)
    assert benchmark.ids[class_index("desk")] == 14 and benchmark.ids[class_index("otherfurniture")] == 39
    assert [benchmark.names[index] for index in benchmark.tail] == [
        "bathtub", "sink", "picture", "shower curtain", "toilet", "counter", "refrigerator", "curtain",
    ]
    assert label_settings() == {}


def test_ids_outside_the_benchmark_become_unannotated():
    ids = np.array([0, 13, 15, 22, 38, 40, 50, 149, 65535])
    assert ids_to_classes(ids).tolist() == [0] * len(ids)


def test_ids_of_the_classes_become_their_indices_in_arrays_and_tensors():
    indices = torch.arange(21).reshape(3, 7)
    assert torch.equal(ids_to_classes(torch.tensor(label_set().ids).reshape(3, 7)).long(), indices)
    assert ids_to_classes(np.array(label_set().ids, dtype=np.uint16)).tolist() == list(range(21))


def test_colorize_is_channels_first():
    image = colorize(torch.tensor([[1, 2, 0]]))
    assert image.shape == (3, 1, 3)
    assert image[:, 0, 1].tolist() == [152, 223, 138]


def test_nyu40_has_every_id_in_scannets_colours():
    nyu40 = read_label_set(TABLES / "nyu40.tsv")
    assert nyu40.ids == tuple(range(41)) and nyu40.names[13] == "blinds" and nyu40.names[40] == "otherprop"
    benchmark = label_set()
    assert all(np.array_equal(nyu40.colors[id], benchmark.colors[index]) for index, id in enumerate(benchmark.ids))
    assert all(nyu40.names[id] == benchmark.names[index] for index, id in enumerate(benchmark.ids))


def test_scannet200_is_of_raw_categories():
    public = read_label_set(TABLES / "scannet200.tsv")
    assert public.id_system == "scannet" and public.num_classes == 201
    assert public.ids[:4] == (0, 1, 2, 3) and public.names[1:4] == ("wall", "chair", "floor")
    assert public.ids[-1] == 1191 and public.names[-1] == "mattress" and public.colors[-1].tolist() == [42, 94, 198]
    assert public.class_of_id[1191] == 200 and public.class_of_id[12] == 0


def test_own_classes_are_made_of_several_ids(tmp_path, chosen):
    rows = "5\tchair\t#ff0000\t\t1", "6\tsofa\t#00ff00\tchair", "13\tblinds\t#0000ff\t-", "2\tfloor\t#010203"
    chosen(table(tmp_path, *rows))
    own = label_set()
    assert own.names == ("unannotated", "chair", "floor") and own.ids == (0, 5, 2) and own.tail == (1,)
    assert ids_to_classes(np.array([0, 5, 6, 13, 2, 1])).tolist() == [0, 1, 1, 0, 2, 0]
    assert own.knows(torch.tensor([0, 13, 1, -1, 65535])).tolist() == [True, True, False, False, False]
    assert colorize(torch.tensor([[2]]))[:, 0, 0].tolist() == [1, 2, 3]
    assert label_settings()["classes"] == ["unannotated", "chair", "floor"]


@pytest.mark.parametrize("rows, message", [
    (["5\tchair\t#ff0000", "5\tsofa\t#00ff00"], "id 5 stands in two lines"),
    (["5\tchair\t#ff0000", "6\tchair\t#00ff00"], "name 'chair' stands in two lines"),
    (["5\tchair\tred"], "line 3 has the colour 'red'"),
    (["0\tchair\t#ff0000"], "line 3 has the id '0'"),
    ([f"{LARGEST_ID + 1}\tchair\t#ff0000"], "line 3 has the id"),
    (["5\tunannotated\t#ff0000"], "line 3 has the name 'unannotated'"),
    (["5\tchair\t#ff0000\tsofa"], "'chair' is trained as 'sofa'"),
    (["5\tchair\t#ff0000\t-"], "it has 0 classes"),
    (["5 chair #ff0000"], "line 3 has 1 columns"),
    ([f"{id}\tn{id}\t#ff0000" for id in range(1, 257)], "it has 256 classes; expected 1 to 255"),
])  # fmt: skip
def test_what_is_no_table_is_refused_with_the_line(tmp_path, rows, message):
    with pytest.raises(UserError, match="own.tsv") as error:
        read_label_set(table(tmp_path, *rows))
    assert message in str(error.value)


def test_a_table_says_which_ids_it_is_of(tmp_path, chosen):
    with pytest.raises(UserError, match="expected a line '# ids: '"):
        read_label_set(table(tmp_path, "5\tchair\t#ff0000", ids="# chairs"))
    chosen(tmp_path / "absent.tsv")
    with pytest.raises(UserError, match="label_set.table.*absent.tsv.*does not exist"):
        label_set()
