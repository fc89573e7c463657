"""The Spiking Recurrent Cell on Lava's simulator: every i, h, h_s, spike and count is the emulator's."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("lava.magma", reason="lava-nc is not installed")
hdf5 = pytest.importorskip("lava.lib.dl.netx.hdf5", reason="lava-dl is not installed")

from bundle_tools import run_bundle  # noqa: E402
from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.proc.dense.process import Dense as LavaDense  # noqa: E402
from lava.proc.io.source import RingBuffer as Source  # noqa: E402
from lava.proc.monitor.process import Monitor  # noqa: E402
from strategies import inputs_for, src_networks  # noqa: E402

from delaynet_lava import fixedpoint as fx  # noqa: E402
from delaynet_lava import lava  # noqa: E402
from delaynet_lava.cli import main  # noqa: E402
from delaynet_lava.deploy import payload, results  # noqa: E402
from delaynet_lava.deploy.bundle import write_bundle  # noqa: E402
from delaynet_lava.emulator import emulate  # noqa: E402
from delaynet_lava.errors import InputError  # noqa: E402
from delaynet_lava.formats import netx  # noqa: E402
from delaynet_lava.lava.src.process import SRC  # noqa: E402
from delaynet_lava.network import Dense, Network, Neuron, Src, Synapse  # noqa: E402

ALL = ("spikes", "voltage", "current", "slow")


def a_stack(**options) -> Network:
    rng = np.random.default_rng(1)

    def weight(post: int, pre: int) -> np.ndarray:
        return 2 * rng.integers(-40, 90, (post, pre))

    cells = Src(rng.integers(-28000, -24600, 8), **options)
    return Network(
        (
            Dense(
                Synapse(weight(8, 6), rng.integers(0, 9, (8, 6))),
                cells,
                Synapse(weight(8, 8) // 8 * 2, rng.integers(0, 20, (8, 8))),
            ),
            Dense(Synapse(weight(3, 8)), Neuron(fx.VTH_MAX, 4096, 100)),
        )
    )


@settings(max_examples=6, suppress_health_check=list(HealthCheck), deadline=None)
@given(network=src_networks(max_layers=3, max_delay=fx.MAX_DELAY), seed=st.integers(0, 99))
def test_random_networks(network: Network, seed: int) -> None:
    inputs = inputs_for(network, 90, 2, seed=seed)
    result = lava.run(network, inputs, ALL).compare(emulate(network, inputs, ALL))
    assert result, result
    cells = [layer for layer in network.layers if layer.neuron.kind == "src"]
    assert result.compared > 2 * 90 * 4 * sum(layer.size for layer in cells)


def test_saturations_are_counted_alike() -> None:
    network = a_stack(shift=12, decay=5)
    inputs = inputs_for(network, 120, 2, 0.5)
    ours = emulate(network, inputs, ALL)
    assert ours.u_wraps[0] > 50
    assert ours.compare(lava.run(network, inputs, ALL))


def test_a_delay_of_one_step_more_is_noticed() -> None:
    network = a_stack()
    inputs = inputs_for(network, 120, 1)
    first = network.layers[0]
    late = Dense(Synapse(first.synapse.weight, first.synapse.delay + 1), first.neuron, first.recurrent)
    other = network.with_(layers=(late, network.layers[1]))
    assert lava.run(network, inputs, ALL).compare(emulate(network, inputs, ALL))
    assert not lava.run(network, inputs, ALL).compare(emulate(other, inputs, ALL))


def test_probes_read_the_states_of_the_graph_of_a_file(tmp_path: Path) -> None:
    """NetX's drop-in, Lava's own monitors, models found by their tag."""
    network = a_stack(shift=8)
    netx.write(network, tmp_path / "net.h5")
    inputs = inputs_for(network, 60, 1, 0.3)
    # What the source sends in step 1 is the emulator's step 0.
    ours = emulate(network, inputs, ALL)
    graph = lava.Network(tmp_path / "net.h5")
    source = Source(data=inputs[0].T.astype(np.int32))
    source.s_out.connect(graph.inp)
    probes = {name: Monitor() for name in ("i", "h", "h_s")}
    for name, probe in probes.items():
        probe.probe(getattr(graph.layers[0].neuron, name), 60)
    graph.run(condition=RunSteps(60), run_cfg=lava.run_config())
    seen = {name: next(iter(next(iter(p.get_data().values())).values())) for name, p in probes.items()}
    graph.stop()
    assert ours.spike_counts[0].sum() > 5
    for name, state in {"i": "current", "h": "voltage", "h_s": "slow"}.items():
        np.testing.assert_array_equal(seen[name], getattr(ours, state)[0][0])


def test_stock_netx_says_what_it_has_no_process_for(tmp_path: Path) -> None:
    """In a process of its own, whose first import decides what is mended."""
    netx.write(a_stack(), tmp_path / "net.h5")
    code = f"""
        import delaynet_lava
        from lava.lib.dl.netx import hdf5
        hdf5.Network(net_config={str(tmp_path / "net.h5")!r})
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert run.stderr.rstrip().endswith(
        "NotImplementedError: NetX has no process for neurons of the type 'SRC': load the file with "
        "delaynet_lava.lava.Network"
    )


