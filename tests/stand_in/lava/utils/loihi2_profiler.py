"""Stand-in (see stand_in.py): its presence is how Lava tells that lava-loihi is installed."""
