"""The steps of a Spiking Recurrent Cell in integers, one is 4096."""

from __future__ import annotations

from numba.extending import register_jitable

from delaynet_lava import fixedpoint as fx

DECAY = 410
SQUASH = {"parabola": 0, "clip": 1, "sign": 2}
ACTIVATION = {"parabola": 0, "clip": 1}


@register_jitable
def current(i, a, k, shift):
    return fx.decay(i, k) + ((a << shift) if shift >= 0 else (a >> -shift))


@register_jitable
def saturate(i):
    return min(max(i, -fx.V_MAX), fx.V_MAX)


@register_jitable
def squashed(i, kind):
    if kind == 2:
        return 4096 * ((i > 0) - (i < 0))
    if kind == 1:
        return min(max(i, -12288), 12288)
    m = min(abs(i), 24576)
    half = m >> 1
    y = m - ((((half * half) >> 10) * 341) >> 12)
    return y if i >= 0 else -y


@register_jitable
def potential(x, h, slow, bias, r_s):
    return x + 2 * h - r_s * slow + bias


@register_jitable
def activated(p, kind):
    if kind == 1:
        m = min(abs(p) * 3 >> 2, 4096)
    else:
        m = min(abs(p), 8192)
        m = m - ((m * m) >> 14)
    return m if p >= 0 else -m


@register_jitable
def slow_update(slow, h):
    return h if h > 2048 else h + fx.decay(slow - h, DECAY)


@register_jitable
def payload(h, bits):
    return (max(h, 0) + (1 << (11 - bits))) >> (12 - bits)
