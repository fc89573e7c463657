"""Training steps that XLA compiles: a scan with a ring of delayed spikes in its carry, and Spyx's layers.

As those of :mod:`bench.peers`: 32-bit floats, the same weights, the feed-forward product over all steps at
once. JAX spreads its operations over the cores by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from delaynet_lava.bench.harness import Work
from delaynet_lava.bench.loops import groups_of, keep, weights
from delaynet_lava.bench.peers import prepared
from delaynet_lava.bench.subject import stack
from delaynet_lava.bench.training import WIDTH
from delaynet_lava.network import Dense, Synapse, lif

# Read when JAX is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

__all__ = ["delayed_layer", "jax_work", "last_membrane", "scan", "spike", "spyx"]


def spike(width: float) -> Callable[[Any], Any]:
    """1 where ``x > 0``; its derivative is ``clip(1 + x / width, 0, 1) / width``, that of the loops."""
    import jax
    import jax.numpy as jnp

    @jax.custom_jvp
    def fired(x: Any) -> Any:
        return (x > 0).astype(x.dtype)

    fired.defjvps(lambda t, _, x: t * jnp.clip(1 + x / width, 0, 1) / width)
    return fired


def delayed_layer(layer: Dense, back: Synapse) -> Callable[[Any, Any, Any], Any]:
    """Spikes (T, B, N) of input weights (N, C), recurrent weights (N, N) and an input (T, B, C)."""
    import jax.numpy as jnp
    from jax import lax

    order, delays, sizes = groups_of(back)
    begins, in_order = np.cumsum([0, *sizes]), bool(np.all(np.diff(order) > 0))
    kept, threshold, slots = keep(layer), lif(layer).vth / 64, max(delays) + 1
    fired = spike(WIDTH * threshold)

    def run(into: Any, back: Any, x: Any) -> Any:
        if not in_order:  # of their delays: a group is a slice
            into, back = into[order], back[order][:, order]
        drive = x @ into.T

        def step(carry: Any, a: Any) -> Any:
            v, ring, t = carry
            seen = [
                lax.dynamic_slice(ring, ((t - 1 - d) % slots, 0, int(first)), (1, len(v), size))[0]
                for d, first, size in zip(delays, begins, sizes, strict=False)
            ]
            v = kept * v + (a + jnp.concatenate(seen, 1) @ back.T)
            s = fired(v - threshold)
            ring = lax.dynamic_update_slice(ring, s[None], (t % slots, 0, 0))
            return (v * (1 - s), ring, t + 1), s

        start = jnp.zeros_like(drive[0]), jnp.zeros((slots, *drive.shape[1:]), drive.dtype), 0
        _, spikes = lax.scan(step, start, drive)
        return spikes if in_order else spikes[:, :, np.argsort(order)]

    return run


def last_membrane(out: Any, spikes: Any, kept: float) -> Any:
    """Membranes (B, classes) of leaky integrators with weights (classes, N) after the last step."""
    import jax.numpy as jnp

    share = kept ** np.arange(len(spikes) - 1, -1, -1, dtype=np.float64)
    share = np.where(share > 1e-30, share, 0).astype(spikes.dtype)
    return jnp.einsum("t,tbn->bn", share, spikes) @ out.T


def jax_work(forward: Callable[[Any, Any], Any], parameters: Any, x: Any, labels: np.ndarray) -> Work:
    """A compiled step: forward, cross-entropy, backward.

    Args:
        forward: of parameters and x; gives membranes (B, classes), and the spikes of each hidden layer.
        x: array (T, B, C).
    """
    import jax
    import jax.numpy as jnp

    x, target = jnp.asarray(x), jnp.asarray(labels)

    def loss(parameters: Any, x: Any) -> Any:
        membranes, spikes = forward(parameters, x)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(membranes), target[:, None], axis=1)
        return -chosen.mean(), jnp.stack([s.mean() for s in spikes]).mean()

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    seen: list[Any] = []

    def run() -> None:
        seen[:] = [jax.block_until_ready(step(parameters, x))]

    def facts() -> dict[str, Any]:
        [((value, rate), gradient)] = seen
        finite = all(bool(jnp.isfinite(g).all()) for g in jax.tree_util.tree_leaves(gradient))
        return {"rate": float(rate), "loss": float(value), "gradient_finite": finite}

    return Work(run, x.shape[0] * x.shape[1], facts, threads=False)


def scan(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of :func:`delayed_layer`, one or several."""
    network, x, labels = prepared(subject, samples, steps, inputs)
    hidden, out = stack(network)
    layers = [delayed_layer(layer, back) for layer, back in hidden]
    parameters = {
        "hidden": [(weights(layer.synapse).numpy(), weights(back).numpy()) for layer, back in hidden],
        "out": weights(out.synapse).numpy(),
    }

    def forward(parameters: Any, x: Any) -> Any:
        spikes = [x]
        for layer, (into, back) in zip(layers, parameters["hidden"], strict=True):
            spikes.append(layer(into, back, spikes[-1]))
        return last_membrane(parameters["out"], spikes[-1], keep(out)), spikes[1:]

    return jax_work(forward, parameters, x.numpy(), labels)


def spyx(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of Spyx's ``RLIF`` under Haiku's ``dynamic_unroll``: soft reset, without delays."""
    import jax
    from spyx.nn import RLIF

    hk: Any = import_module("haiku")
    network, x, labels = prepared(subject, samples, steps, inputs)
    hidden, out = stack(network)

    def run(x: Any) -> Any:
        spikes = [x]
        for layer, _ in hidden:
            cell = RLIF((layer.size,), beta=keep(layer), threshold=lif(layer).vth / 64)
            drive = hk.Linear(layer.size, with_bias=False)(spikes[-1])
            spikes.append(hk.dynamic_unroll(cell, drive, cell.initial_state(drive.shape[1]))[0])
        return spikes[1:]

    net = hk.without_apply_rng(hk.transform(run))
    drawn = net.init(jax.random.PRNGKey(0), x.numpy()[:2])
    for k, (layer, back) in enumerate(hidden):
        ending = f"_{k}" if k else ""
        drawn[f"linear{ending}"]["w"] = weights(layer.synapse).numpy().T
        drawn[f"RLIF{ending}"]["w"] = weights(back).numpy().T
    parameters = {"hidden": drawn, "out": weights(out.synapse).numpy()}

    def forward(parameters: Any, x: Any) -> Any:
        spikes = net.apply(parameters["hidden"], x)
        return last_membrane(parameters["out"], spikes[-1], keep(out)), spikes

    return jax_work(forward, parameters, x.numpy(), labels)
