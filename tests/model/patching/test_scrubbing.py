"""Causal scrubbing against enumeration of small gates, and on a circuit whose mechanism is known."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from prosect.core.errors import BadInput, ShapeMismatch, UnknownName
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.model.model import Model
from prosect.model.patching import Meaning, scrub
from prosect.organisms import induction

COPIES = 40


class Gates(nn.Module):
    """u = a xor b, v = c, w = u and v; the output is w + u / 2, so u reaches it around w as well."""

    def __init__(self):
        super().__init__()
        self.u, self.v, self.w = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x):
        a, b, c = x[:, :1], x[:, 1:2], x[:, 2:]
        u, v = self.u(a + b - 2 * a * b), self.v(c)
        return self.w(u * v) + u / 2


def truth(x):
    a, b, c = x[:, 0], x[:, 1], x[:, 2]
    u = a + b - 2 * a * b
    return u, c, u * c


@pytest.fixture(scope="module")
def gates():
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3))).repeat(COPIES, 1)
    model = Model.of(Gates(), name="gates", inputs=every[:2])
    rows = tuple(Row(i) for i in range(len(every)))
    return model, Batch({"x": every}, None, rows)


def exactly(output, batch):
    """Minus the squared error from the row's own output."""
    u, _, w = truth(batch.tensors["x"])
    return -((output[:, 0] - (w + u / 2)) ** 2)


def of(which):
    return lambda batch: truth(batch.tensors["x"])[which].tolist()


def column(i):
    return lambda batch: batch.tensors["x"][:, i].tolist()


U, V = Meaning("u", of(0)), Meaning("v", of(1))
W = Meaning("w", of(2), ("u", "v"))
PAIRS = np.array(list(itertools.product(range(8), repeat=2)))
X = np.array(list(itertools.product((0, 1), repeat=3)), dtype=float)


def mean_error(f):
    """Mean squared error over all pairs of a row and a row drawn for it, with ``f`` of both."""
    u, _, w = (np.asarray(t) for t in truth(X))
    i, j = PAIRS.T
    return float(np.mean((f(u, w, i, j) - (w + u / 2)[i]) ** 2))


RANDOM = mean_error(lambda u, w, i, j: (w + u / 2)[j])


def share(f):
    return 1 - mean_error(f) / RANDOM


_U, _, _W = (np.asarray(t) for t in truth(X))
INDEPENDENT = 1 - float(
    np.mean(
        [(_W[j] + _U[k] / 2 - _W[i] - _U[i] / 2) ** 2 for i, j, k in itertools.product(range(8), repeat=3)]
    )
    / RANDOM
)


def test_the_true_account_recovers_everything(gates):
    model, batch = gates
    found = scrub(model, batch, exactly, {"u": U, "v": V, "w": W}, ("w", "u"))
    assert found.recovered.estimate == pytest.approx(1.0, abs=1e-9)
    assert found.control.high < 0.5
    assert found.unchanged < 0.05
    assert found.bits == pytest.approx({"u": 1.0, "v": 1.0, "w": 0.811278}, abs=1e-5)
    assert found.passes == 2  # the output's, and that of w, on values that u and v have on other rows


@pytest.mark.parametrize(
    ("account", "output", "expected"),
    [
        # w alone: u reaches the output around it with a value of another row
        ({"u": U, "v": V, "w": W}, ("w",), share(lambda u, w, i, j: w[i] + u[j] / 2)),
        # u alone: w is another row's
        ({"u": U, "w": Meaning("w")}, ("u",), share(lambda u, w, i, j: w[j] + u[i] / 2)),
        # nothing is claimed: the output is another row's
        ({}, (), 0.0),
        # nothing matters: w and u are of other rows, and each of its own
        ({"u": U, "w": W, "v": V}, (), INDEPENDENT),
        # u is taken for what a alone says, which says nothing of a xor b
        (
            {"u": Meaning("u", column(0)), "w": Meaning("w", of(2))},
            ("w", "u"),
            share(lambda u, w, i, j: w[i] + u[j] / 2),
        ),
    ],
)
def test_what_an_account_leaves_out_is_what_enumeration_says(gates, account, output, expected):
    model, batch = gates
    found = scrub(model, batch, exactly, account, output, draws=12)
    assert found.recovered.estimate == pytest.approx(expected, abs=0.06)
    assert found.recovered.low - 0.03 < expected < found.recovered.high + 0.03


