"""The GPU's kernels: in Triton's interpreter, compiled for a GPU that is not there, and on one that is.

The interpreter has to be chosen before Triton is imported, so one test runs this file again in a
process of its own; there, and on a machine with a GPU, the tests marked ``executes`` run.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from itertools import compress
from types import SimpleNamespace

import numpy as np
import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

import triton
import triton.language as tl

from delaynet_lava.errors import InputError
from delaynet_lava.kernels import gpu
from delaynet_lava.kernels.dynamics import SURROGATE_PAPER, SURROGATE_SLAYER, SURROGATE_TRIANGLE, Dynamics

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
executes = pytest.mark.skipif(
    not INTERPRETED and DEVICE.type == "cpu", reason="no GPU; the interpreter runs in its own process"
)
HALF = 1 << 23

if INTERPRETED:
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_and_index(tensor, *rest):
        """The bound of a loop is an array of one element, which NumPy no longer takes for an integer."""
        patch_tensor(tensor, *rest)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = patch_tensor_and_index
    if hasattr(interpreter, "Builder"):
        # Triton 2.3's interpreter lacks a few words of its compiler's, and sums in the operands' type.
        interpreter.Builder.options = SimpleNamespace(allow_fp8e4nv=False, max_num_imprecise_acc_default=0)
        interpreter.Builder.get_int8_ty = lambda self: tl.int8
        interpreter.Builder.get_int32_ty = lambda self: tl.int32
        interpreter.Builder.create_barrier = lambda self: None
        bitcast = interpreter.Builder.create_bitcast
        # It writes the type of a tile as a tensor.
        interpreter.Builder.create_bitcast = lambda self, x, kind: bitcast(
            self, x, kind.dtype if isinstance(kind, tl.tensor) else kind
        )
        interpreter.Builder.create_dot = lambda self, a, b, total, *_: interpreter.TensorHandle(
            np.matmul(a.data, b.data, dtype=np.float32) + total.data, tl.float32
        )


# The definition: integers, one step after the other.


def decay(x, k):
    return np.sign(x) * ((np.abs(x) * (4096 - k)) >> 12)


def plain_forward(case):
    """Spikes, membranes before the reset and the two counts, in int64."""
    batch, steps, n = case.drive.shape
    u = v = np.zeros((batch, n), np.int64)
    spikes = np.zeros((batch, steps, n), np.int64)
    membranes = np.zeros_like(spikes)
    wraps = clips = 0
    for t in range(steps):
        a = case.drive[:, t].astype(np.int64)
        for j in range(n):
            sent_at = t - 1 - case.delay[j]
            if case.words is not None and sent_at >= 0:
                a = a + spikes[:, sent_at, j, None] * case.words[:, j]
        u = decay(u, case.du) + (a << 6)
        wraps += int(((u > HALF) | (u <= -HALF)).sum())
        u = (u + HALF - 1) % (2 * HALF) - HALF + 1
        v = decay(v, case.dv) + u + case.bias
        clips += int((np.abs(v) >= HALF).sum())
        v = np.clip(v, 1 - HALF, HALF - 1)
        membranes[:, t] = v
        if case.spiking:
            spikes[:, t] = v > case.vth << 6
            v = np.where(spikes[:, t] > 0, v - (case.vth << 6) if case.reset else 0, v)
    return spikes, membranes, [wraps, clips]


def a_case(
    n=7, batch=3, steps=24, recurrent=256, drive=220, unit=1, delay=(0, 1, 3, 9, 62, 63, 0), **changes
):
    """A random layer; ``recurrent`` and ``drive`` bound the random integers."""
    rng = np.random.default_rng(n + batch + steps)
    case = SimpleNamespace(
        drive=unit * rng.integers(-drive // 3, drive, (batch, steps, n)),
        words=2 * rng.integers(-recurrent // 2, recurrent // 2, (n, n)),
        delay=np.resize(np.array(delay, np.int32), n),
        du=1200, dv=300, vth=200, bias=np.zeros(n, np.int64), reset=0, spiking=True, voltage=True,
    )  # fmt: skip
    vars(case).update(changes)
    return case


def tensors(case):
    """Drive, recurrent weights, decays and threshold, as leaves in SLAYER's units."""
    values = [
        case.drive / 64,
        None if case.words is None else case.words / 64,
        [case.du],
        [case.dv],
        [case.vth / 64],
    ]
    return [
        None if x is None else torch.tensor(x, dtype=torch.float32, device=DEVICE).requires_grad_()
        for x in values
    ]


