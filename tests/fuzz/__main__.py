"""Hostile input by hand, for as long as asked: ``python tests/fuzz --cases 100000 --seed 1``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from harness import run
from targets import TARGETS

_ROUND = 2000


def main() -> int:
    """Exit code 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="of all readers together")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after about this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--case", type=int, help="this case of one reader alone")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="folder for faulty inputs")
    parser.add_argument("--json", type=Path, help="write the figures here after every round")
    options = parser.parse_args()
    if options.case is not None:
        found = run(TARGETS[options.only[0]], 1, options.seed, options.case, options.keep)
        print(found)
        return int(bool(found.faults))
    started, done = time.monotonic(), 0
    totals: dict[str, dict] = {}
    first = 0
    while done < options.cases and time.monotonic() - started < options.seconds:
        count = min(_ROUND, -(-(options.cases - done) // len(options.only)))
        for name in options.only:
            found = run(TARGETS[name], count, options.seed, first, options.keep)
            done += count
            total = totals.setdefault(
                name,
                {
                    "cases": 0,
                    "read": 0,
                    "refused": 0,
                    "slowest_s": 0.0,
                    "longest": 0,
                    "messages": 0,
                    "memory": 0,
                    "faults": [],
                },
            )
            total["cases"] += count
            for key in ("read", "refused", "faults"):
                total[key] += getattr(found, key)
            for key in ("slowest_s", "longest", "memory"):
                total[key] = max(total[key], getattr(found, key))
            total["messages"] = max(total["messages"], len(found.messages))
            for line in found.faults:
                print(line, flush=True)
        first += _ROUND
        faults = sum(len(t["faults"]) for t in totals.values())
        print(f"{done:,} cases, {faults} faults, {time.monotonic() - started:.0f} s", flush=True)
        if options.json is not None:
            options.json.write_text(
                json.dumps({"seed": options.seed, "done": done, "readers": totals}, indent=1)
            )
    for name, total in totals.items():
        print(
            f"{name:12} {total['cases']:>9,} cases, {total['read']:>8,} read, "
            f"{total['refused']:>8,} refused, "
            f"slowest {total['slowest_s']:.2f} s, {total['memory'] >> 20} MiB, messages of at most "
            f"{total['longest']} characters, {len(total['faults'])} faults"
        )
    return int(any(t["faults"] for t in totals.values()))


if __name__ == "__main__":
    raise SystemExit(main())
