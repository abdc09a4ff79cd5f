"""Processes that die at a chosen moment, without dying, and one that does."""

import os


class Killed(BaseException):
    """As a signal would: nothing catches it."""


def killing(monkeypatch, owner, name, at):
    """Make the ``at``-th call of a function die, after doing its work or, for at < 0, instead of it."""
    calls = []
    original = getattr(owner, name)

    def wrapped(*args, **kwargs):
        calls.append(1)
        if at < 0 and len(calls) == -at:
            raise Killed
        out = original(*args, **kwargs)
        if len(calls) == at:
            raise Killed
        return out

    monkeypatch.setattr(owner, name, wrapped)


def dies_at_once(task):
    """What the kernel does to a process for which there is no memory."""
    os._exit(9)