def run(case, **gradient):
    """Leaves and results of the operation under test."""
    leaves = tensors(case)
    dyn = Dynamics(case.delay, reset=case.reset, spiking=case.spiking, want_voltage=case.voltage, **gradient)
    return leaves, gpu.GpuRecurrence.apply(*leaves, case.bias, dyn)


CASES = {
    "several delays": a_case(),
    "soft reset": a_case(reset=1),
    "two tiles of samples": a_case(batch=18, steps=14, delay=(0, 2, 5)),
    "delays beyond 62": a_case(steps=80, delay=(62, 63, 64, 70, 79, 80, 0)),
    "delays beyond the sample": a_case(steps=9, delay=(9, 8, 7, 1000, 2**31 - 1)),
    "one step, one neuron": a_case(n=1, batch=1, steps=1),
    "a power of two": a_case(n=16, batch=16, steps=20, drive=400),
    "one more neuron than that": a_case(n=17, batch=2, steps=20, drive=400),
    "no recurrence": a_case(words=None),
    "two tiles of neurons, no recurrence": a_case(n=130, batch=2, steps=12, words=None),
    "readout": a_case(spiking=False, words=None),
    "wraps and saturations": a_case(
        drive=1 << 18, vth=70000, bias=np.array([0, -1, 63, 4095 << 6, -(1 << 40), 1 << 40, 1])
    ),
    "huge drive": a_case(drive=1 << 23, unit=256, words=None, du=0, dv=0),
    "no decay": a_case(du=0, dv=0, drive=2000),
    "no memory": a_case(du=4096, dv=4096),
    "threshold 0": a_case(vth=0, drive=60),
    "largest threshold": a_case(vth=(1 << 17) - 1, drive=1 << 17, dv=1),
    "weights from the cache": a_case(n=130, batch=17, steps=7, recurrent=64),
    "weights from the cache, soft reset": a_case(n=150, batch=2, steps=7, recurrent=64, reset=1),
    "wide words": a_case(n=40, recurrent=1 << 18, drive=1 << 17, vth=20000, steps=15),
    "words of 12 bits": a_case(recurrent=4096, steps=15),
}


@executes
@pytest.mark.parametrize("name", CASES)
def test_integers_are_those_of_the_definition(name):
    case = CASES[name]
    _, (spikes, voltage, totals) = run(case)
    expected, membranes, counts = plain_forward(case)
    if case.spiking:
        assert spikes.dtype == torch.float32
        assert np.array_equal(spikes.detach().cpu().numpy(), expected)
        assert expected.size < 10 or 0 < expected.mean() < 1
    else:
        assert spikes.numel() == 0
    assert np.array_equal(voltage.detach().cpu().numpy() * 4096, membranes)
    assert totals.tolist() == counts


def test_cases_wrap_and_saturate():
    assert all(count > 10 for count in plain_forward(CASES["wraps and saturations"])[2])
    assert plain_forward(CASES["several delays"])[2] == [0, 0]
    assert plain_forward(CASES["wide words"])[2][0] > 10


@executes
@pytest.mark.parametrize("change", [{"delay": (0, 1, 4, 9)}, {"du": 1201}, {"reset": 1}, {"vth": 300}])
def test_the_comparison_sees_a_small_difference(change):
    case = a_case(delay=(0, 1, 3, 9))
    _, (_, voltage, _) = run(case)
    _, membranes, _ = plain_forward(a_case(**{"delay": (0, 1, 3, 9), **change}))
    assert not np.array_equal(voltage.detach().cpu().numpy() * 4096, membranes)


class Step(torch.autograd.Function):
    """Spike with a surrogate gradient, in float64."""

    @staticmethod
    def forward(ctx, v, threshold, dyn):
        ctx.save_for_backward(v, threshold)
        ctx.dyn = dyn
        return (v > threshold).double()

    @staticmethod
    def backward(ctx, grad):
        distance = torch.sub(*ctx.saved_tensors)
        if ctx.dyn.surrogate == SURROGATE_PAPER:
            slope = (1 + distance / ctx.dyn.width).clamp(0, 1)
        elif ctx.dyn.surrogate == SURROGATE_TRIANGLE:
            slope = (1 - distance.abs() / ctx.dyn.width).clamp(0, 1)
        else:
            slope = torch.exp(-distance.abs() / ctx.dyn.width)
        grad = grad * slope * ctx.dyn.height
        return grad, -grad.sum().reshape(1), None


