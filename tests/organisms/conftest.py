"""One thread, and organisms that are built once: tests only read them."""

import pytest
import torch

from prosect.core.registries import ORGANISMS


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """The networks here are small, and threads that wait for each other cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _state(module):
    """What a test may leave behind in a network that others share: hooks and written weights."""
    hooks = [
        h for m in module.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
    ]
    hung = len([h for h in hooks if not h.__module__.startswith("transformers")])  # whose own stay
    return hung, [p._version for p in module.parameters()]


@pytest.fixture(scope="session")
def _shared():
    return {}


@pytest.fixture(scope="session")
def built(_shared):
    """name, seed → an organism opened for study and its truth."""

    def build(name, seed=0):
        if (name, seed) not in _shared:
            model, truth = ORGANISMS.get(name)(seed)
            _shared[name, seed] = model, truth, _state(model.module)
        return _shared[name, seed][:2]

    return build


@pytest.fixture(autouse=True)
def _left_as_it_was(_shared):
    """A test that changes a shared network fails itself, not those that happen to come after it."""
    yield
    for key, (model, _, before) in list(_shared.items()):
        after = _state(model.module)
        if after != before:
            del _shared[key]
        assert after == before, f"{key} was left changed; build one of the test's own"
