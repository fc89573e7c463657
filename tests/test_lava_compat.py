"""The mends for Lava: applied where needed and nowhere else, cheap, and enough for a user's own script."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

from delaynet_lava import lava_compat
from delaynet_lava.lava_compat import MENDS, LavaCompatWarning, Mend

needs_lava = pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="lava-nc is not installed")
needs_slayer = pytest.mark.skipif(
    importlib.util.find_spec("lava") is None or importlib.util.find_spec("lava.lib") is None,
    reason="lava-dl is not installed",
)


def run(code: str, tmp_path: Path, *options: str) -> str:
    """What a script of a user prints, in a process and a folder of its own."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    result = subprocess.run(
        [sys.executable, *options, script],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_imports_neither_lava_nor_torch(tmp_path: Path) -> None:
    code = "import delaynet_lava, sys; print({n.partition('.')[0] for n in sys.modules} & {'lava', 'torch'})"
    assert run(code, tmp_path).strip() == "set()"


SCRIPT = """
    import delaynet_lava
    import json
    import numpy as np
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.dense.process import Dense
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIF

    spikes = np.random.default_rng(1).integers(0, 2, (3, 40))
    weights = np.random.default_rng(2).integers(-128, 128, (5, 3)) * 2
    source, dense, lif = Source(data=spikes), Dense(weights=weights), LIF(shape=(5,), vth=300, du=400, dv=90)
    sink = Sink(shape=(5,), buffer=40)
    source.s_out.connect(dense.s_in)
    dense.a_out.connect(lif.a_in)
    lif.s_out.connect(sink.a_in)
    lif.run(condition=RunSteps(num_steps=40), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    result = sink.data.get().astype(int).tolist(), lif.u.get().tolist(), lif.v.get().tolist()
    lif.stop()

    from delaynet_lava import lava_compat
    states = {m.edit.__name__: lava_compat.state(m) for m in lava_compat.MENDS.values()}
    print(json.dumps([spikes.tolist(), weights.tolist(), result, states]))
"""


def reference(spikes: list, weights: list) -> tuple[list, list, list]:
    """LIF and Dense of the script in plain Python: what lava-nc computes on Python 3.10."""
    u, v, arriving, out = [0] * 5, [0] * 5, [0] * 5, []
    for t in range(40):
        # The source sends from its second step on; Dense passes on what it summed a step before.
        fired = []
        for i in range(5):
            u[i] = _decay(u[i], 400 + 1) + (arriving[i] << 6)
            v[i] = _decay(v[i], 90) + u[i]
            fired.append(int(v[i] > 300 << 6))
            if fired[i]:
                v[i] = 0
        out.append(fired)
        arriving = [sum(weights[i][j] * spikes[j][t] for j in range(3)) for i in range(5)]
    return [list(row) for row in zip(*out, strict=True)], u, v


def _decay(x: int, factor: int) -> int:
    return (1 if x >= 0 else -1) * (abs(x) * (4096 - factor) >> 12)


@needs_lava
def test_a_script_of_ones_own_runs_with_the_package_as_its_first_line(tmp_path: Path) -> None:
    spikes, weights, result, states = json.loads(run(SCRIPT, tmp_path).splitlines()[-1])
    assert tuple(result) == reference(spikes, weights)
    assert any(map(any, result[0])), "no spike: nothing was tested"
    expected = "active" if sys.version_info >= (3, 11) else "not needed"
    assert states["byte_encoder_with_a_hash"] == expected
    assert states["start_method_set_once"] == "not needed"
    assert states["object_detection_left_out"] == "waiting"


@needs_lava
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 needs no mend")
def test_without_the_mend_lava_does_not_compile(tmp_path: Path) -> None:
    code = """
        try:
            import lava.magma.compiler.var_model
        except ValueError as error:
            print(error)
        import delaynet_lava
        import lava.magma.compiler.var_model as mended
        print(hash(mended.ByteEncoder()) is not None, mended.CoreEncoder().x is mended.CoreEncoder().y)
    """
    lines = run(code, tmp_path).splitlines()
    assert "mutable default" in lines[0]
    assert lines[1].startswith("True")


