"""Plain Lava graphs to compare with: stock processes and models, Vars read after every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from lava.magma.compiler.compiler_graphs import find_processes
from lava.magma.core.process.process import AbstractProcess, ProcessParameters
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.sink import PyReceiveModelFixed
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import PySendModelFixed
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF

# What the tag "fixed_pt" selects. Lava's compiler takes it faster process by process than it finds
# it by itself.
STOCK_MODELS = {
    LIF: PyLifModelBitAcc,
    Dense: PyDenseModelBitAcc,
    DelayDense: PyDelayDenseModelBitAcc,
    Source: PySendModelFixed,
    Sink: PyReceiveModelFixed,
}


def stock_config(process: AbstractProcess) -> Loihi2SimCfg:
    """Lava's own fixed-point models for everything connected to a process."""
    found = find_processes(process)
    models = {leaf: STOCK_MODELS[type(leaf)] for leaf in found if type(leaf) in STOCK_MODELS}
    return Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)


def channels_first(values: np.ndarray) -> np.ndarray:
    """NetX orders the axes of a layer W, H, C; a Network counts its channels in C, H, W order."""
    return values.T.reshape(-1)


def stock_run(net: Any, inputs: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Spikes and membranes, (steps, neurons) for each layer of a NetX network, on stock models.

    Args:
        net: stock ``hdf5.Network`` or one with its attributes. Where its first layer is an input
            layer with neurons, their bias is written before each step, as NetX means it.
        inputs: uint8 (steps, channels).
    """
    steps = len(inputs)
    encoder = not hasattr(net.layers[0], "synapse")
    sinks = []
    for layer in net.layers:
        sink = Sink(shape=layer.neuron.s_out.shape, buffer=steps)
        layer.neuron.s_out.connect(sink.a_in)
        sinks.append(sink)
    first = net.layers[0].neuron
    if not encoder:
        source = Source(data=inputs.T.astype(np.int32))
        source.s_out.connect(net.inp)
    voltage: list[list[np.ndarray]] = [[] for _ in net.layers]
    start = first if encoder else source
    config = stock_config(start)
    try:
        for x in inputs:
            if encoder:
                transform = net.layers[0].transform
                bias = transform["weight"] * x.astype(np.int64) + transform["bias"]
                shaped = bias.reshape(first.s_out.shape[::-1]).T
                if start.runtime is None:
                    start.create_runtime(run_cfg=config)
                    start.run(RunSteps(num_steps=0))
                first.bias_mant.set(np.ascontiguousarray(shaped))
            start.run(RunSteps(num_steps=1), run_cfg=config)
            for layer, values in zip(net.layers, voltage, strict=True):
                values.append(channels_first(layer.neuron.v.get()).astype(np.int32))
        spikes = [
            np.array([channels_first(step) for step in np.moveaxis(sink.data.get(), -1, 0)]).astype(np.uint8)
            for sink in sinks
        ]
    finally:
        start.stop()
    return spikes, [np.array(values) for values in voltage]


def write_stock(path: Path, layers: list[dict[str, Any]]) -> str:
    """Write NetX's keys, one dictionary a layer; nested ones become groups."""

    def fill(group: h5py.Group, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                fill(group.create_group(key), value)
            else:
                group[key] = np.array([value], "S10") if key == "type" else value

    with h5py.File(path, "w") as file:
        for k, layer in enumerate(layers):
            fill(file.create_group(f"layer/{k}"), layer)
    return str(path)


def cuba(vth: int, du: int, dv: int) -> dict[str, Any]:
    """NetX's group ``neuron``."""
    return {
        "type": "CUBA", "iDecay": du, "vDecay": dv, "vThMant": vth, "refDelay": 1, "gradedSpike": False,
    }  # fmt: skip


class _Wire:
    """One end of a connection, with nothing behind it."""

    def __init__(self) -> None:
        self.data: np.ndarray | None = None

    def send(self, data: np.ndarray) -> None:
        self.data = np.array(data)

    def recv(self) -> np.ndarray:
        return self.data


def bare_model(model: type, process: AbstractProcess) -> Any:
    """A process model with the Vars of a process, to be stepped without Lava's runtime."""
    made = model(ProcessParameters(process.proc_params._parameters))
    for var in process.vars:
        declared = getattr(model, var.name)
        values = np.empty(var.shape, declared.d_type)
        values[:] = var.init
        setattr(made, var.name, values)
    made.s_in, made.a_out = _Wire(), _Wire()
    return made
