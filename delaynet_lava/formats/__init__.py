"""File formats, one a module. Strangers' files are read here and nowhere else."""
