"""Processes that die at a chosen moment, without dying."""


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
