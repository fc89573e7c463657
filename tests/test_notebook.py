"""What a notebook shows: short names, tables, pictures, progress."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import delaynet_lava
from delaynet_lava.analysis.report import gather
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import class_rows, evaluate
from delaynet_lava.hw_profiles import load_profile, profile_names
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse
from delaynet_lava.notebook import Bar, bar, is_notebook
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.trace import Comparison, Difference

HOSTILE = "<script>alert(1)</script>"
RNG = np.random.default_rng(4)
HIDDEN = Dense(
    Synapse(2 * RNG.integers(-10, 30, (20, 40))),
    Neuron(100, 4096, 200),
    Synapse(2 * RNG.integers(-4, 5, (20, 20)), np.full((20, 20), 7)),
)
READOUT = Dense(Synapse(2 * RNG.integers(-9, 10, (2, 20))), Neuron(131071, 4096, 100))
NETWORK = Network((HIDDEN, READOUT), task="cue", profile="loihi2")
TASK = CueAccumulation(1, 150, 3)


class Words(HTMLParser):
    """Tags and texts; tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def trace():
    inputs, _ = TASK.batch("test", 0, 3)
    return delaynet_lava.emulate(NETWORK, inputs, record=("spikes", "voltage"))


@pytest.fixture(scope="module")
def everything(trace):
    return [
        NETWORK,
        trace,
        trace.compare(trace),
        evaluate(NETWORK, TASK, 5),
        gather(NETWORK, load_profile("loihi2"), TASK, "cue", 4),
        *map(load_profile, profile_names()),
    ]


def test_a_name_is_one_short_line_and_html_is_whole(everything):
    for one in everything:
        text = repr(one)
        assert text.startswith(f"<{type(one).__name__} ") and len(text) < 160 and "\n" not in text, text
        words = Words(one._repr_html_())
        assert "table" in words.tags and "script" not in words.tags


def test_figures_are_those_of_the_object(trace):
    network = Words(NETWORK._repr_html_()).texts
    assert {"20", "2", "20x40", "layer 0 weight_rec", "zero", f"{HIDDEN.synapse.weight.max()}"} & set(network)
    assert "40 - 20 recurrent (delays up to 7) - 2" in repr(NETWORK) and "for cue" in repr(NETWORK)
    assert "20x20" in network and "7" in network
    spikes = f"{int(trace.spikes[0].sum()):,}"
    assert spikes != "0" and spikes in Words(trace._repr_html_()).texts
    result = evaluate(NETWORK, TASK, 5)
    assert f"{result.right} of 5 right" in repr(result)
    heads, rows = class_rows(result.confusion, result.names)  # those of the commands
    shown = Words(result._repr_html_()).texts
    assert {*heads} <= {*shown} and all(cell in shown for row in rows for cell in row)
    chip = load_profile("loihi2")
    assert {*chip.limits} <= set(Words(chip._repr_html_()).texts)


def test_a_comparison_says_whether_and_where():
    assert repr(Comparison(0, 10)) == "<Comparison equal: 0 mismatches in 10 integers>"
    first = Difference("spikes", 1, 2, 3, 4, 0, 1)
    found = Comparison(5, 10, first)
    assert "different" in repr(found) and "sample 2, step 3, neuron 4" in repr(found)
    texts = Words(found._repr_html_()).texts
    assert texts[0] == "Different" and str(first) in texts


def test_what_a_file_says_is_no_markup():
    task = HOSTILE.replace("<", "x<")
    network = NETWORK.with_(profile=HOSTILE, task=task)
    assert "script" not in Words(network._repr_html_()).tags
    chip = replace(load_profile("loihi2"), title=HOSTILE)
    assert (
        HOSTILE in " ".join(Words(chip._repr_html_()).texts)
        and "script" not in Words(chip._repr_html_()).tags
    )


def test_a_network_draws_its_matrices():
    figure = NETWORK.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [t for t in titles if t] == ["layer 0 weight", "layer 0 weight_rec", "layer 1 weight"]
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert any(np.array_equal(image, HIDDEN.recurrent.weight) for image in images)
    assert any(image.shape == (20, 20) and np.nanmax(image) == 7 for image in images)


def test_a_network_without_synapses_says_so():
    with pytest.raises(InputError, match="no synapses to draw"):
        Network((Encoder(Neuron(100, 0, 100), 3),)).plot()


def test_a_trace_draws_what_was_recorded(trace):
    figure = trace.plot(1)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == ["layer 0 spikes", "layer 0 voltage", "layer 1 spikes", "layer 1 voltage"]
    dots = figure.axes[0].collections[0].get_offsets()
    assert len(dots) == int(trace.spikes[0][1].sum()) > 0
    lines = next(axes.lines for axes in figure.axes if len(axes.lines) == 2)
    np.testing.assert_array_equal(lines[1].get_ydata(), trace.voltage[1][1][:, 1])
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="is 3, the trace has 3"):
        trace.plot(3)
    with pytest.raises(InputError, match="no steps recorded"):
        delaynet_lava.emulate(NETWORK, TASK.batch("test", 0, 1)[0], record=()).plot()


@pytest.fixture
def kernel(monkeypatch):
    """A kernel that remembers what it showed, as far as the bar asks for it."""
    shown: list[str] = []

    class Handle:
        def update(self, value):
            shown.append(value)

    def display(value, display_id):
        shown.append(value)
        return Handle()

    package = types.ModuleType("IPython")
    package.get_ipython = lambda: types.SimpleNamespace(kernel=True)
    front = types.ModuleType("IPython.display")
    front.HTML, front.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", front)
    return shown


def test_progress_in_a_notebook_only(kernel, monkeypatch):
    assert is_notebook()
    evaluate(NETWORK, TASK, 5)
    assert kernel[0].startswith('<progress value="0" max="5">') and 'value="5"' in kernel[-1]
    gather(NETWORK, load_profile("loihi2"), TASK, "cue", 4)
    assert 'value="8" max="8"' in kernel[-1]
    count = len(kernel)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not is_notebook() and bar("x", 3) is None
    evaluate(NETWORK, TASK, 5)
    assert len(kernel) == count


def test_a_bar_is_not_drawn_more_often_than_one_sees(kernel):
    one = Bar("many", 1000)
    for _ in range(1000):
        one()
    assert len(kernel) < 50 and "1,000 of 1,000" in kernel[-1]
    one.to(1000, HOSTILE)
    assert "&lt;script&gt;" in kernel[-1]


def test_a_notebook_runs_it(tmp_path):
    """In a real kernel, where one is installed."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [
        "import delaynet_lava as d\nfrom delaynet_lava.export import export_netx",
        "export_netx('model:cue_loihi2', 'net.h5')\nn = d.load('net.h5')\nn",
        "n.plot()",
        "t = d.task('cue:cues=1,wait_ms=150'); d.evaluate(n, t, 16)",
        "d.emulate(n, t.batch('test', 0, 1)[0], record=('spikes', 'voltage')).plot()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [[out.get("data", {}) for out in cell["outputs"]] for cell in notebook.cells]
    assert "<table>" in outputs[1][-1]["text/html"]
    assert "image/png" in outputs[2][-1] and "image/png" in outputs[4][-1]
    assert "<progress" in outputs[3][0]["text/html"] and "<table>" in outputs[3][-1]["text/html"]