@needs_slayer
def test_slayer_is_imported_without_what_its_object_detection_wants(tmp_path: Path) -> None:
    code = """
        import sys
        sys.modules["cv2"] = sys.modules["torchvision"] = None  # as where they are not installed
        import delaynet_lava
        from lava.lib.dl import slayer
        slayer.block.cuba.Dense
        print(hasattr(slayer.obd, "__wrapped__"))
        try:
            slayer.obd.YOLOBase
        except ImportError as error:
            print(error)
    """
    lines = run(code, tmp_path).splitlines()
    assert lines[-2] == "False"
    assert "YOLOBase" in lines[-1] and "pip install" in lines[-1]


def package(folder: Path, version: str, text: str) -> None:
    """An installed distribution ``mended-one`` with one module of the same name."""
    (folder / "mended_one.py").write_text(text)
    info = folder / f"mended_one-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mended-one\nVersion: {version}\n")


@pytest.fixture
def mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Imports a module through the hook with one mend of our own, for version 1.0."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mended_one", raising=False)

    def edit(source: str) -> str:
        return lava_compat._replace(source, "value = 1", "value = 2")

    def load(version: str, text: str = "value = 1\n", needed: bool = True) -> tuple[int, str]:
        package(tmp_path, version, text)
        mend = Mend(edit, "mended-one", "1.0", "mended_one", lambda: needed)
        monkeypatch.setitem(MENDS, mend.name, mend)
        monkeypatch.delitem(lava_compat._done, mend.name, raising=False)
        assert lava_compat.state(mend) == "waiting"
        module = importlib.import_module("mended_one")
        assert metadata.version("mended-one") == version
        return module.value, lava_compat.state(mend)

    yield load
    sys.modules.pop("mended_one", None)
    lava_compat._done.pop("edit", None)


def test_the_version_a_mend_is_for_is_mended(mended) -> None:
    assert mended("1.0") == (2, "active")


def test_what_is_not_broken_is_not_patched(mended) -> None:
    assert mended("1.0", needed=False) == (1, "not needed")


def test_another_version_is_left_alone_and_said_so(mended) -> None:
    with pytest.warns(LavaCompatWarning, match=r"mended-one is 1\.1, the mend is for 1\.0"):
        value, state = mended("1.1")
    assert value == 1 and state.startswith("left alone")


@pytest.mark.parametrize("text", ["value = 3\n", "value = 1\nvalue = 1\n"])
def test_another_text_is_left_alone_and_said_so(mended, text: str) -> None:
    with pytest.warns(LavaCompatWarning, match="was changed here"):
        value, state = mended("1.0", text)
    assert value != 2 and state.startswith("left alone")


def test_each_mend_says_what_breaks_and_why_it_is_safe() -> None:
    for name, mend in MENDS.items():
        assert name == mend.name and mend.package in ("lava-nc", "lava-dl")
        assert "Breaks: " in str(mend.edit.__doc__) and "Safe: " in str(mend.edit.__doc__)


def test_the_hook_is_put_in_place_once() -> None:
    lava_compat.install()
    assert sum(isinstance(finder, lava_compat._Finder) for finder in sys.meta_path) == 1


@needs_lava
def test_a_bundle_runs_without_this_package(tmp_path: Path, repository: Path) -> None:
    """The script of ``delaynet deploy`` stands alone where it runs: it mends Lava by itself."""
    shutil.copy(repository / "delaynet_lava" / "deploy" / "payload.py", tmp_path / "run.py")
    code = """
        import sys
        sys.modules["delaynet_lava"] = None
        import run
        print(run.versions()["errors"])
        run.lava_classes()
        from lava.magma.compiler import var_model
        print(var_model.ByteEncoder.__hash__ is not None)
    """
    errors, hashed = run(code, tmp_path).splitlines()[-2:]
    assert errors == "{}"
    assert hashed == str(sys.version_info >= (3, 11))
