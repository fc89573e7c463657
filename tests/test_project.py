"""The project's own files: workflows, templates, hooks, versions."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from delaynet_lava._version import __version__

yaml = pytest.importorskip("yaml")


def workflows(repository: Path) -> dict[str, dict[str, Any]]:
    return {
        path.name: yaml.safe_load(path.read_text()) for path in (repository / ".github/workflows").iterdir()
    }


def commands(repository: Path) -> list[str]:
    """Every line that a step of a workflow runs."""
    return [
        line
        for workflow in workflows(repository).values()
        for job in workflow["jobs"].values()
        for step in job["steps"]
        for line in str(step.get("run", "")).splitlines()
    ]


def targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z]+):", makefile, re.M))


def test_the_workflows_run_on_every_python(repository):
    jobs = workflows(repository)["ci.yml"]["jobs"]
    matrix = {name: set(job["strategy"]["matrix"]["python"]) for name, job in jobs.items()}
    assert matrix == {"full": {"3.10", "3.13"}, "core": {"3.11", "3.12"}}
    named = re.findall(r"Python :: (3\.\d+)", (repository / "pyproject.toml").read_text())
    assert set(named) == set.union(*matrix.values())
    for job in jobs.values():
        setup = [step for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@")]
        assert [step["with"]["python-version"] for step in setup] == ["${{ matrix.python }}"]


def test_what_the_workflows_call_is_there(repository):
    said = commands(repository)
    assert any(".ci/run" in line for line in said)
    known = targets((repository / "Makefile").read_text())
    for line in said:
        for script in re.findall(r"\.ci/[\w-]+", line):
            assert (repository / script).is_file(), line
            # A script that is called by its name alone is one that may be.
            called = re.search(rf"(^|[^\w/]){re.escape(script)}", line)
            assert called and (os.access(repository / script, os.X_OK) or f"bash {script}" in line), line
        for target in re.findall(r"make ([a-z]+)", line):
            assert target in known, line


def test_the_scripts_are_ones_that_bash_reads(repository):
    for path in sorted((repository / ".ci").iterdir()):
        if path.is_file() and path.read_text().startswith("#!/usr/bin/env bash"):
            subprocess.run(["bash", "-n", str(path)], check=True, capture_output=True)
        elif path.is_file():
            compile(path.read_text(), str(path), "exec")


def test_templates_and_hooks_are_what_they_should_be(repository):
    for path in (repository / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            assert isinstance(content["blank_issues_enabled"], bool)
            continue
        assert content["name"] and content["description"]
        assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in content["body"])
    hooks = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format"]


def test_the_version_is_one(repository):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    changes = (repository / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(.*?)\](.*)$", changes, re.M)[:2] == [
        ("Unreleased", ""),
        (__version__, f" - {citation['date-released']}"),
    ]
    assert 'dynamic = ["version"]' in (repository / "pyproject.toml").read_text()


# ------------------------------------------------------------------ the site


def script(path: Path) -> ModuleType:
    """A script without an ending, as a module."""
    loader = importlib.machinery.SourceFileLoader(path.name, str(path))
    spec = importlib.util.spec_from_loader(path.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


AWAY = [
    '<script src="https://a.example/x.js"></script>',
    '<link rel="stylesheet" href="//a.example/x.css">',
    '<link rel="preconnect" href="https://a.example">',
    '<img src="http://a.example/x.png">',
    '<img srcset="x.png 1x, //a.example/x.png 2x">',
    '<div style="background: url(https://a.example/x.png)"></div>',
    "<style>@import 'https://a.example/x.css';</style>",
    "<style>@font-face { src: url(//a.example/x.woff2) }</style>",
    '<script type="module">await import("https://a.example/x.mjs")</script>',
    "<script>fetch(`https://a.example/`)</script>",
    '<iframe src="https://a.example"></iframe>',
    '<svg><image href="https://a.example/x.svg"/></svg>',
    '<pre class="mermaid">graph</pre>',
]
HERE = """<a href="https://a.example">x</a><link rel="canonical" href="https://a.example"><img src="x.png">
<script src="../x.js"></script><script>const a = "x//y"</script><style>a { background: url(x.png) }</style>
<link rel="stylesheet" href="x.css"><img src="data:image/png;base64,AA//AA"><p>src="https://a.example/x.js"</p>"""


def test_a_page_that_asks_another_machine_is_found(repository, tmp_path, capsys):
    offline = script(repository / ".ci" / "offline.py")
    page = tmp_path / "index.html"
    page.write_text(HERE)
    assert offline.main(str(tmp_path)) == 0
    for html in AWAY:
        page.write_text(HERE + html)
        assert offline.main(str(tmp_path)) == 1, html
    page.write_text(HERE)
    (tmp_path / "x.css").write_text("a { src: url('https://a.example/f.woff') }")
    assert offline.main(str(tmp_path)) == 1
    assert "a.example/f.woff" in capsys.readouterr().out
    assert offline.main(str(tmp_path / "nothing")) == 1  # a site that was not built


@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="needs Chromium")
def test_a_browser_tells_what_a_page_asks_for(repository, tmp_path):
    browse = script(repository / ".ci" / "browse.py")
    (tmp_path / "page.html").write_text(
        "<!DOCTYPE html><html><body><script>const part = 'a.exam'\nconst one = new Image()\n"
        "one.src = 'https://' + part + 'ple/x.png'\nconsole.error('I complain')</script></body></html>"
    )
    away, complaints = browse.look((tmp_path / "page.html").as_uri(), tmp_path)
    assert away == {"https://a.example/x.png"}
    assert len(complaints) == 1 and "I complain" in complaints[0]


def test_a_notebooks_script_that_would_fetch_is_taken_out(repository):
    hooks = script(repository / ".ci" / "site_hooks.py")

    class Notebook:
        class file:
            src_uri = "tutorials/x.ipynb"

    kept = "<script>var a = 1</script><p>mermaid</p>"
    away = '<script type="module">\nimport("https://a.example/mermaid.mjs")\n</script>'
    assert hooks.on_page_content(f"{kept}{away}<p>y</p>", Notebook) == f"{kept}<p>y</p>"
