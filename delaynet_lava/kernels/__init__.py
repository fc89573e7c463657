"""Compiled loops over time: the delayed recurrence for training, event delivery for emulation."""
