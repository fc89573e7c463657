"""The contract once more, as plainly as it can be written: what every execution is compared with."""

from __future__ import annotations

import functools

import numpy as np

from delaynet_lava.emulator import Extremes
from delaynet_lava.network import Encoder, Network, Src
from delaynet_lava.trace import Trace

__all__ = ["decayed", "plain"]


def added(network: Network, spikes: np.ndarray, voltage: np.ndarray) -> np.ndarray | None:
    """What the network's decision adds up, of the last layer's records."""
    answer = network.answer
    if answer.kind == "last":
        return None
    of = spikes if answer.kind == "count" else voltage
    return of[:, answer.start : answer.stop].astype(np.int64).sum(axis=1)


def decayed(x: int, k: int) -> int:
    return (1 if x >= 0 else -1) * ((abs(x) * (4096 - k)) >> 12)


def cell(i: int, h: int, slow: int, a: int, bias: int, of: Src) -> tuple[int, int, int, int, bool]:
    """One step of a Spiking Recurrent Cell: i, h, h_s, what is sent, and whether i was clipped."""
    i = decayed(i, of.decay) + (a << of.shift if of.shift >= 0 else a >> -of.shift)
    clipped = abs(i) > 2**23 - 1
    i = max(min(i, 2**23 - 1), -(2**23) + 1)
    if of.squash == "sign":
        x = 4096 if i > 0 else -4096 if i < 0 else 0
    elif of.squash == "clip":
        x = max(min(i, 3 * 4096), -3 * 4096)
    else:
        m = min(abs(i), 6 * 4096)
        x = (1 if i > 0 else -1) * (m - (((m // 2) ** 2 // 1024 * 341) // 4096))
    p = x + 2 * h - of.slow * slow + bias
    slow = h if h > 2048 else h + decayed(slow - h, 410)
    if of.activation == "clip":
        size = min(abs(p) * 3 // 4, 4096)
    else:
        m = min(abs(p), 8192)
        size = m - m * m // 16384
    h = size if p > 0 else -size
    sent = int(h >= 2048) if of.output_bits == 0 else (2 * max(h, 0) * 2**of.output_bits + 4096) // 8192
    return i, h, slow, sent, clipped


@functools.cache
def rest(bias: int, of: Src) -> tuple[int, int, int]:
    """i, h and h_s after 1000 silent steps."""
    i, h, slow = 0, -4096, -4096
    for _ in range(1000):
        i, h, slow, _, _ = cell(i, h, slow, 0, bias, of)
    return i, h, slow


def plain(network: Network, inputs: np.ndarray) -> tuple[Trace, list[Extremes]]:
    """One neuron, one synapse, one step at a time, in Python's own integers."""
    silence = np.zeros((len(inputs), network.tail, network.channels), inputs.dtype)
    inputs = np.concatenate([inputs, silence], axis=1)
    batch, steps, _ = inputs.shape
    count = len(network.layers)
    shapes = [(batch, steps, layer.size) for layer in network.layers]
    spikes = {k: np.zeros(shapes[k], network.layers[k].neuron.sends.dtype) for k in range(count)}
    voltage, current = ({k: np.zeros(shapes[k], np.int32) for k in range(count)} for _ in range(2))
    slow = {k: np.zeros(shapes[k], np.int32) for k in range(count) if network.layers[k].neuron.kind == "src"}
    wraps, clips = [0] * count, [0] * count
    unreset = [np.zeros((2, batch, steps + 1, layer.size), np.int32) for layer in network.layers]
    for b in range(batch):
        for k, layer in enumerate(network.layers):
            neuron = layer.neuron
            before = inputs[b] if k == 0 else spikes[k - 1][b]
            bias = np.broadcast_to(neuron.bias, (layer.size,))
            if isinstance(neuron, Src):
                u, v, w = map(list, zip(*(rest(int(one), neuron) for one in bias), strict=True))
            else:
                decays = neuron.decays(layer.size).tolist()
                u, v = (
                    [int(x) for x in np.broadcast_to(s, layer.size)] for s in (neuron.u_init, neuron.v_init)
                )
            for t in range(steps):
                for i in range(layer.size):
                    if isinstance(layer, Encoder):
                        u[i] = (layer.weight * int(before[t, i]) + layer.bias) << 6
                    else:
                        a = 0
                        for synapse, sent in ((layer.synapse, before), (layer.recurrent, spikes[k][b])):
                            if synapse is None:
                                continue
                            for j in range(synapse.shape[1]):
                                sent_at = t - 1 - int(synapse.delay[i, j])
                                if sent_at >= 0:
                                    a += (
                                        int(sent[sent_at, j]) * int(synapse.weight[i, j])
                                        << synapse.weight_exp
                                    )
                        if isinstance(neuron, Src):
                            u[i], v[i], w[i], spikes[k][b, t, i], over = cell(
                                u[i], v[i], w[i], a, int(bias[i]), neuron
                            )
                            wraps[k] += over
                            unreset[k][:, b, t + 1, i] = u[i], v[i]
                            current[k][b, t, i], voltage[k][b, t, i], slow[k][b, t, i] = u[i], v[i], w[i]
                            continue
                        u[i] = decayed(u[i], decays[0][i]) + (a << 6)
                    wraps[k] += u[i] > 2**23 or u[i] <= -(2**23)
                    while u[i] > 2**23 or u[i] <= -(2**23):
                        u[i] -= 2**24 if u[i] > 0 else -(2**24)
                    v[i] = decayed(v[i], decays[1][i]) + u[i] + (int(bias[i]) << neuron.bias_exp)
                    if abs(v[i]) > 2**23 - 1:
                        clips[k] += 1
                        v[i] = max(min(v[i], 2**23 - 1), -(2**23) + 1)
                    unreset[k][:, b, t + 1, i] = u[i], v[i]
                    if v[i] > neuron.vth << 6:
                        spikes[k][b, t, i] = 1
                        v[i] = 0 if neuron.reset == "zero" else v[i] - (neuron.vth << 6)
                    voltage[k][b, t, i], current[k][b, t, i] = v[i], u[i]
    trace = Trace(
        backend="plain",
        steps=steps,
        batch=batch,
        final_voltage=[voltage[k][:, -1] for k in range(count)],
        u_wraps=wraps,
        v_saturations=clips,
        spike_counts=[np.count_nonzero(spikes[k], axis=(1, 2)).astype(np.int64) for k in range(count)],
        spikes=spikes,
        voltage=voltage,
        current=current,
        slow=slow,
        scores=added(network, spikes[count - 1], voltage[count - 1]),
    )
    ends = [(*states.min(axis=2), *states.max(axis=2)) for states in unreset]
    return trace, [Extremes(u_low, u_high, v_low, v_high) for u_low, v_low, u_high, v_high in ends]
