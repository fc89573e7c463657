"""Whatever people come with takes the same road: networks in memory, state_dicts, NetX files."""

from __future__ import annotations

import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

slayer = pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

import delaynet_lava  # noqa: E402
from delaynet_lava.cli import main  # noqa: E402
from delaynet_lava.errors import InputError  # noqa: E402
from delaynet_lava.export import export_netx  # noqa: E402
from delaynet_lava.nn import DelayRecurrent, Readout  # noqa: E402

CODE = """
import torch
from lava.lib.dl import slayer

class Network(torch.nn.Module):
    def __init__(self, hidden=7):
        super().__init__()
        neuron = {"threshold": 1.0, "current_decay": 0.5, "voltage_decay": 0.1,
                  "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
        self.blocks = torch.nn.ModuleList([
            slayer.block.cuba.Dense(neuron, 6, hidden, weight_scale=4, weight_norm=True, delay=True),
            slayer.block.cuba.Recurrent({"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.05},
                                        hidden, 5, weight_scale=3),
            slayer.block.cuba.Dense({"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}, 5, 3,
                                    weight_scale=3),
        ])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x

def small():
    return Network(4)

def needs(size):
    return Network(size)

def nothing():
    return None
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.nn.Module, Path]:
    """A network of a user's own class after a pass of training, and the folder with its file."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(CODE))
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(CODE, scope)
    torch.manual_seed(0)
    network = scope["Network"]()
    network((torch.rand(3, 6, 40) < 0.3).float())
    network.blocks[0].delay.delay.data = torch.rand(7) * 20
    return network.eval(), tmp_path


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def content(path: str | Path) -> dict[str, bytes]:
    """Every value of the layers of a net.h5, by name."""
    found: dict[str, bytes] = {}

    def keep(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[()]).tobytes()

    with h5py.File(path) as file:
        file["layer"].visititems(keep)
    return found


def test_a_network_a_saved_one_and_a_bare_state_dict_give_one_file(trained) -> None:
    network, folder = trained
    delaynet_lava.save_model(network, folder / "model.pt")
    torch.save(network.state_dict(), folder / "state.pt")
    torch.save({"epoch": 3, "state_dict": network.state_dict()}, folder / "kept.pt")
    torch.save({f"module.{k}": v for k, v in network.state_dict().items()}, folder / "parallel.pt")
    export_netx(network, folder / "memory.h5")
    assert run("export", "model.pt", "-o", "saved.h5") == 0
    for name in ("state", "kept", "parallel"):
        assert run("export", f"{name}.pt", "--network", "mine.py:Network", "-o", f"{name}.h5") == 0
        assert content("memory.h5") == content(f"{name}.h5")
    assert content("memory.h5") == content("saved.h5")
    again = delaynet_lava.load_model(folder / "model.pt")
    export_netx(again, folder / "again.h5")
    assert content("memory.h5") == content("again.h5")


def test_a_list_of_blocks_is_a_network_but_hides_its_parameters_inside_a_module(trained, tmp_path) -> None:
    network, _ = trained
    export_netx(list(network.blocks), tmp_path / "list.h5")
    export_netx(network, tmp_path / "module.h5")
    assert content(tmp_path / "list.h5") == content(tmp_path / "module.h5")

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = list(network.blocks)

    with pytest.raises(InputError, match=r"torch does not know its parameters.*ModuleList"):
        export_netx(Hidden(), tmp_path / "hidden.h5")


def test_a_netx_file_of_lava_dl_is_checked_and_made_legal(trained, capsys) -> None:
    params = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}
    torch.manual_seed(1)
    long = torch.nn.Sequential(
        DelayRecurrent(params, 4, 5, [0, 3, 70, 90, 62], weight_scale=4), Readout(params, 5, 2)
    )
    export_netx(long, "long.h5", force=True)
    assert run("export", "long.h5", "-o", "no.h5") == 1
    assert "delay" in capsys.readouterr().err
    assert not Path("no.h5").exists()
    assert run("export", "long.h5", "-o", "relay.h5", "--delay-overflow", "relay") == 0
    assert max(s.max_delay for layer in delaynet_lava.load("relay.h5").layers
               for s in (layer.synapse, layer.recurrent) if s is not None) <= 62  # fmt: skip


@pytest.mark.parametrize(
    "words, expected",
    [
        (("state.pt",), "--network"),
        (("whole.pt",), "save_model"),
        (("state.pt", "--network", "mine.py:Nothing"), "it defines: Network"),
        (("state.pt", "--network", "mine.py"), "file.py:Name"),
        (("state.pt", "--network", "absent.py:Network"), "does not exist"),
        (("state.pt", "--network", "absent.module:Network"), "No module named"),
        (("state.pt", "--network", "broken.py:Network"), "ZeroDivisionError"),
        (("state.pt", "--network", "mine.py:small"), "does not fit the network"),
        (("state.pt", "--network", "mine.py:needs"), "without arguments"),
        (("state.pt", "--network", "mine.py:nothing"), "NoneType"),
        (("net.h5",), "name another file with -o"),
    ],
)
def test_what_people_have_gets_the_line_that_works(trained, words, expected, capsys) -> None:
    network, folder = trained
    torch.save(network.state_dict(), folder / "state.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "whole.pt")
    (folder / "broken.py").write_text("1 / 0\n")
    export_netx(network, folder / "net.h5")
    before = (folder / "net.h5").read_bytes()
    capsys.readouterr()
    assert run("export", *words) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1, error
    assert (folder / "net.h5").read_bytes() == before
