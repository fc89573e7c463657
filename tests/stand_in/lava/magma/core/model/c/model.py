"""Stand-in (see stand_in.py): Lava's Loihi2HwCfg puts subclasses of CLoihiProcessModel before CPU models.

The stand-in's models are such, not models of a neuro core: those Lava hands to the closed compiler.
"""


class AbstractCProcessModel:
    pass


class CLoihiProcessModel:
    pass
