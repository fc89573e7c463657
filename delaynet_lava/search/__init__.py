"""Hyper-parameter search: trainings with options that a sampler suggests, by workers that may be killed."""
