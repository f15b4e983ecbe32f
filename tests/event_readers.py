"""What the events of a run say, read back as TensorBoard reads them."""

from __future__ import annotations

import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def events_in(folder):
    """All events of a run: its name and step to its tensor, each once."""
    found = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(file)).Load():
            for value in event.summary.value:
                assert (value.tag, event.step) not in found, f"{value.tag} of step {event.step} is there twice"
                found[value.tag, event.step] = value
    return found


def curves_in(folder):
    """Name to values by step, of all scalars, as TensorBoard itself reads them."""
    read = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    plugins = {name: read.SummaryMetadata(name).plugin_data.plugin_name for name in read.Tags()["tensors"]}
    return {
        name: {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in read.Tensors(name)}
        for name, plugin in plugins.items()
        if plugin == "scalars"
    }


def hparams_in(folder, kind="session_start_info"):
    (value,) = (value for (name, _), value in events_in(folder).items() if name == f"_hparams_/{kind}")
    return getattr(HParamsPluginData.FromString(value.metadata.plugin_data.content), kind)