def plain_backward(case, leaves, dyn):
    """Spikes and membranes as a graph over ``leaves`` (float64), one operation after the other."""

    def scaled(x, factor):
        """The value of x, its gradient times a factor."""
        return x.detach() + factor * (x - x.detach())

    def become(x, value):
        """Another value, the gradient of x."""
        return x + (value - x).detach()

    drive, weight, du, dv, threshold = leaves
    batch, steps, n = drive.shape
    u = v = torch.zeros(batch, n, dtype=torch.float64)
    spikes, membranes = [], []
    largest = 2048 - 1 / 4096
    for t in range(steps):
        a = drive[:, t]
        for delay in np.unique(case.delay):
            if weight is not None and t - 1 - delay >= 0:
                senders = np.flatnonzero(case.delay == delay)
                sent = scaled(spikes[t - 1 - delay][:, senders], dyn.feedback_grad)
                a = a + sent @ weight[:, senders].T
        kept = scaled(u, dyn.membrane_grad) * (1 - du / 4096)
        u = become(kept, torch.trunc(kept * 4096) / 4096) + a
        u = become(u, torch.remainder(u + largest, 4096) - largest)
        kept = scaled(v, dyn.membrane_grad) * (1 - dv / 4096)
        v = become(kept, torch.trunc(kept * 4096) / 4096) + u + torch.from_numpy(case.bias) / 4096
        v = become(v, v.clamp(-largest, largest))
        membranes.append(v)
        if case.spiking:
            s = Step.apply(v, threshold, dyn)
            spikes.append(s)
            if case.reset:
                v = v - scaled(threshold * s, dyn.reset_grad)
            else:
                bound = torch.minimum(v, threshold).detach()
                v = v * (1 - s.detach()) - dyn.reset_grad * bound * (s - s.detach())
    return torch.stack(spikes, 1) if spikes else None, torch.stack(membranes, 1)


def gradients(case, dyn, into="spikes and voltage", wrong=None):
    """Pairs of gradients, ours and plain; ``wrong`` changes the dynamics of the plain one."""
    leaves, (spikes, voltage, _) = run(case, **dyn)
    plain_leaves = [None if x is None else x.detach().cpu().double().requires_grad_() for x in leaves]
    plain = plain_backward(case, plain_leaves, Dynamics(case.delay, **dyn | (wrong or {})))
    assert torch.equal(plain[1], voltage.detach().cpu().double())
    torch.manual_seed(3)
    incoming = torch.randn(2, *case.drive.shape)
    chosen = [case.spiking and "spikes" in into, "voltage" in into]
    for outputs, values in (((spikes, voltage), incoming.to(DEVICE)), (plain, incoming.double())):
        torch.autograd.backward(list(compress(outputs, chosen)), list(compress(values, chosen)))
    names = ("drive", "recurrent weights", "current decay", "voltage decay", "threshold")
    return {
        name: (ours.grad.cpu().double(), torch.zeros_like(theirs) if theirs.grad is None else theirs.grad)
        for name, ours, theirs in zip(names, leaves, plain_leaves, strict=True)
        if ours is not None
    }


def far(pairs, tolerance=1e-5 if INTERPRETED else 1e-4):
    """Names of the gradients that differ; a GPU rounds sums and exponentials in its own way."""
    return [
        name
        for name, (ours, plain) in pairs.items()
        if not float((ours - plain).abs().max()) <= tolerance * float(plain.abs().max())
    ]


PAPER = {"width": 6.0, "height": 0.2}
GRADIENTS = {
    "paper": ("several delays", PAPER),
    "soft reset": ("soft reset", PAPER),
    "SLAYER's surrogate, no gradient of the reset": (
        "soft reset", {"width": 3.0, "height": 0.3, "surrogate": SURROGATE_SLAYER, "reset_grad": 0.0},
    ),
    "SLAYER's surrogate": ("several delays", {"width": 3.0, "height": 0.3, "surrogate": SURROGATE_SLAYER}),
    "triangle": ("several delays", {"width": 3.0, "height": 0.3, "surrogate": SURROGATE_TRIANGLE}),
    "damped feedback, half a reset": ("several delays", PAPER | {"feedback_grad": 0.3, "reset_grad": 0.5}),
    "membranes cut": ("several delays", PAPER | {"membrane_grad": 0.0}),
    "delays beyond the sample": ("delays beyond the sample", PAPER),
    "one step, one neuron": ("one step, one neuron", PAPER),
    "two tiles of samples": ("two tiles of samples", PAPER),
    "no recurrence": ("no recurrence", PAPER),
    "readout": ("readout", {}),
    "wraps and saturations": ("wraps and saturations", {"width": 1e4, "height": 1e-4}),
    "weights from the cache": ("weights from the cache", PAPER),
    "weights from the cache, soft reset": ("weights from the cache, soft reset", PAPER),
    "words of 12 bits": ("words of 12 bits", {"width": 20.0, "height": 0.01}),
}  # fmt: skip


