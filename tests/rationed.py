"""How often shapes are checked: the first calls of each function in each test.

A check costs a few tenths of a millisecond, so a test that trains for two thousand steps would spend three quarters of
its time on the same shapes. jaxtyping asks at every call whether it is turned off; here the answer goes with the function.
"""

import sys
from collections import Counter
from types import CodeType

import jaxtyping

CHECKED = 50
"""Calls of a function that a test checks."""
calls: Counter[CodeType] = Counter()


class Rationed(type(jaxtyping.config)):  # type: ignore[misc]
    """jaxtyping's settings, where being turned off is a question of who asks."""

    @property
    def jaxtyping_disable(self):
        function = sys._getframe(1).f_locals.get("fn")
        if self._off or function is None:
            return self._off
        calls[function.__code__] += 1
        return calls[function.__code__] > CHECKED

    @jaxtyping_disable.setter
    def jaxtyping_disable(self, off):
        self._off = off


def begin():
    """Ration the checks of this process."""
    off = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.__class__ = Rationed
    jaxtyping.config.update("jaxtyping_disable", off)
