"""From a trained model to ``net.h5``: extract, check against a profile, write."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from delaynet_lava import netx
from delaynet_lava._version import __version__
from delaynet_lava.errors import DelayNetError
from delaynet_lava.export.extract import extract
from delaynet_lava.export.rules import Finding, check
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.model_file import ModelFile, load_model
from delaynet_lava.network import Network

__all__ = ["ExportReport", "RuleBroken", "export_netx"]


class RuleBroken(DelayNetError):
    """The profile's rules forbid the network; every finding is in ``findings``."""

    exit_code = 1

    def __init__(self, path: str, findings: list[Finding]) -> None:
        self.findings = findings
        text = "; ".join(str(f) for f in findings)
        super().__init__(f"{path} was not written: {len(findings)} broken rules: {text}")


@dataclass(frozen=True)
class ExportReport:
    """What was written and what stands against it.

    Attributes:
        path: the file; network: its content; profile: name; findings: all of them, errors too
            where the export was forced.
    """

    path: str
    network: Network
    profile: str
    findings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "path": self.path,
            "profile": self.profile,
            "network": self.network.summary(),
            "findings": [vars(f) for f in self.findings],
        }


def _model_file(model: Any) -> tuple[ModelFile, str]:
    if isinstance(model, ModelFile):
        return model, "model"
    if isinstance(model, (str, os.PathLike)):
        return load_model(model), os.fspath(model)
    from delaynet_lava.nn.model import describe  # needs SLAYER; a model.pt does not

    return describe(model), "model"


def export_netx(
    model: Any, path: str | os.PathLike, profile: str | os.PathLike = "loihi2", force: bool = False
) -> ExportReport:
    """Write the integers of a trained model as ``net.h5``.

    Args:
        model: path of a ``model.pt``, a :class:`ModelFile`, or a torch module of SLAYER blocks.
        profile: name or path of a hardware profile, whose rules the network must keep.
        force: write even so; the broken rules are recorded in the file's provenance.

    Returns:
        The report.

    Raises:
        InputError: a model that can't be read or exported, or a place that can't be written.
        RuleBroken: the network breaks rules of the profile; nothing was written.
    """
    file, name = _model_file(model)
    chip = load_profile(profile)
    network = extract(file, name)
    findings = check(network, chip)
    errors = [f for f in findings if f.severity == "error"]
    if errors and not force:
        raise RuleBroken(os.fspath(path), errors)
    provenance = dict(network.provenance)
    provenance["export"] = {"delaynet_lava": __version__, "broken_rules": [str(f) for f in errors]}
    network = network.with_(profile=chip.name, provenance=provenance)
    netx.write(network, path)
    return ExportReport(os.fspath(path), network, chip.name, findings)