@executes
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_match_plain_autograd(name):
    layer, dyn = GRADIENTS[name]
    case = CASES[layer]
    pairs = gradients(case, dyn)
    assert len(pairs) == 4 + (case.words is not None)
    silent = [name for name, (_, plain) in pairs.items() if not plain.any()]
    if case.drive.shape[1] > 1:
        assert silent == ([] if case.spiking else ["threshold"])
    assert far(pairs) == []


@executes
@pytest.mark.parametrize("into", ["spikes", "voltage"])
@pytest.mark.parametrize("name", ["several delays", "words of 12 bits"])
def test_gradients_that_enter_by_one_output(into, name):
    pairs = gradients(CASES[name], PAPER, into)
    assert all(plain.any() for _, plain in pairs.values())
    assert far(pairs) == []


@executes
@pytest.mark.parametrize(
    "wrong", [{"feedback_grad": 0.99}, {"reset_grad": 0.99}, {"membrane_grad": 0.999}, {"width": 6.01}]
)
def test_the_comparison_of_gradients_sees_a_small_difference(wrong):
    assert "drive" in far(gradients(CASES["several delays"], PAPER, wrong=wrong))


@executes
@pytest.mark.parametrize("window", [1, 5])
def test_gradient_of_delays_is_that_of_the_definition(window):
    most, delay = 20, (0, 1, 3, 9, 20, 19, 6)
    case = a_case(delay=delay, steps=60, vth=120)
    leaves = tensors(case)
    learned = torch.tensor(delay, dtype=torch.float32, device=DEVICE).requires_grad_()
    dyn = Dynamics(case.delay, delay_window=window, max_delay=most)
    spikes, *_ = gpu.GpuRecurrence.apply(*leaves, case.bias, dyn, learned)
    (spikes * torch.rand_like(spikes)).sum().backward()
    sent = spikes.detach().cpu().numpy()
    p = leaves[0].grad.cpu().numpy() @ (case.words / 64)
    expected = np.zeros(case.words.shape[0])
    for b, t, j in zip(*np.nonzero(sent), strict=True):
        pairs = [(min(delay[j] + k, most), max(delay[j] - k, 0)) for k in range(1, window + 1)]
        at = [[p[b, t + 1 + d, j] if t + 1 + d < p.shape[1] else 0.0 for d in pair] for pair in pairs]
        expected[j] += sum(x - y for x, y in at) / sum(x - y for x, y in pairs)
    seen = learned.grad.cpu().numpy()
    assert np.count_nonzero(expected) > 3
    assert np.abs(seen - expected).max() < 1e-4 * np.abs(expected).max()


@executes
def test_only_the_gradients_asked_for_are_recorded_and_returned():
    case = CASES["several delays"]
    leaves = tensors(case)
    for leaf in leaves[1:]:
        leaf.requires_grad_(False)
    spikes, voltage, totals = gpu.GpuRecurrence.apply(*leaves, None, Dynamics(case.delay, **PAPER))
    assert voltage.numel() == 0 and not totals.requires_grad
    assert spikes.grad_fn.saved_tensors[3].numel() == 0
    spikes.sum().backward()
    assert leaves[0].grad.any() and all(leaf.grad is None for leaf in leaves[1:])
    everything, (spikes, _, _) = run(case, **PAPER)
    spikes.sum().backward()
    assert far({"drive": (everything[0].grad, leaves[0].grad)}, 1e-6) == []


@executes
def test_results_do_not_depend_on_the_chunks_of_the_weight_gradient(monkeypatch):
    whole = gradients(CASES["several delays"], PAPER)
    monkeypatch.setattr(gpu, "_CHUNK", 60)
    parts = gradients(CASES["several delays"], PAPER)
    assert far({name: (parts[name][0], whole[name][0]) for name in whole}, 1e-6) == []


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (a_case(n=6), "has 6 neurons, at most 5; run it on the CPU"),
        (a_case(n=5, words=np.full((5, 5), 1 << 22)), "has 5 neurons and words up to 4194304"),
    ],
)
def test_what_the_kernels_cannot_run_is_refused(case, problem, monkeypatch):
    monkeypatch.setattr(gpu, "MAX_NEURONS", 5)
    with pytest.raises(InputError, match=problem):
        run(case)