def test_an_edge_that_is_left_out_is_cut(gates):
    """w computed from u alone: what v is there comes from another row, so w is right half of the time."""
    model, batch = gates
    account = {"u": U, "v": V, "w": Meaning("w", of(2), ("u",))}
    found = scrub(model, batch, exactly, account, ("w", "u"), draws=12)
    u, c, w = truth(X)
    # w is drawn to agree, its u is that row's, its v any row's
    error = []
    for i in range(8):
        alike = [k for k in range(8) if w[k] == w[i]]
        error += [np.mean([(u[k] * c[j] - w[i]) ** 2 for k in alike for j in range(8)])]
    assert found.recovered.estimate == pytest.approx(1 - np.mean(error) / RANDOM, abs=0.06)


def test_an_account_that_tells_all_rows_apart_always_passes_and_is_told_on(gates):
    """Even a wrong one: v for u. Nothing was changed, and the result says so."""
    model, batch = gates
    found = scrub(model, batch, exactly, {"w": Meaning("w"), "u": Meaning("u")}, ("w", "u"))
    assert found.recovered.estimate == pytest.approx(1.0)
    assert found.unchanged == 1.0 and "hardly tested" in found.notes[0]
    assert found.bits["w"] == pytest.approx(np.log2(len(batch)))


def test_draws_are_the_seeds(gates):
    model, batch = gates
    account = {"u": Meaning("u", column(0))}
    one, two = (scrub(model, batch, exactly, account, ("u",), draws=1, seed=s) for s in (0, 0))
    assert one.recovered == two.recovered
    assert scrub(model, batch, exactly, account, ("u",), draws=1, seed=1).recovered != one.recovered


@pytest.fixture(scope="module")
def circuit():
    """Blocks repeated twice, up to the token before the last, whose successor is the answer."""
    model, known = induction.build(0)
    draw, block = Seed(0).child("blocks").numpy(), 6
    rows = [draw.permutation(np.arange(1, 25))[:block].tolist() for _ in range(160)]
    ids = torch.tensor([[0, *r, *r[:-1]] for r in rows])
    mask = torch.ones_like(ids, dtype=torch.bool)
    batch = Batch({"input_ids": ids}, mask, tuple(Row(i) for i in range(len(ids))))
    roles = {v.parameters.get("role"): v.site for v in known.variables}
    return model, batch, roles, block


def answered(output, batch):
    """Log-probability of the token that came after the last one before."""
    ids = batch.tensors["input_ids"]
    wanted = ids[:, (ids.shape[1]) // 2]
    return output[:, -1].float().log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0]


def test_on_the_induction_circuit_the_true_head_recovers_and_others_do_not(circuit):
    model, batch, roles, block = circuit
    ids = batch.tensors["input_ids"]

    def answer(rows):
        return rows.tensors["input_ids"][:, block].tolist()

    assert (ids[:, block] == ids[:, ids.shape[1] // 2]).all()
    heads = [f"z.1.h{h}" for h in range(model.n_heads)]
    true = roles["induction"]
    account = {h: Meaning(h, answer, positions=(-1,)) for h in heads}
    found = scrub(model, batch, answered, account, (true,))
    assert found.recovered.low > 0.9
    assert found.control.estimate < 0.3
    assert found.unchanged < 0.5
    wrong = next(h for h in heads if h != true)
    assert abs(scrub(model, batch, answered, account, (wrong,)).recovered.estimate) < 0.1


def test_what_cannot_be_scrubbed_is_refused(gates):
    model, batch = gates
    with pytest.raises(UnknownName, match="'x'"):
        scrub(model, batch, exactly, {"u": U}, ("x",))
    with pytest.raises(BadInput, match="circle"):
        scrub(
            model,
            batch,
            exactly,
            {"u": Meaning("u", of(0), ("w",)), "w": Meaning("w", of(2), ("u",))},
            ("w",),
        )
    with pytest.raises(BadInput, match="labels of 'u'"):
        scrub(model, batch, exactly, {"u": Meaning("u", lambda b: [1, 2])}, ("u",))
    with pytest.raises(ShapeMismatch, match="one number for each row"):
        scrub(model, batch, lambda output, rows: output.sum(), {"u": U}, ("u",))
    with pytest.raises(BadInput, match="0 draws"):
        scrub(model, batch, exactly, {"u": U}, ("u",), draws=0)


def test_rows_of_several_lengths_are_refused(circuit):
    model, batch, roles, _ = circuit
    mask = batch.mask.clone()
    mask[0, -2:] = False
    uneven = Batch(batch.tensors, mask, batch.rows)
    with pytest.raises(ShapeMismatch, match="equal length"):
        scrub(model, uneven, answered, {"i": Meaning(roles["induction"])}, ("i",))
