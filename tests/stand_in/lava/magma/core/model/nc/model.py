"""Stand-in (see stand_in.py): no process model is one of these."""


class AbstractNcProcessModel:
    pass
