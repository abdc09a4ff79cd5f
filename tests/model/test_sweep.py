"""Sweeps: the same numbers as one run for each list of edits, however they are computed and cut into passes."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, Conflict, NotFinite, ShapeMismatch, Unsupported
from prosect.model import edits as e
from prosect.model import placing as placing_of
from prosect.model import sweep as room
from prosect.model import whole
from prosect.model.clean import blocks_in_order, record
from prosect.model.cost import Cost
from prosect.model.inputs import of_ids
from prosect.model.model import Model
from prosect.model.placing import Placing
from prosect.model.proof import prove
from prosect.model.reads import Reads

IDS = [[1, 2, 3], [4, 5, 6, 7, 8, 2, 9, 1], [3, 1, 4, 1, 6], [2, 7]]
BATCH = of_ids(IDS)
OTHER = of_ids([[9, 8, 7], [6, 5, 4, 3, 2, 1, 2, 4], [1, 0, 1, 0, 2], [3, 3]])
FAMILIES = [
    "gpt2",
    "llama",
    "neox",
    "gemma2",
    "qwen3",
    "gpt-oss",
    "granite",
    "decoder",
    "attention-only",
    "bert",
]
WAYS = {"bloom": "whole", "mamba": "blocks"}


def last_logit(output, batch):
    """The logit of token 5 at the last real position."""
    return output[torch.arange(len(batch)), torch.as_tensor(batch.lengths) - 1, 5]


def read_logit(output, batch):
    """The same when only that position is handed over."""
    return output[:, -1, 5]


def everywhere(output, batch):
    """Something of every real position."""
    return (output[:, :, 5].sin() * batch.mask).sum(dim=1)


def values(model, names):
    return model.run(OTHER, [n for n in names if n in model.sites])


def lists(model):
    """Every kind of edit at every kind of site, by row, position and head."""
    run = values(model, model.sites.names())
    bank = torch.randn(6, model.d_model, generator=torch.Generator().manual_seed(0))
    direction = bank[0]
    out = [[]]
    kinds = [n for n in model.sites.names() if n.partition(".")[2] in ("", "0")]
    names = [n.replace(".0", f".{i % 2}") for i, n in enumerate(kinds)] + ["resid_pre.1", "resid_post.1"]
    for i, name in enumerate(n for n in names if n in model.sites):
        other, info = run[name], model.sites.info(name)
        at = {"positions": [[0], [1, 4], [-2], [1]][i % 2 :] + [[0], [1, 4]][: i % 2]}
        where = ({}, {"rows": [1, 3], "positions": [[5, 2], [-1]]}, at, {"rows": 2})[i % 4]
        heads = {"heads": [0, info.heads - 1]} if info.heads and i % 2 else {}
        out.append([e.patch(name, other, **where, **heads)])
        out.append([e.scale(name, 0.5, positions=1, **heads)])
    width = model.d_model
    out += [
        [e.steer("resid_pre.1", direction, 2.0, positions=-1), e.project_out("resid_post.1", bank[1:3])],
        [e.resample("resid_post.0", bank, seed=2), e.scale("resid_post.0", 0.5, rows=[2])],
        [e.resample("attn_out.1", bank, seed=3, positions=[0, 1])],
        [e.mean("attn_out_post.1", bank.mean(0), positions=0)],
        [
            e.freeze("resid_pre.1", run["resid_pre.1"], rows=[1], positions=6),
            e.zero("z.0", rows=1, positions=0),
        ],
        [e.freeze("resid_post.0")],
        [e.patch("z.1.h0", run["z.1"][:, :, 0], positions=1), e.scale("v.1", 1.5, positions=0)],
        [e.replace("attn_out.1", lambda x: x.flip(0))],  # depends on all the rows
        [e.patch("resid_pre.1", run["resid_pre.1"], positions=1, direction=bank[:2])],
        [
            e.scale("resid_pre.0", 2.0, positions=0),
            e.steer("resid_post.0", direction),
            e.zero("v.1", positions=1),
        ],
    ]
    assert width == bank.shape[1]
    return [listed for listed in out if all(edit.site in model.sites for edit in listed)]


def one_by_one(model, edits, metric, batch=BATCH):
    return np.stack([metric(model.run(batch, [], listed).output, batch).double().numpy() for listed in edits])


@pytest.fixture(scope="module")
def expected(opened):
    """name → lists of edits and what one whole run for each gives."""
    made = {}

    def of(name):
        if name not in made:
            edits = lists(opened(name))
            outputs = [opened(name).run(BATCH, [], listed).output for listed in edits]
            made[name] = edits, outputs
        return made[name]

    return of


@pytest.mark.parametrize(
    ("name", "budget"), [*((name, 512) for name in FAMILIES), ("gpt2", 0.15), ("gemma2", 0.15)]
)
def test_a_sweep_is_one_run_for_each_list(opened, expected, name, budget):
    edits, outputs = expected(name)
    got = opened(name).swept(edits, BATCH, everywhere, budget_mb=budget)
    whole_runs = np.stack([everywhere(o, BATCH).double().numpy() for o in outputs])
    assert got.scores.shape == (len(edits), 4)
    assert got.scores.dtype == np.float64
    assert np.abs(got.scores - whole_runs).max() <= 1e-5 * max(1, np.abs(whole_runs).max())
    assert set(got.ways) <= {"cone", "whole", "blocks"}
    assert got.ways.get("cone", 0) >= len(edits) - 5, (got.reasons, got.control)
    assert got.control <= 1e-5
    assert not opened(name).placing.unproved


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_read_alone_gives_the_same(opened, expected, name):
    edits, outputs = expected(name)
    reads = [[-2, -1], [3, 6], [0, -1], [0, 1]]
    got = opened(name).swept(edits, BATCH, lambda o, b: o[:, 0, 5] * o[:, 1, 3].cos(), reads=reads)
    at = np.array([[1, 2], [3, 6], [0, 4], [0, 1]])
    index = torch.arange(4)
    whole_runs = np.stack(
        [(o[index, at[:, 0], 5] * o[index, at[:, 1], 3].cos()).double().numpy() for o in outputs]
    )
    assert np.abs(got.scores - whole_runs).max() <= 1e-5 * max(1, np.abs(whole_runs).max())
    assert got.ways.get("cone", 0) >= len(edits) - 5, (got.reasons, got.control)


@pytest.mark.parametrize("name", sorted(WAYS))
def test_what_cannot_be_cut_is_run_whole_and_says_so(opened, name):
    model = opened(name)
    run = model.run(OTHER, ["resid_post.0", "resid_pre.0"])
    edits = [
        [e.patch("resid_post.0", run["resid_post.0"], positions=1)],
        [e.zero("resid_post.0", rows=[1])],
        [e.scale("resid_post.1", 2.0, positions=-1)],
        [e.patch("resid_post.0", run["resid_post.0"], rows=2)],
        [e.patch("resid_pre.0", run["resid_pre.0"], positions=0)],
    ]
    got = model.swept(edits, BATCH, read_logit, reads=-1)
    assert np.allclose(got.scores, one_by_one(model, edits, last_logit), atol=1e-5, rtol=1e-5)
    assert "cone" not in got.ways
    assert set(got.ways) <= {"whole", "blocks"}
    assert sum(got.reasons.values()) == len(edits)
    assert "attention" in " ".join(got.reasons)
    assert got.control is None
    if model.can_enter:
        assert got.ways["blocks"] == 4
        assert got.forwards < len(edits) * 4


@pytest.mark.parametrize("fit", [1, 3, 6, 10_000])
def test_whole_passes_are_cut_by_rows(opened, fit, monkeypatch):
    model = opened("llama")
    edits = lists(model)[:20]
    monkeypatch.setattr(room, "FEWEST", 10**6)
    monkeypatch.setattr(whole, "rows_that_fit", lambda *a: fit)
    got = model.swept(edits, BATCH, last_logit)
    assert np.allclose(got.scores, one_by_one(model, edits, last_logit), atol=1e-5)
    assert not np.allclose(got.scores[1:], got.scores[0])
    assert "cone" not in got.ways


def test_edits_outside_the_blocks_and_of_functions_are_run_whole(opened):
    model = opened("gpt2")
    table = torch.randn(4, 8, model.d_model, generator=torch.Generator().manual_seed(3))
    edits = [
        # before positions are added, so that it is not the first block's input
        [e.patch("embeddings", table, positions=1)],
        [e.patch("transformer.wte", table, positions=1)],
        [e.replace("resid_pre.1", torch.sin)],
        [e.zero("transformer.h.1.mlp.c_fc", positions=0)],
        [e.scale("final_norm", 0.5, positions=-1)],
        *([e.zero("resid_pre.1", positions=p)] for p in (0, 1)),
        [e.zero("z.0", positions=1)],
    ]
    got = model.swept(edits, BATCH, read_logit, reads=-1)
    assert np.allclose(got.scores, one_by_one(model, edits, last_logit), atol=1e-5, rtol=1e-5)
    assert got.ways == {"cone": 6, "blocks": 1, "whole": 1}
    assert len(got.reasons) == 2
    assert np.allclose(got.scores[0], got.scores[1], atol=1e-6)


def test_a_sweep_costs_what_edits_reach(opened):
    model = opened("gpt2")
    batch = of_ids([list(range(30))])
    cells = [[e.zero(f"resid_pre.{layer}", positions=p)] for layer in range(2) for p in range(30)]
    got = model.swept(cells, batch, read_logit, reads=-1)
    # 12 d² weights a block, d · vocabulary after the last; in the last block the read position goes all the way
    # and of the others keys and values alone, made with the queries at 3 d²
    d2, reach = 32**2, sum(range(1, 31))
    first = reach * 12 * d2 + (reach - 30) * 3 * d2 + 30 * 12 * d2  # edited before the first block
    last = 29 * 3 * d2 + 30 * 12 * d2  # before the last, where one position's keys and values are new
    floor = (first + last + 60 * 50 * 32) / (30 * (2 * 12 * d2 + 50 * 32))
    extra = 2.0  # the pass without edits and its control
    assert floor + 1 <= got.forwards <= floor + extra
    assert got.forwards < 0.6 * len(cells)
    heads = [[e.zero(f"z.1.h{h}", positions=p)] for h in range(4) for p in range(30)]
    assert (
        model.swept(heads, batch, read_logit, reads=-1).forwards < 4
    )  # all but the last position change nothing


def test_changes_that_reach_nothing_read_leave_the_score_alone(opened):
    model = opened("llama")
    edits = [[], [e.zero("resid_pre.0", positions=-1)], [e.zero("z.1", positions=0)], [e.zero("z.0", rows=0)]]
    got = model.sweep(edits, BATCH, lambda o, b: o[:, 0, 5], reads=[[0], [0], [0], [0]])
    assert got[0, 1] == got[1, 1] == got[3, 1]
    assert got[2, 1] != got[0, 1]


@pytest.mark.parametrize("budget", [0.1, 1.0, 50])
def test_plans_keep_to_the_budget_at_any_number_of_edits(opened, budget):
    model = opened("gpt2")
    cells = [[e.zero(f"resid_pre.{i % 2}", positions=i % 2, rows=i % 3)] for i in range(4)]
    few = model.swept(cells, BATCH, read_logit, budget_mb=budget, reads=-1)
    many = model.swept(cells * 10, BATCH, read_logit, budget_mb=budget, reads=-1)
    assert np.allclose(many.scores, np.tile(few.scores, (10, 1)), atol=1e-5)
    if budget >= 1:
        assert many.planned_mb <= budget
    else:
        assert many.planned_mb <= 1.01 * max(budget, few.planned_mb)
    assert many.passes >= few.passes


@pytest.mark.parametrize("reads", [None, -1])
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "decoder"])
def test_what_is_held_is_what_was_planned(opened, name, reads):
    model = opened(name)
    read = Reads.of(reads, BATCH)
    planned = Cost.of(model, blocks_in_order(model), 8).clean(4, None if reads is None else 1)
    held = record(model, BATCH, read).bytes
    assert 0.5 * planned <= held <= planned


def test_a_killed_sweep_goes_on_where_it_was(opened, tmp_path):
    model = opened("llama")
    edits, seen = lists(model), []

    def metric(output, batch):
        seen.append(len(batch))
        return output[:, -1, 5]

    arguments = {"budget_mb": 0.15, "reads": -1}
    whole_sweep = model.swept(edits, BATCH, metric, **arguments, keep=tmp_path / "a")
    calls = len(seen)

    def killed(output, batch):
        if len(seen) >= calls + calls // 2:
            raise KeyboardInterrupt
        return metric(output, batch)

    killed.__qualname__ = metric.__qualname__
    with pytest.raises(KeyboardInterrupt):
        model.swept(edits, BATCH, killed, **arguments, keep=tmp_path / "b")
    there = sorted(p.name for p in (tmp_path / "b").iterdir())
    assert 1 < len(there) < len(list((tmp_path / "a").iterdir()))
    (tmp_path / "b" / there[0]).write_bytes(b"torn")  # as if the disk had lost the end of it
    del seen[:]
    again = model.swept(edits, BATCH, metric, **arguments, keep=tmp_path / "b")
    assert np.array_equal(again.scores, whole_sweep.scores)
    assert 0 < len(seen) < calls
    del seen[:]
    model.swept(edits, BATCH, metric, **arguments, keep=tmp_path / "b")
    assert not seen
    with pytest.raises(Conflict, match="another sweep"):
        model.swept(edits[1:], BATCH, metric, **arguments, keep=tmp_path / "b")
    with pytest.raises(Conflict, match="another sweep"):
        model.swept(edits, OTHER, metric, **arguments, keep=tmp_path / "b")


def test_models_without_positions_sweep_too(small):
    model, x = small("mlp")
    edits = [[], [e.zero("0", rows=[1])], [], [], [e.zero("0")]]
    got = model.swept(edits, x, lambda out, batch: out[:, 0])
    assert np.allclose(got.scores[0, [0, 2, 3]], got.scores[1, [0, 2, 3]])
    assert got.scores[1, 1] == pytest.approx(float(model.module[2].bias[0].detach()))
    assert got.ways == {"whole": 5}


def test_bad_sweeps_say_what_is_wrong(opened):
    model = opened("gpt2")
    with pytest.raises(ShapeMismatch, match="one number for each row"):
        model.sweep([[]], BATCH, lambda out, batch: out.mean())
    with pytest.raises(ShapeMismatch, match="one number for each row"):
        model.sweep([[]] * 9, BATCH, lambda out, batch: float(out.mean()))
    for count in (1, 9):
        with pytest.raises(NotFinite, match=r"zero at resid_post\.1"):
            model.sweep([[e.zero("resid_post.1")]] * count, BATCH, lambda out, batch: out[:, 0, 0] / 0)
    with pytest.raises(BadInput, match="more than 0"):
        model.sweep([[]], BATCH, last_logit, budget_mb=0)
    ran = []
    with pytest.raises(BadInput, match="rows from 0 to 3"):
        model.sweep([[], [e.zero("z.0", rows=[4])]], BATCH, lambda out, batch: ran.append(1))
    with pytest.raises(BadInput, match="which has 2 real positions"):
        model.sweep([[], [e.zero("z.0", positions=2)]], BATCH, lambda out, batch: ran.append(1))
    with pytest.raises(ShapeMismatch, match="a value of"):
        model.sweep([[e.patch("z.0", torch.zeros(3, 1, 1, 8))]] * 9, BATCH, last_logit)
    with pytest.raises(ShapeMismatch, match="a value of"):
        model.sweep([[e.patch("z.0", torch.zeros(8, dtype=torch.float64))]] * 9, BATCH, last_logit)
    assert not ran
    assert model.sweep([], BATCH, last_logit).shape == (0, 4)


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        (5, "row 0, which has 3"),
        ([], "at least 1"),
        ([[0], [0]], "one for each of 4"),
        ([[0], [1, 2], [0], [0]], "same number"),
    ],
)
def test_reads_that_are_not_there_are_refused(opened, reads, words):
    with pytest.raises(BadInput, match=words):
        opened("gpt2").sweep([[]], BATCH, last_logit, reads=reads)


def test_reads_need_positions(small):
    model, x = small("mlp")
    with pytest.raises(Unsupported, match="without positions"):
        model.sweep([[]], x, last_logit, reads=-1)


def test_nothing_stays_behind(opened):
    model = opened("llama")
    before = model.run(BATCH).output
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.module.modules()]
    model.sweep(lists(model)[:12], BATCH, last_logit)
    assert not any("forward" in m.__dict__ for m in model.module.modules())
    after = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.module.modules()]
    assert after == hooks  # transformers leaves hooks of its own where it was once asked for attention
    assert torch.equal(model.run(BATCH).output, before)


def mixing(network):
    """A model with a block that looks at the position before by itself, where no mask tells of it."""
    module = network("llama")
    inner = module.model.layers[1].mlp.forward
    module.model.layers[1].mlp.forward = lambda x: inner(x + x.roll(1, dims=1))
    return Model.of(module)


def test_a_model_that_mixes_positions_outside_attention_is_not_cut(network):
    model = mixing(network)
    with pytest.raises(Unsupported, match="off by"):
        prove(model)
    edits = [[e.zero("resid_pre.1", positions=p)] for p in (0, 1, 0, 1, 0)]
    got = model.swept(edits, BATCH, read_logit, reads=-1)
    assert np.allclose(got.scores, one_by_one(model, edits, last_logit), atol=1e-5)
    assert "cone" not in got.ways
    assert got.control is None


def test_a_batch_on_which_the_control_fails_is_run_whole(network):
    model = mixing(network)
    vars(model)["_placing"] = Placing.of_model(model, blocks_in_order(model), causal=True)  # not proved
    edits = [[e.zero("resid_pre.1", positions=p)] for p in (0, 1, 0, 1, 0)]
    got = model.swept(edits, BATCH, read_logit, reads=-1)
    assert np.allclose(got.scores, one_by_one(model, edits, last_logit), atol=1e-5)
    assert "cone" not in got.ways
    assert got.control > 1e-3
    assert "on these rows" in " ".join(got.reasons)


def test_a_kind_of_site_that_does_not_agree_is_run_whole_alone(opened, monkeypatch):
    model = opened("gpt2")
    monkeypatch.setitem(placing_of._AT, "k", "point")  # as if a new key were seen by its own query alone
    proved = prove(model)
    assert proved.unproved == {"k"}