def test_the_floating_point_model_is_the_paper() -> None:
    form, bias = fx.SrcForm(4, 410, 0, 0, 7, 0), np.array([-24576, -28000, -22000])
    inputs = (np.random.default_rng(0).random((3, 200)) < 0.3).astype(float)
    cells, source = SRC(shape=(3,), form=form, bias=bias), Source(data=inputs)
    dense = LavaDense(weights=200.0 * np.eye(3))
    source.s_out.connect(dense.s_in)
    dense.a_out.connect(cells.a_in)
    probe = Monitor()
    probe.probe(cells.h, 200)
    cells.run(condition=RunSteps(200), run_cfg=lava.run_config(select_tag="floating_pt"))
    seen = next(iter(next(iter(probe.get_data().values())).values())) / 4096
    cells.stop()
    i, h, slow = np.zeros(3), *np.full((2, 3), -1.0)
    wanted = []
    for t in range(200):
        i = (1 - 410 / 4096) * i + (inputs[:, t - 1] * 200 / 64 / 4 if t else 0)
        z = np.where(h > 0.5, 0, 0.9)
        h, slow = np.tanh(3 * np.tanh(i / 3) + 2 * h - 7 * slow + bias / 4096), z * slow + (1 - z) * h
        wanted.append(h)
    np.testing.assert_allclose(seen, wanted, rtol=1e-9, atol=1e-9)
    assert (np.array(wanted) > 0.5).any()


def test_run_compares_both(tmp_path: Path) -> None:
    network = a_stack(shift=8, output_bits=0)
    netx.write(network.with_(decision="last"), tmp_path / "net.h5")
    inputs = inputs_for(network, 50, 3)
    np.savez(tmp_path / "mine.npz", inputs=inputs, labels=np.arange(3))
    words = ["run", str(tmp_path / "net.h5"), "--task", f"{tmp_path / 'mine.npz'}:split=0,0,1"]
    out = tmp_path / "out.json"
    with pytest.raises(SystemExit) as done:
        main([*words, "--samples", "3", "--backend", "lava", "--check", "emulator", "--json", str(out)])
    assert done.value.code == 0
    found = json.loads(out.read_text())
    assert found["mismatches"] == 0
    # Of each step of a cell spike, h, i and h_s; of a readout spike, membrane and current.
    assert found["compared_integers"] > 3 * 50 * (4 * 8 + 3 * 3)


def test_a_bundle_runs_cells_where_this_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = a_stack(shift=8)
    inputs = inputs_for(network, 60, 2, 0.3)
    write_bundle(tmp_path / "b", network, inputs, np.zeros(2, int), name="cells")
    assert run_bundle(tmp_path / "b", "--shard", "0") == (0, "", "")
    result = results.compare_with_emulator(network, tmp_path / "b")
    assert result and emulate(network, inputs).spike_counts[0].sum() > 20
    monkeypatch.setitem(sys.modules, "delaynet_lava.formats.netx_read", None)
    with pytest.raises(
        payload.Failure, match="layer 1: Spiking Recurrent Cells, whose process is in delaynet_lava"
    ):
        payload.read_layers(tmp_path / "b" / "net.h5")


@pytest.mark.parametrize(
    "options, backend, text",
    [({}, "loihi2", "no board has a neuron"), ({"output_bits": 3}, "lava", "a bundle keeps spikes")],
)
def test_what_a_bundle_does_not_run(tmp_path: Path, options: dict, backend: str, text: str) -> None:
    network = a_stack(**options)
    with pytest.raises(InputError, match=text):
        write_bundle(
            tmp_path / "b", network, inputs_for(network, 5, 1), np.zeros(1, int), name="a", backend=backend
        )
    netx.write(network, tmp_path / "net.h5")
    with pytest.raises(SystemExit) as done:
        main(["deploy", str(tmp_path / "net.h5"), "--task", "cue", "--backend", backend])
    assert done.value.code == 2
