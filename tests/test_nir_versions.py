"""Both ends of the range of `nir` that is allowed: 1.0.4, which Rockpool pins, and 1.0.8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import delaynet_lava
from delaynet_lava import Dense, Network, Neuron, Synapse
from delaynet_lava import fixedpoint as fx
from delaynet_lava.export.nir_export import left_out, write_nir
from delaynet_lava.export.nir_import import import_nir

FILES = Path(__file__).resolve().parent / "files"
# Run by another Python process, whose `nir` is the one in the first argument.
PROGRAM = """
import sys, json
sys.path.insert(0, sys.argv[1])
import warnings; warnings.simplefilter("ignore")
import numpy as np, nir
assert nir.version == sys.argv[2] and nir.__file__.startswith(sys.argv[1]), (nir.version, nir.__file__)
full = np.full
nodes = {
    "input": nir.Input(np.array([2])), "output": nir.Output(np.array([2])),
    "fc": nir.Affine(np.arange(6.0).reshape(3, 2), np.ones(3)),
    "lif": nir.CubaLIF(tau_syn=full(3, 4e-3), tau_mem=full(3, 2e-2), r=full(3, 20.0), v_leak=full(3, 0.0),
                       v_threshold=full(3, 5.0), w_in=full(3, 4.0)),
    "d": nir.Delay(full(3, 2e-3)), "rec": nir.Linear(np.eye(3)),
    "lif2": nir.LIF(tau=full(3, 2e-2), r=full(3, 20.0), v_leak=full(3, 0.0), v_threshold=full(3, 5.0)),
    "s": nir.Scale(full(3, 2.0)), "out": nir.Linear(np.ones((2, 3))),
    "li": nir.LI(tau=full(2, 1e-2), r=full(2, 10.0), v_leak=full(2, 0.0)),
}
chain = ["input", "fc", "lif", "s", "lif2", "out", "li", "output"]
edges = [*zip(chain, chain[1:]), ("lif", "d"), ("d", "rec"), ("rec", "lif")]
nir.write("theirs.nir", nir.NIRGraph(nodes=nodes, edges=edges))
graph = nir.read("ours.nir")
numbers = {
    name: {k: np.asarray(v).ravel().tolist() for k, v in node.to_dict().items() if isinstance(v, np.ndarray)}
    for name, node in graph.nodes.items()
}
print(json.dumps({"nodes": numbers, "edges": sorted(map(list, graph.edges))}))
"""


def network() -> Network:
    rng = np.random.default_rng(3)
    words = [2 * rng.integers(-60, 60, (4, 3)), 2 * rng.integers(-20, 20, (4, 4))]
    delays = np.arange(4) * np.ones((4, 1), int)
    hidden = Dense(Synapse(words[0]), Neuron(90, 1000, 200), Synapse(words[1], delays))
    return Network((hidden, Dense(Synapse(2 * rng.integers(-9, 9, (2, 4))), Neuron(fx.VTH_MAX, 4096, 40))))


def same(a: Network, b: Network) -> bool:
    x = (np.random.default_rng(0).random((2, 80, a.channels)) < 0.2).astype(np.uint8)
    one, two = (delaynet_lava.emulate(n, x, ("spikes", "voltage")) for n in (a, b))
    assert one.spikes[0].sum() > 20
    return bool(one.compare(two))


def test_a_file_of_nir_1_0_4_is_the_same_network_as_one_of_1_0_8():
    """They differ in v_reset alone, which 1.0.4 does not know and 1.0.8 writes as 0."""
    old, new = (import_nir(FILES / f"nir-1.0.{k}.nir") for k in (4, 8))
    assert same(old.network, new.network) and old.network.layers[0].recurrent.max_delay == 2


def test_what_older_releases_do_not_know_is_said():
    cuba = network().with_(
        layers=(network().layers[0], Dense(Synapse([[2, 4, 6, 8]]), Neuron(fx.VTH_MAX, 9, 9)))
    )
    assert left_out(network()) == []
    assert left_out(cuba) == [
        "layer 1: nir 1.0.4 has no CubaLI, a readout with a current; 1.0.5 and later read it"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.0.4", "1.0.8"])
def test_each_release_reads_ours_and_we_read_its(tmp_path, version):
    where = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(where),
        f"nir=={version}",
    ]
    subprocess.run(pip, check=True, capture_output=True)
    write_nir(network(), tmp_path / "ours.nir")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(where), version],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    read = json.loads(done.stdout)
    assert ["lif0.w_rec.delay", "lif0.w_rec"] in read["edges"] and len(read["edges"]) == 8
    assert read["nodes"]["lif0.w_rec.delay"]["delay"] == [0, 1e-3, 2e-3, 3e-3]
    assert read["nodes"]["fc0"]["weight"] == network().layers[0].synapse.weight.ravel().tolist()
    assert read["nodes"]["lif0"]["v_threshold"] == [90] * 4
    assert same(import_nir(tmp_path / "theirs.nir").network, import_nir(FILES / "nir-1.0.8.nir").network)
