"""What a task logged for TensorBoard, read back from its event files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Logged:
    """All values of every scalar, (height, width) of every image's last version, names of texts, hyper-parameters by
    name, and names of the metrics that belong to them."""

    scalars: dict[str, list[float]]
    images: dict[str, tuple[int, int]]
    texts: set[str]
    hparams: dict[str, object]
    metrics: set[str]


def read_events(folder: Path) -> Logged:
    """Everything in a folder of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    tags, hparams, metrics = events.Tags(), {}, set()
    for tag in events.summary_metadata:
        plugin = events.summary_metadata[tag].plugin_data
        if plugin.plugin_name != "hparams":
            continue
        data = HParamsPluginData.FromString(plugin.content)
        kinds = {name: value.WhichOneof("kind") for name, value in data.session_start_info.hparams.items()}
        hparams |= {
            name: getattr(data.session_start_info.hparams[name], kind) for name, kind in kinds.items() if kind
        }  # fmt: skip
        metrics |= {info.name.tag for info in data.experiment.metric_infos}
    return Logged(
        scalars={name: [event.value for event in events.Scalars(name)] for name in tags["scalars"]},
        images={name: (events.Images(name)[-1].height, events.Images(name)[-1].width) for name in tags["images"]},
        texts={name.removesuffix("/text_summary") for name in tags["tensors"] if name.endswith("/text_summary")},
        hparams=hparams,
        metrics=metrics,
    )
