"""A delayed LIF network in floating point, as other tools train it, and its integers.

One recurrent layer and a readout, per step t (dt = 1 step):

    v = exp(-dt / tau) v + W_in x[t] + b + sum_L (W_rec where lag = L) s[t - L]
    s = v > threshold;  v -= threshold where s          (soft reset)
    m = exp(-dt / tau_out) m + W_out s[t] + b_out       decision: argmax m after the last step

Input and readout act in the step itself here, one step later each in a :class:`Network`: run a network
two steps longer, on silence, to see the same readout. A lag of L is the delay ``L - 1``.

Source: Balafrej et al., doi 10.1088/2634-4386/add293, section 2, and its published code, in which spikes
of step 0 are never delivered (only where ``t > L``); a Network delivers them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.formats.npz import Npz
from delaynet_lava.network import Dense, Network, Neuron, Synapse
from delaynet_lava.neuron import BIAS_EXP_MAX

__all__ = ["FloatNetwork", "read_published"]

# A threshold of this many integers or more is rounded by less than 0.1 %.
_FINE_THRESHOLD = 512


@dataclass(frozen=True, eq=False)
class FloatNetwork:
    """Weights (post, pre) and parameters in the units of the membrane.

    Attributes:
        w_in: (neurons, channels). w_rec: (neurons, neurons). w_out: (outputs, neurons).
        lag: int (neurons, neurons), steps from a spike to its effect, >= 1; 0: no connection.
        b_rec, b_out: constant input per step.
        tau_rec_ms, tau_out_ms, threshold, dt_ms: numbers.
    """

    w_in: np.ndarray
    w_rec: np.ndarray
    w_out: np.ndarray
    lag: np.ndarray
    b_rec: np.ndarray
    b_out: np.ndarray
    tau_rec_ms: float
    tau_out_ms: float
    threshold: float
    dt_ms: float = 1.0

    def run(self, inputs: np.ndarray, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
        """Run a batch from rest.

        Args:
            inputs: uint8 (batch, steps, channels). dtype: float32 or float64, of all arithmetic.

        Returns:
            Readout membranes after the last step, dtype (batch, outputs), and spikes, uint8 (batch,
            steps, neurons).
        """
        batch, steps, _ = inputs.shape
        keep, keep_out = (dtype(np.exp(-self.dt_ms / tau)) for tau in (self.tau_rec_ms, self.tau_out_ms))
        threshold = dtype(self.threshold)
        w_in: np.ndarray = self.w_in.T.astype(dtype)
        w_out: np.ndarray = self.w_out.T.astype(dtype)
        b_rec: np.ndarray = self.b_rec.astype(dtype)
        b_out: np.ndarray = self.b_out.astype(dtype)
        slow: dict[int, np.ndarray] = {
            int(lag): np.where(self.lag == lag, self.w_rec, 0).T.astype(dtype)
            for lag in np.unique(self.lag[self.lag > 0])
        }
        v: np.ndarray = np.zeros((batch, len(self.w_rec)), dtype)
        m: np.ndarray = np.zeros((batch, len(self.w_out)), dtype)
        spikes = np.zeros((batch, steps, len(self.w_rec)), np.uint8)
        for t in range(steps):
            v = keep * v + inputs[:, t].astype(dtype) @ w_in + b_rec
            for lag, weight in slow.items():
                if t > lag:
                    v += spikes[:, t - lag].astype(dtype) @ weight
            fired = v > threshold
            v -= threshold * fired
            spikes[:, t] = fired
            m = keep_out * m + fired.astype(dtype) @ w_out + b_out
        return m, spikes

    def quantise(self, weight_bits: int = 8) -> Network:
        """The integers nearest to it, with soft reset.

        The largest recurrent weight fills its word of ``weight_bits`` (8, the chip's, or fewer with the
        steps of a coarser word); threshold, biases and input weights follow at the same scale, input
        weights with an exponent of their own. The exponents are the least that leave the threshold 512
        integers, so that the membrane has the most room. Decays are ``round(4096 (1 - exp(-dt/tau)))``.

        Raises:
            InputError: bits other than 2 to 8, or a network that the chip's ranges can't hold.
        """
        if not 2 <= weight_bits <= 8:
            raise InputError("weight_bits", f"{weight_bits} is not 2 to 8")
        w_rec = np.where(self.lag > 0, self.w_rec, 0)
        scale = _fill(w_rec, "recurrent weights")
        coarse = 8 - weight_bits
        e_rec = 0
        # Both matrices count in the same unit; the one with the smaller weights starts at exponent 0.
        e_in = int(np.ceil(np.log2(scale / _fill(self.w_in, "input weights"))))
        while min(e_in, e_rec) < 0 or self.threshold * scale * 2**e_rec < _FINE_THRESHOLD:
            e_in, e_rec = e_in + 1, e_rec + 1
        unit = scale * 2**e_rec
        hidden = Dense(
            _synapse(self.w_in * unit, e_in + coarse, weight_bits),
            self._neuron(self.b_rec * unit, self.tau_rec_ms, round(self.threshold * unit), "layer 0"),
            _synapse(w_rec * unit, e_rec + coarse, weight_bits, np.maximum(self.lag, 1) - 1),
        )
        unit = _fill(self.w_out, "readout weights")
        readout = Dense(
            _synapse(self.w_out * unit, coarse, weight_bits),
            self._neuron(self.b_out * unit, self.tau_out_ms, fx.VTH_MAX, "layer 1"),
        )
        return Network((hidden, readout), dt_ms=self.dt_ms)

    def _neuron(self, bias: np.ndarray, tau_ms: float, vth: int, where: str) -> Neuron:
        """``bias`` in units of the synaptic input; the neuron adds it to the 64 times finer membrane."""
        wanted = bias * (1 << fx.STATE_SHIFT)
        fits = [
            e for e in range(BIAS_EXP_MAX + 1) if np.abs(np.rint(wanted / 2**e)).max() <= fx.BIAS_MANT_MAX
        ]
        if not fits:
            raise InputError(
                f"{where}: bias", f"{np.abs(wanted).max():.0f} exceeds {fx.BIAS_MANT_MAX << BIAS_EXP_MAX}"
            )
        return Neuron(
            vth=vth,
            du=fx.DECAY_ONE,
            dv=round(fx.DECAY_ONE * -np.expm1(-self.dt_ms / tau_ms)),
            bias=np.rint(wanted / 2 ** fits[0]),
            bias_exp=fits[0],
            reset="subtract",
        )


def _fill(weight: np.ndarray, where: str) -> float:
    """The factor that makes the largest weights fill -256 to 254."""
    peak = max(float(weight.max()) / fx.WEIGHT_MAX, float(weight.min()) / fx.WEIGHT_MIN)
    if not 0 < peak < np.inf:
        raise InputError(
            where, f"are {weight.min()} to {weight.max()}", "quantise numbers that are not all 0"
        )
    return 1 / peak


def _synapse(weight: np.ndarray, exponent: int, bits: int, delay: np.ndarray | int = 0) -> Synapse:
    if exponent > fx.WEIGHT_EXP_MAX:
        raise InputError("weight_exp", f"{exponent} exceeds {fx.WEIGHT_EXP_MAX}", "use more bits a weight")
    half = 1 << (bits - 1)
    words = np.clip(np.rint(weight / (2 << exponent)), -half, half - 1)
    return Synapse(2 * words, np.asarray(delay), exponent)


def read_published(path: str | os.PathLike) -> tuple[FloatNetwork, dict[str, np.ndarray]]:
    """The published cue network (125 neurons) from its ``.npz``, and what was published with it.

    Returns:
        The network, and the file's ``x`` (uint8, samples, steps, channels), ``y``, ``out_membrane``,
        ``hidden_spikes_per_step`` and ``hidden_spikes_per_neuron``.

    Raises:
        InputError: not a file, or not that one.
    """
    where = os.fspath(path)
    if not os.path.isfile(where):
        raise InputError(where, "is not a file", "give the path of published_cue_125.npz")
    try:
        file = Npz(path)
        data = {name: file.array(name) for name in file.keys}
        network = FloatNetwork(
            w_in=data["w_in"].T,
            w_rec=data["w_rec"].T,
            w_out=data["w_out"].T,
            lag=data["lag"].T,
            b_rec=data["b_rec"],
            b_out=data["b_out"],
            tau_rec_ms=float(data["tau_rec_ms"][0]),
            tau_out_ms=float(data["tau_out_ms"][0]),
            threshold=float(data["threshold"][0]),
        )
        shape = tuple(data["x_shape"])
        x = np.unpackbits(data["x_packed"].reshape(-1))[: np.prod(shape)].reshape(shape)
        kept = ("y", "out_membrane", "hidden_spikes_per_step", "hidden_spikes_per_neuron")
        return network, {"x": x, **{name: data[name] for name in kept}}
    except InputError as error:
        raise InputError(where, f"is not the published network ({error})") from error
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise InputError(where, f"is not the published network ({type(error).__name__}: {error})") from error
