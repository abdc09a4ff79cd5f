"""Head roles against loops and against attention made by hand."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from describe.texts import batches, documents
from prosect.core.errors import BadInput, NewerSchema, NotFinite, ShapeMismatch, TooLittleData, UnknownName
from prosect.core.records import Executable
from prosect.core.registries import DESCRIPTIONS
from prosect.describe.role_explainer import RoleExplainer
from prosect.describe.roles import ROLES, HeadRole, OffsetTable
from prosect.store.shelf import Shelf

DOCS = documents(count=24, vocabulary=12, low=2, high=20)


def loops(role, doc):
    """Eligible keys of each query, written out."""
    out = [set() for _ in doc]
    for q in range(1, len(doc)):
        for k in range(q + 1):
            earlier = k >= 1 and k - 1 < q and doc[k - 1] == doc[q]
            if {
                "previous": k == q - 1,
                "first": k == 0,
                "offset": k == q - role.offset,
                "duplicate": k < q and doc[k] == doc[q],
                "induction": earlier,
            }[role.role]:
                out[q].add(k)
    if role.keys == "last" and role.role in ("duplicate", "induction"):
        out = [{max(s)} if s else s for s in out]
    return out


ALL = [
    HeadRole("previous"),
    HeadRole("first"),
    HeadRole("offset", offset=0),
    HeadRole("offset", offset=3),
    *[HeadRole(r, keys=k) for r in ("duplicate", "induction") for k in ("all", "last")],
]


@pytest.mark.parametrize("role", ALL, ids=str)
def test_a_role_looks_where_its_words_say(role):
    for batch in batches(DOCS, width=22):
        predicted = role.attention(batch)
        for row, length in enumerate(batch.lengths):
            doc = batch.tensors["input_ids"][row, :length].tolist()
            for q, keys in enumerate(loops(role, doc)):
                expected = np.zeros(22)
                expected[list(keys)] = 1 / len(keys) if keys else 0
                assert predicted[row, q].tolist() == expected.tolist()
            assert not predicted[row, length:].any()


def test_after_an_immediate_repetition_induction_is_the_query_itself():
    (batch,) = batches([[4, 4, 7]])
    assert HeadRole("induction").attention(batch)[0, 1].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("role", ALL, ids=str)
def test_roles_come_back_from_json(role):
    stored = Executable.model_validate_json(role.executable().model_dump_json())
    assert DESCRIPTIONS.get("head-role").of(stored, Shelf()) == role
    assert set(stored.parameters) <= {"role", "offset", "keys"}


def test_malformed_roles_are_refused():
    with pytest.raises(UnknownName, match="previous"):
        HeadRole("previus")
    with pytest.raises(BadInput, match="offset"):
        HeadRole("offset", offset=-1)
    with pytest.raises(BadInput, match="offset 2"):
        HeadRole("first", offset=2)
    with pytest.raises(BadInput, match="keys"):
        HeadRole("induction", keys="first")
    with pytest.raises(BadInput, match="malformed"):
        HeadRole.of(Executable(kind="head-role", parameters={"role": "first", "x": 1}), Shelf())
    with pytest.raises(NewerSchema):
        HeadRole.of(Executable(kind="head-role", version=9, parameters={"role": "first"}), Shelf())


def pattern(role, batch, rest="uniform"):
    """A head that follows ``role`` where it applies and attends uniformly, or to position 0, elsewhere."""
    predicted = role.attention(batch)
    n = predicted.shape[1]
    other = np.tril(np.ones((n, n))) / (1 + np.arange(n))[:, None]
    if rest == "first":
        other = np.eye(n)[np.zeros(n, dtype=int)]
    out = np.where(predicted.sum(axis=2, keepdims=True) > 0, predicted, other[None])
    return torch.from_numpy(out * batch.mask.numpy()[:, :, None] * batch.mask.numpy()[:, None, :])


def explained(heads, docs=DOCS, halves=True, **kwargs):
    """Each head a function of the batch, giving its attention."""
    found = RoleExplainer(len(heads))
    for i, batch in enumerate(batches(docs, size=6, **kwargs)):
        probs = torch.stack([h(batch) for h in heads], dim=1)
        found.update(batch, probs, second=halves and i % 2 == 1)
    return found


@pytest.mark.parametrize("role", ALL, ids=str)
@pytest.mark.parametrize("rest", ["uniform", "first"])
def test_every_role_is_found(role, rest):
    found = explained([lambda b: pattern(role, b, rest)])
    best = found.explain(0)[0]
    assert best.found and HeadRole.of(best.executable, Shelf()) == role
    assert best.words == f"looks at {role.words}"
    assert best.explored["share"] == pytest.approx(1.0)
    assert best.description.about["agreement"] > 0.9


def random_head(batch, seed=0):
    rng = np.random.default_rng([seed, int(batch.tensors["input_ids"].sum())])
    scores = rng.standard_normal((len(batch), 22, 22))
    keep = np.tril(np.ones((22, 22), bool)) & batch.mask.numpy()[:, :, None]
    weights = np.exp(scores) * keep
    return torch.from_numpy(weights / np.maximum(weights.sum(axis=2, keepdims=True), 1e-300))


def near_head(batch):
    """Attention that falls off with distance, with noise."""
    noise = random_head(batch).numpy()
    back = np.arange(22)[:, None] - np.arange(22)[None, :]
    weights = np.exp(-0.4 * np.maximum(back, 0)) * noise
    return torch.from_numpy(weights / np.maximum(weights.sum(axis=2, keepdims=True), 1e-300))


def uniform_head(batch):
    mask = batch.mask.numpy()
    keep = np.tril(np.ones((22, 22))) * mask[:, :, None]
    return torch.from_numpy(keep / np.maximum(keep.sum(axis=2, keepdims=True), 1))


@pytest.mark.parametrize("head", [uniform_head, random_head])
def test_heads_without_a_role_are_said_to_have_none(head):
    best = explained([head], width=22).explain(0)[0]
    assert not best.found and best.words.startswith("no role found; nearest: ")


def test_heads_do_not_mix():
    roles = [HeadRole("previous"), HeadRole("induction"), HeadRole("first")]
    found = explained([lambda b, r=r: pattern(r, b) for r in roles])
    assert [found.explain(h)[0].executable for h in range(3)] == [r.executable() for r in roles]


def test_the_figures_are_what_loops_give():
    head, role = random_head, HeadRole("induction", keys="all")
    found = explained([head], width=22)
    table = found.offset_table(0)
    mass, offset, uniform, overlap, n = 0.0, 0.0, 0.0, 0.0, 0
    for batch in batches(DOCS, size=6, width=22):
        weights, grid = head(batch).numpy(), table.grid(22)
        for row, length in enumerate(batch.lengths):
            for q, keys in enumerate(loops(role, batch.tensors["input_ids"][row, :length].tolist())):
                if keys:
                    n += 1
                    mass += sum(weights[row, q, k] for k in keys)
                    offset += sum(grid[q, k] for k in keys)
                    uniform += len(keys) / (q + 1)
                    overlap += sum(min(weights[row, q, k], 1 / len(keys)) for k in keys)
    both = [s for s in found.scores(0) if s.role.role == "induction"]
    assert len(both) == 1 and both[0].queries == n
    if both[0].role.keys == "all":
        assert both[0].overlap == pytest.approx(overlap / n)
    score = next(s for s in _all_scores(found) if s.role == role)
    assert (score.mass, score.offset, score.uniform) == pytest.approx((mass / n, offset / n, uniform / n))
    back = next(s for s in found.scores(0) if s.role.role == "previous")
    pairs = [
        (b, r, q)
        for b in batches(DOCS, size=6, width=22)
        for r, n in enumerate(b.lengths)
        for q in range(1, n)
    ]
    assert back.mass == pytest.approx(np.mean([head(b)[r, q, q - 1].item() for b, r, q in pairs]))
    assert back.offset == pytest.approx(np.mean([table.grid(22)[q, q - 1] for _, _, q in pairs]))
    assert back.uniform == pytest.approx(np.mean([1 / (q + 1) for _, _, q in pairs]))


def _all_scores(found):
    from prosect.describe import role_explainer as module

    sums = found._both()
    back = module._by_distance(module._table(sums, 0).grid(sums.length))
    return [module._content(sums, i, 0, back) for i in range(len(module.CONTENT))]


def test_an_offset_table_holds_a_positional_head_exactly():
    uniform = explained([uniform_head], width=22).offset_table(0)
    assert uniform.weights[:19] == pytest.approx(1.0)
    for batch in batches(DOCS, width=22):
        assert uniform.attention(batch) == pytest.approx(uniform_head(batch).numpy())
    third = HeadRole("offset", offset=3)
    table = explained([lambda b: pattern(third, b, "first")]).offset_table(0)
    (batch,) = batches([[1] * 15])
    assert table.attention(batch)[0, 10, 7] > 0.98


def test_an_offset_table_is_the_best_of_its_kind():
    """No other weights give the explored attention a higher likelihood: scipy cannot improve on it."""
    found = explained([near_head], width=22)
    pairs = [
        (near_head(b)[r, 1:n].numpy(), n)
        for b in batches(DOCS, size=6, width=22)
        for r, n in enumerate(b.lengths)
    ]

    def loss(logits):
        grid = OffsetTable(np.exp(logits)).grid(22)
        return -sum((w * np.log(np.maximum(grid[1:n], 1e-300))).sum() for w, n in pairs)

    weights = found.offset_table(0).weights[:19]
    start = np.log(np.maximum(weights, 1e-12))
    better = minimize(loss, start, method="L-BFGS-B")
    assert loss(start) <= better.fun + 1e-3
    assert loss(np.zeros(19)) > better.fun + 5


def test_an_offset_table_comes_back_bit_identical(tmp_path):
    table = explained([random_head], width=22).offset_table(0)
    stored = table.executable(Shelf(tmp_path)).model_dump_json()
    again = DESCRIPTIONS.get("offset-table").of(Executable.model_validate_json(stored), Shelf(tmp_path))
    (batch,) = batches([list(range(12)) * 3])  # longer than anything explored
    assert np.array_equal(again.attention(batch), table.attention(batch))
    assert table.attention(batch).sum(axis=2) == pytest.approx(1.0)


def test_roles_that_apply_nowhere_say_so():
    distinct = [np.random.default_rng(i).permutation(30)[:18].tolist() for i in range(12)]
    found = explained([uniform_head], docs=distinct, width=22)
    nowhere = [s for s in found.scores(0) if s.role.role in ("duplicate", "induction")]
    assert len(nowhere) == 2 and all(s.queries == 0 for s in nowhere)
    proposals = found.explain(0, most=10)
    assert all(p.description.about["role"] not in ("duplicate", "induction") for p in proposals)
    notes = [r for r in proposals[0].description.about["roles"] if r.get("note")]
    assert {r["role"] for r in notes} == {"duplicate", "induction"}
    with pytest.raises(TooLittleData, match="no role applies"):
        explained(
            [lambda b: torch.ones((1, 2, 2)).tril() / torch.tensor([[1.0], [2.0]])], docs=[[1, 2]]
        ).explain(0)
    with pytest.raises(TooLittleData, match="no attention"):
        RoleExplainer(1).explain(0)


def test_special_tokens_are_looked_at_and_do_not_look():
    docs = [[11, *d] for d in DOCS]
    marked, plain = RoleExplainer(1), RoleExplainer(1)
    for a, b in zip(batches(docs, size=6, width=22, special=3), batches(docs, size=6, width=22), strict=True):
        probs = random_head(b)
        marked.update(a, probs[:, None])
        plain.update(b, probs[:, None])
    queries = {s.role.role: s.queries for s in marked.scores(0)}
    assert queries["first"] == sum(len(d) - 3 for d in docs if len(d) > 3)
    assert {s.role.role: s.queries for s in plain.scores(0)}["first"] == sum(len(d) - 1 for d in docs)
    mass = [
        random_head(b)[r, 3:n, 0] for b in batches(docs, size=6, width=22) for r, n in enumerate(b.lengths)
    ]
    first = next(s for s in marked.scores(0) if s.role.role == "first")
    assert first.mass == pytest.approx(torch.cat(mass).mean().item())


def test_heads_that_hold_attention_back_are_no_error():
    """With attention sinks a query's weights sum to less than 1, in the extreme to 0."""
    found = explained(
        [lambda b: 0.5 * pattern(HeadRole("previous"), b), lambda b: 0 * uniform_head(b)], width=22
    )
    assert found.explain(0)[0].found and found.explain(0)[0].explored["share"] == pytest.approx(0.5)
    assert not found.explain(1)[0].found and found.offset_table(1).weights.tolist() == [1.0] * 22


