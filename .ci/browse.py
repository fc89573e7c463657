#!/usr/bin/env python3
"""Opens pages of the site in headless Chromium, and fails where one asks another machine or complains.

    .ci/browse.py build/site [FILE.html...]     home, a tutorial, reference, a search; and these files

Pages are served on loopback and every other name leads nowhere; what a page asked for all the same is in
Chromium's own record of its network, beside what Chromium asks of its makers, which has no page as initiator.
Without Chromium nothing is done, which is said.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

PAGES = (
    "",
    "tutorials/remembers/",
    "tutorials/src/",
    "reference/network/",
    "reference/commands/",
    "?q=delay",
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--no-pings",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=OptimizationHints,MediaRouter,Translate",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--enable-logging=stderr",
    "--virtual-time-budget=8000",
)


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def _asked(log: Path) -> Iterator[str]:
    """Addresses that the page asked for, on this machine or elsewhere."""
    content = json.loads(log.read_text(errors="replace"))
    kinds = {number: name for name, number in content["constants"]["logEventTypes"].items()}
    for event in content["events"]:
        said = event.get("params", {})
        begun = kinds.get(event["type"]) == "URL_REQUEST_START_JOB" and "url" in said
        if begun and said.get("initiator") != "not an origin":
            yield said["url"]


def _away(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme != "file" and parts.hostname != "127.0.0.1"


def look(address: str, folder: Path) -> tuple[set[str], list[str]]:
    """Other machines that were asked, and what the page complained of."""
    assert CHROMIUM is not None
    log = folder / "net.json"
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    if "</html>" not in done.stdout:
        return set(), [f"no page came: {done.stderr[-400:]}"]
    complaints = [line for line in done.stderr.splitlines() if re.search(r":CONSOLE[:(]", line)]
    return set(filter(_away, _asked(log))), complaints


def main(site: str, files: list[str]) -> int:
    """Exit code: 1 where any page asks another machine, or complains."""
    if CHROMIUM is None:
        print("no Chromium here: pages were not opened", file=sys.stderr)
        return 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"
    code = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for address in [home + page for page in PAGES] + [Path(file).resolve().as_uri() for file in files]:
            away, complaints = look(address, Path(folder))
            for said in sorted(away) + complaints:
                print(f"{address}: {said}")
            code |= bool(away or complaints)
    server.shutdown()
    if not code:
        print(f"{len(PAGES) + len(files)} pages opened: no request left this machine, no complaint")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
