"""Files of torch that may come from strangers: models and checkpoints."""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
from intruder import Intruder
from mutate import damage, strange, twist

from delaynet_lava.formats.model_file import ModelFile, load_tensors, save_model
from delaynet_lava.nn import SpikingRecurrentCell
from delaynet_lava.nn.model import describe

__all__ = ["checkpoints", "goes_on", "models", "torch_case"]

MODELS = Path(__file__).resolve().parents[2] / "delaynet_lava" / "models"
torch.set_num_threads(1)


def _rezip(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


def _strange_tensor(rng: Random) -> Any:
    if rng.random() < 0.3:
        return strange(rng)
    shape = tuple(rng.choice((0, 1, 2, 3, 4, 5)) for _ in range(rng.randrange(5)))
    kind = rng.choice((torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                       torch.uint8, torch.bool, torch.complex64))  # fmt: skip
    value = torch.full(shape, rng.choice((0.0, 1.0, -3.0, 1e4)))
    if value.numel() and rng.random() < 0.2:
        value.view(-1)[0] = rng.choice((torch.nan, torch.inf, 1e38))
    value = value.to(kind)
    if rng.random() < 0.1:
        value = value.to_sparse() if value.ndim and kind != torch.bool else value.expand(3, *shape)
    return value


def torch_case(state: Any, rng: Random) -> bytes:
    """A file with strange values, damaged members, or damaged bytes."""
    base = rng.choice(state.files)
    action = rng.random()
    if action < 0.4:
        tree = copy.deepcopy(base.tree)
        twist(tree, rng, _strange_tensor)
        buffer = io.BytesIO()
        try:
            torch.save(tree, buffer, _use_new_zipfile_serialization=rng.random() < 0.98)
            content = buffer.getvalue()
        except Exception:  # not a value that torch can hold
            content = base.content
    elif action < 0.75:
        part = rng.choice(("data.pkl", "data.pkl", "byteorder", "data/0", "data/1"))
        content = _rezip(base.content, lambda name, old: damage(old, rng) if name.endswith(part) else old)
    elif action < 0.78:
        content = state.program
    else:
        content = damage(base.content, rng)
    state.path.write_bytes(content)
    return content


def _torch_state(folder: Path, trees: list[Any]) -> Any:
    files = []
    for tree in trees:
        buffer = io.BytesIO()
        torch.save(tree, buffer)
        files.append(SimpleNamespace(tree=tree, content=buffer.getvalue()))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Intruder(str(folder / "canary"))), buffer)
    return SimpleNamespace(path=folder / "model.pt", files=files, program=buffer.getvalue())


def _small_model() -> ModelFile:
    neuron = {"threshold": 2.0, "current_decay": 0.5, "voltage_decay": 0.1}
    ones = torch.ones
    decays = lambda k: {f"{k}.neuron.current_decay": ones(1) * 900, f"{k}.neuron.voltage_decay": ones(1) * 90}  # noqa: E731
    state = {
        "0.neuron.current_decay": ones(1) * 4096,
        "0.neuron.voltage_decay": ones(1) * 90,
        "0.weight": ones(1),
        "2.synapse.weight_v": ones(4, 3, 1, 1, 1),
        "2.synapse.weight_g": ones(4, 1, 1, 1, 1),
        "2.delay.delay": ones(4),
        "3.input_synapse.weight": ones(4, 4, 1, 1, 1),
        "3.recurrent_synapse.weight": ones(4, 4, 1, 1, 1),
        "3.delay": torch.tensor([1, 2, 3, 62], dtype=torch.int32),
        "3.neuron.vth": ones(1),
        "4.synapse.weight": ones(2, 4, 1, 1, 1),
        "4.mask": ones(2, 4) > 0,
        **decays(2),
        **decays(3),
        **decays(4),
    }
    layers = [
        {"type": "Input", "shape": [3, 1, 1], "neuron": neuron, "delay_shift": True},
        {"type": "Flatten"},
        {"type": "Dense", "neuron": neuron, "in_neurons": 3, "out_neurons": 4, "delay_shift": True},
        {"type": "DelayRecurrent", "neuron": neuron, "self_connection": False, "reset": "zero"},
        {"type": "Affine", "neuron": neuron},
        {"type": "Average", "num_outputs": 2},
    ]
    config = {"layers": layers, "task": {"name": "cue", "cues": 7}, "dt_ms": 1.0}
    return ModelFile(config, state, {"seed": 1, "command": "delaynet train"})


def _cells() -> ModelFile:
    torch.manual_seed(1)
    first = SpikingRecurrentCell({}, 3, 4, delay=[1, 0, 2], recurrent_delay=3, in_exp=4, output_bits=4)
    return describe([first, SpikingRecurrentCell({"slow": 8}, 4, 2, weight_bits=3, in_exp=4)])


def models(folder: Path) -> Any:
    """A model with every kind of layer, a shipped one, one of cells, and an archive that runs a program."""
    trees = []
    for made in (_small_model(), _cells()):
        save_model(folder / "model.pt", made)
        trees.append(load_tensors(folder / "model.pt"))
    trees.insert(1, load_tensors(MODELS / "cue_loihi2.pt"))
    trees[1]["provenance"] = {"seed": 1}
    return _torch_state(folder, trees)


def checkpoints(folder: Path) -> Any:
    """A checkpoint, and the training that it is of."""
    from delaynet_lava.tasks.cue import CueAccumulation
    from delaynet_lava.training import trainer
    from delaynet_lava.training.distributed import Group
    from delaynet_lava.training.recipe_file import changed, load_recipe

    recipe = changed(
        load_recipe("loihi2"), ["network.layers=6", "network.delays=0,3", "network.shares=0.5,0.5"]
    )
    made = trainer._Trainer(recipe, CueAccumulation(), 0, Group())
    _a_step(made)
    made.best, made.progress["best"] = made.average, 0.5
    made.save(folder / "model.pt")
    state = _torch_state(folder, [load_tensors(folder / "model.pt")])
    state.trainer = made
    return state


def _a_step(made: Any) -> None:
    for parameter in made.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.optimiser.step()


def goes_on(state: Any) -> None:
    """What is taken must train."""
    state.trainer.restore(state.path)
    _a_step(state.trainer)
    state.trainer._load(state.trainer.best or state.trainer.average)