def test_what_stands_at_padding_is_not_looked_at():
    clean = explained([random_head], width=22)
    dirty = RoleExplainer(1)
    for i, batch in enumerate(batches(DOCS, size=6, width=22)):
        probs = random_head(batch)[:, None].clone()
        real = batch.mask[:, None, :, None] & batch.mask[:, None, None, :]
        probs[~real] = float("nan")
        dirty.update(batch, probs, second=i % 2 == 1)
    assert dirty.scores(0) == clean.scores(0)


def test_bad_attention_is_refused():
    (batch,) = batches([[1, 2, 3]])
    good = torch.ones((1, 2, 3, 3)).tril() / torch.tensor([1.0, 2.0, 3.0])[:, None]
    found = RoleExplainer(2)
    found.update(batch, good)
    with pytest.raises(ShapeMismatch):
        found.update(batch, good[:, :1])
    with pytest.raises(BadInput, match="sum to 2"):
        found.update(batch, good * 2)
    with pytest.raises(BadInput, match="from -1"):
        found.update(batch, -good)
    with pytest.raises(NotFinite):
        found.update(batch, torch.full_like(good, float("nan")))
    with pytest.raises(BadInput, match="head 2"):
        found.explain(2)


def test_every_role_has_words():
    assert {r.role for r in ALL} == set(ROLES)
    assert len({r.words for r in ALL}) == len(ALL)
    assert isinstance(OffsetTable(np.ones(2)).grid(4), np.ndarray)


def test_what_the_second_set_alone_gives_never_saw_the_first():
    found, roles = RoleExplainer(1), (HeadRole("previous"), HeadRole("first"))
    for i, batch in enumerate(batches(DOCS, size=6)):
        found.update(batch, pattern(roles[i % 2], batch)[:, None], second=i % 2 == 1)
    assert {HeadRole.of(p.second, Shelf()) for p in found.explain(0)} == {HeadRole("first")}
    alone = RoleExplainer(1)
    for batch in batches(DOCS, size=6):
        alone.update(batch, pattern(roles[0], batch)[:, None])
    assert alone.explain(0)[0].second is None
