"""The networks that can be trained on the cue task, by name, as they are before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import MEMBRANE_BITS, full_scale_above
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.kernels.autograd import STATE_SCALE
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.training import delaynet
from delaynet_lava.training.baselines import lif, lsnn
from delaynet_lava.training.options import CueOptions

__all__ = ["as_tensor", "build_network"]

_BUILDERS: dict[str, Callable[[CueOptions], torch.nn.Sequential]] = {
    "delaynet": delaynet.build,
    "lif": lif.build,
    "lif-ff": partial(lif.build, recurrent=False),
    "lsnn": lsnn.build,
    "lsnn-ff": partial(lsnn.build, recurrent=False),
}


def build_network(options: CueOptions) -> torch.nn.Sequential:
    """The network of a training before its first step: drawn from the seed, or from the model to go on from.

    Raises:
        InputError: the model to go on from can't be read, or is of another network.
    """
    if options.membrane_bits < MEMBRANE_BITS and not (options.full_scale_exp and options.full_scale_out_exp):
        options = _with_full_scales(options)
    net = _BUILDERS[options.network](options)
    if options.init:
        try:
            net.load_state_dict(load_model(options.init).state_dict)
        except RuntimeError as error:
            raise InputError(
                options.init,
                f"does not fit the network ({' '.join(str(error).split())})",
                "use its own options",
            ) from error
    return net


@torch.no_grad()
def _with_full_scales(options: CueOptions) -> CueOptions:
    """The smallest full scales above the threshold, and above what the readout reaches on some samples."""
    net = build_network(replace(options, membrane_bits=MEMBRANE_BITS))
    task = CueAccumulation(options.cues, options.wait_ms, options.seed)
    reached = float(net(as_tensor(task.batch("train", 0, 64)[0])).abs().max()) * STATE_SCALE
    hidden = full_scale_above(net[0].neuron.v_th_mant)
    # A word of n bits has no grid finer than its own unit.
    finest = options.membrane_bits - 1
    return replace(
        options,
        full_scale_exp=options.full_scale_exp or max(hidden, finest),
        full_scale_out_exp=options.full_scale_out_exp or min(23, max(int(reached).bit_length(), finest)),
    )


def as_tensor(spikes: np.ndarray) -> torch.Tensor:
    """float32 (N, channels, T) of uint8 (N, T, channels)."""
    return torch.from_numpy(spikes).transpose(1, 2).to(torch.float32)
