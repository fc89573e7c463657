"""Integer arithmetic of :mod:`delaynet_lava.fixedpoint` on vectors of 16, written down as instructions.

The functions of that module run once, on :class:`Words`, which note what is done to them. A compiler that
sees a loop over neurons instead takes the product of a decay for one of 64 bits, of which a vector holds half
as many.
"""

from __future__ import annotations

from llvmlite import ir

from delaynet_lava.kernels.vectors import LANES

__all__ = ["Words"]


class Words:
    """A vector of signed integers, or of truths, that notes what is computed with it.

    Args:
        builder: of the instructions. value: the vector that is known so far.
    """

    def __init__(self, builder, value):
        self.at, self.value = builder, value

    def _of(self, other):
        return other.value if isinstance(other, Words) else ir.Constant(self.value.type, [other] * LANES)

    def _noted(self, operation, other):
        return Words(self.at, operation(self.value, self._of(other)))

    def _compared(self, sign, other):
        return Words(self.at, self.at.icmp_signed(sign, self.value, self._of(other)))

    def __add__(self, other):
        return self._noted(self.at.add, other)

    __radd__ = __add__

    def __sub__(self, other):
        return self._noted(self.at.sub, other)

    def __rsub__(self, other):
        return Words(self.at, self._of(other)) - self

    def __mul__(self, other):
        return self._noted(self.at.mul, other)

    __rmul__ = __mul__

    def __and__(self, other):
        return self._noted(self.at.and_, other)

    def __or__(self, other):
        return self._noted(self.at.or_, other)

    def __xor__(self, other):
        return self._noted(self.at.xor, other)

    def __invert__(self):
        return self ^ -1

    def __abs__(self):
        sign = self >> 63
        return (self ^ sign) - sign

    def __lshift__(self, other):
        return self._noted(self.at.shl, other)

    def __rlshift__(self, other):
        return Words(self.at, self._of(other)) << self

    def __rshift__(self, other):
        if isinstance(other, int):  # of a shorter word nothing but the sign is left either
            other = min(other, self.value.type.element.width - 1)
        return self._noted(self.at.ashr, other)

    def __neg__(self):
        return 0 - self

    def __gt__(self, other):
        return self._compared(">", other)

    def __lt__(self, other):
        return self._compared("<", other)

    def __le__(self, other):
        return self._compared("<=", other)

    def within(self, limit):
        """Clipped to ``-limit`` to ``limit``."""
        top, bottom = limit.value, (-limit).value
        value = self.at.select(self.at.icmp_signed(">", self.value, top), top, self.value)
        return Words(self.at, self.at.select(self.at.icmp_signed("<", value, bottom), bottom, value))

    def chosen(self, first, other):
        """``first`` where this truth holds, else ``other``."""
        return Words(self.at, self.at.select(self.value, first.value, other.value))