def test_a_missing_triton_is_one_line(monkeypatch):
    import delaynet_lava.kernels

    monkeypatch.delattr(delaynet_lava.kernels, "triton_forward", raising=False)
    monkeypatch.setitem(sys.modules, "delaynet_lava.kernels.triton_forward", None)
    with pytest.raises(InputError, match=r"needs Triton \(.*\); pip install triton, or run on the CPU$"):
        run(CASES["several delays"])


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
@pytest.mark.skipif(DEVICE.type == "cuda", reason="the GPU runs the same tests")
@pytest.mark.skipif(
    triton.__version__.startswith(("3.0", "3.1.")), reason="this Triton's interpreter stores nothing"
)
def test_everything_above_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > len(CASES) + len(GRADIENTS)


class Recorder:
    """Stands in for a kernel and keeps what it is launched with."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.launches.append((self.kernel, arguments, options))


def compiled(kernel, arguments, options, capability):
    """PTX, machine code and bytes of shared memory of a launch, for a GPU that need not be there."""
    from triton.compiler import ASTSource

    types = {torch.int32: "*i32", torch.uint8: "*u8", torch.float32: "*fp32", torch.float16: "*fp16"}
    settings = {name: value for name, value in options.items() if name not in kernel.arg_names}
    values = dict(zip(kernel.arg_names, arguments, strict=False)) | options
    signature = {
        name: types[values[name].dtype]
        if isinstance(values[name], torch.Tensor)
        else "constexpr"
        if name.isupper()
        else {int: "i32", float: "fp32"}[type(values[name])]
        for name in kernel.arg_names
    }
    constants = {name: values[name] for name, kind in signature.items() if kind == "constexpr"}
    pointers = [k for k, kind in enumerate(signature.values()) if kind.startswith("*")]
    if "constexprs" in inspect.signature(ASTSource).parameters:
        from triton.backends.compiler import GPUTarget

        source = ASTSource(kernel, signature, constants, {(k,): [["tt.divisibility", 16]] for k in pointers})
        done = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=settings)
        return done.asm["ptx"], done.asm["cubin"], done.metadata.shared
    if not triton.__version__.startswith("2."):
        pytest.skip(f"no way to compile without a GPU is known for Triton {triton.__version__}")
    from triton.compiler.backends.cuda import CUDABackend
    from triton.compiler.compiler import AttrsDescriptor

    order = list(signature)
    source = ASTSource(
        kernel,
        {k: kind for k, kind in enumerate(signature.values()) if kind != "constexpr"},
        {order.index(name): value for name, value in constants.items()},
        AttrsDescriptor(divisible_by_16=tuple(pointers)),
    )
    backend, stages, metadata, texts = CUDABackend(("cuda", capability)), {}, {}, {}
    parsed = backend.parse_options(settings)
    backend.add_stages(stages, parsed)
    module = source.make_ir(parsed)
    for name, stage in stages.items():
        module = texts[name] = stage(module, metadata)
    return texts["ptx"], texts["cubin"], metadata["shared"]


COMPILED = {
    "resident": (a_case(n=125, steps=4), True),
    "resident, soft reset": (a_case(n=20, steps=4, reset=1), True),
    "readout": (a_case(n=2, steps=4, words=None, spiking=False), False),
    "tiled": (a_case(n=256, steps=4), True),
    "tiled, wide words": (a_case(n=40, steps=4, recurrent=1 << 14), False),
}


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "resident, soft reset" else pytest.mark.slow)
        for name in COMPILED
    ],
)
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_a_gpu(name, capability, monkeypatch, tmp_path):
    """Up to machine code, with the arguments that the operation launches them with."""
    from delaynet_lava.kernels import triton_backward, triton_forward

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    case, tensor_cores = COMPILED[name]
    launches = []
    for module in (triton_forward, triton_backward):
        for kernel in ("resident", "tiled"):
            monkeypatch.setattr(module, kernel, Recorder(getattr(module, kernel), launches))
    _, (spikes, voltage, _) = run(case)
    (spikes if case.spiking else voltage).sum().backward()
    assert [kernel.__module__.split("_")[-1] for kernel, _, _ in launches] == ["forward", "backward"]
    for launch in launches:
        ptx, machine_code, shared = compiled(*launch, capability)
        assert machine_code[:4] == b"\x7fELF"
        # What every GPU from compute capability 8.0 on grants a program.
        assert shared <= 99 << 10
        assert bool(re.search(r"\bw?g?mma\b", ptx)) == tensor_cores
        # Copies ahead of time would read spikes that are not written yet.
        assert "cp.async" not in ptx
        assert ("bar.sync" in ptx) or case.words is None
