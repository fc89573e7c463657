"""``delaynet plot``: one command a picture."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from delaynet_lava.cli.networks import NET, open_network
from delaynet_lava.cli.output import draw, require_picture, say, speak_warnings
from delaynet_lava.cli.samples import TASK, number, source

SAMPLES = 64

app = typer.Typer(
    help="Pictures of trainings and networks (.png, .svg or .pdf).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Models = Annotated[list[str], typer.Argument(help="Trained models; seeds of one training share a curve.")]
Net = Annotated[str, typer.Argument(help=NET)]
Output = Annotated[str, typer.Option("-o", "--output", help="The picture to write; - is stdout, as SVG.")]


def _write(figure: Any, path: str) -> int:
    draw(figure, path)
    say(path)
    return 0


@app.command("learning")
def draw_learning(models: Models, output: Output = "learning.png") -> int:
    """Accuracy over epochs. Example: delaynet plot learning a.pt b.pt -o learning.png"""
    require_picture("--output", output)
    from delaynet_lava.analysis import learning
    from delaynet_lava.formats.model_file import load_model

    return _write(learning.draw_learning([learning.training(load_model(m), m) for m in models]), output)


@app.command("branching")
def draw_branching(models: Models, output: Output = "branching.png") -> int:
    """Branching factor over epochs. Example: delaynet plot branching model.pt -o branching.png"""
    require_picture("--output", output)
    from delaynet_lava.analysis import learning
    from delaynet_lava.formats.model_file import load_model

    return _write(learning.draw_branching([learning.training(load_model(m), m) for m in models]), output)


@app.command("cell")
def draw_cell(
    output: Output = "cell.png",
    bias: Annotated[float, typer.Option(help="b_h, -8 to -5.")] = -6.0,
    drive: Annotated[float, typer.Option(help="What arrives at i in each driven step.")] = 0.25,
) -> int:
    """A Spiking Recurrent Cell: its states over a drive, its frequency over a current, its ranges of b_h.

    Example: delaynet plot cell --bias -5.5 -o cell.png
    """
    require_picture("--output", output)
    from delaynet_lava.analysis import cell  # torch, and compiled loops

    return _write(cell.draw_cell(bias, drive), output)


@app.command("lattice")
def draw_lattice(net: Net, output: Output = "lattice.png") -> int:
    """The neurons' lattice, coloured by delay. Example: delaynet plot lattice net.h5 -o lattice.png"""
    require_picture("--output", output)
    with speak_warnings("delaynet plot"):
        network = open_network(net)
    from delaynet_lava.analysis import activity

    return _write(activity.draw_lattice(network), output)


@app.command("delays")
def draw_delays(
    model: Annotated[str, typer.Argument(help="A model.pt whose delays were learned.")],
    output: Output = "delays.png",
) -> int:
    """Learned delays before and after the training. Example: delaynet plot delays model.pt -o delays.png"""
    require_picture("--output", output)
    from delaynet_lava.analysis import learning
    from delaynet_lava.formats.model_file import load_model

    return _write(learning.draw_delays(load_model(model), model), output)


@app.command("activity")
def draw_activity(
    net: Net,
    output: Output = "activity.png",
    task: Annotated[str | None, TASK] = None,
    samples: Annotated[
        int | None, typer.Option(help=f"Samples that the spectrum averages over. [default: {SAMPLES}]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples. [default: 0]")] = None,
) -> int:
    """Rasters of input and recurrent layer, and the spectrum of its spike rate.

    Example: delaynet plot activity net.h5 -o activity.png
    """
    from delaynet_lava.analysis import activity

    require_picture("--output", output)
    with speak_warnings("delaynet plot"):
        network = open_network(net)
    of = source(task, network, net, seed)
    samples = number(of, samples, SAMPLES)
    inputs, _ = of.batch("test", 0, samples)
    return _write(activity.draw_activity(activity.observe(network, inputs), samples), output)
