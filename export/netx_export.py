"""From a trained model to ``net.h5``: extract, check against a profile, write."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from delaynet_lava._version import __version__
from delaynet_lava.errors import DelayNetError, InputError
from delaynet_lava.export.differences import differences
from delaynet_lava.export.relay import RelayReport, relay
from delaynet_lava.export.retime import RetimeReport, retime
from delaynet_lava.export.source import network_of
from delaynet_lava.formats import netx
from delaynet_lava.hw_profiles import HardwareProfile, load_profile
from delaynet_lava.hw_profiles.rules import Finding, check
from delaynet_lava.network import Network

__all__ = ["ExportReport", "RuleBroken", "export_netx"]

_DELAY_OVERFLOW = ("error", "relay", "retime")


class RuleBroken(DelayNetError):
    """The profile's rules forbid the network; every finding is in ``findings``, warnings too."""

    exit_code = 1

    def __init__(self, path: str, findings: list[Finding]) -> None:
        self.findings = findings
        text = "; ".join(str(f) for f in findings)
        count = sum(f.severity == "error" for f in findings)
        super().__init__(f"{path} was not written: {count} broken rules: {text}")


@dataclass(frozen=True)
class ExportReport:
    """What was written and what stands against it.

    Attributes:
        path: the file; network: its content; profile: name; findings: all of them, errors too
            where the export was forced.
        delays: what was done about delays beyond the chip; None where nothing was asked.
    """

    path: str
    network: Network
    profile: str
    findings: list[Finding] = field(default_factory=list)
    delays: RelayReport | RetimeReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "path": self.path,
            "profile": self.profile,
            "network": self.network.summary(),
            "findings": [vars(f) for f in self.findings],
            "delay_overflow": None if self.delays is None else self.delays.as_dict(),
        }


def _legal_delays(
    network: Network, chip: HardwareProfile, how: str, name: str
) -> tuple[Network, RelayReport | RetimeReport | None]:
    if how not in _DELAY_OVERFLOW:
        raise InputError("delay overflow", f"{how!r} is not one of {list(_DELAY_OVERFLOW)}")
    if how == "error":
        return network, None
    limit = chip.get("delay_max")
    if limit is None:
        raise InputError(f"profile {chip.name!r}", "does not know delay_max, so no delay is too long for it")
    try:
        return relay(network, limit) if how == "relay" else retime(network, limit)
    except InputError as error:
        raise InputError(f"{name}: {error.where}", error.problem, error.remedy) from error


def export_netx(
    model: Any,
    path: str | os.PathLike,
    profile: str | os.PathLike = "loihi2",
    force: bool = False,
    delay_overflow: str = "error",
    code: str | None = None,
) -> ExportReport:
    """Write the integers of a trained model as ``net.h5``.

    Args:
        model: path of a ``model.pt``, or what else :func:`~delaynet_lava.export.source.network_of` takes:
            a torch network of SLAYER blocks, a NetX file that lava-dl wrote, a bare ``state_dict``.
        profile: name or path of a hardware profile, whose rules the network must keep.
        force: write even so. The findings stand in the file in any case, as
            ``provenance["export"]["findings"]``.
        delay_overflow: what to do with delays beyond the profile's: "error" leaves them to the rules,
            "relay" adds chains of relay neurons (:mod:`delaynet_lava.export.relay`, exact), "retime"
            takes a coarser time step (:mod:`delaynet_lava.export.retime`). What it did stands in the
            report and in ``provenance["export"]["delay_overflow"]``.
        code: what makes the network of a bare ``state_dict``: ``file.py:Name`` or ``package.module:Name``.

    Returns:
        The report.

    Raises:
        InputError: a model that can't be read or exported, delays that can't be made legal, or a place
            that can't be written.
        RuleBroken: the network breaks rules of the profile; nothing was written.
    """
    network, name = network_of(model, code)
    chip = load_profile(profile)
    network, delays = _legal_delays(network, chip, delay_overflow, name)
    findings = differences(network) + check(network, chip)
    if not force and any(f.severity == "error" for f in findings):
        raise RuleBroken(os.fspath(path), findings)
    provenance = {key: value for key, value in network.provenance.items() if key != "differs"}
    provenance["export"] = {"delaynet_lava": __version__, "findings": [vars(f) for f in findings]}
    if delays is not None:
        provenance["export"]["delay_overflow"] = delays.as_dict()
    network = network.with_(profile=chip.name, provenance=provenance)
    netx.write(network, path)
    return ExportReport(os.fspath(path), network, chip.name, findings, delays)
