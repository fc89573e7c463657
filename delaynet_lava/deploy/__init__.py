"""From a network to a board or a cluster: bundles, Slurm, ssh."""
