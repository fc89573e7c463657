"""``python -m delaynet_lava`` is ``delaynet``."""

from delaynet_lava.cli import main

main()
