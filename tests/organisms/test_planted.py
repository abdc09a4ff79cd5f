"""The planted organism: activations, effects and noise are what its truth says, seen from outside."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from prosect.organisms.documents import BOS, LONGEST, SHORTEST, VOCABULARY, Language
from prosect.organisms.planted import SORTS, network, source

PARTS = ("explore", "validate.0", "shift")


def run(module, batch, silent=None):
    """Activations of the neurons (rows, positions, neurons) and logits; one neuron may be put to zero."""
    seen = []

    def keep(_m, _a, out):
        seen.append(out)
        if silent is not None:
            out = out.clone()
            out[..., silent] = 0.0
        return out

    hook = module.model.layers[0].mlp.act_fn.register_forward_hook(keep)
    with torch.no_grad():
        logits = module(**batch.tensors).logits
    hook.remove()
    return seen[0], logits


def holds(v, ids):
    """What the rule says at each position of a document, read from the truth alone."""
    strength = dict(zip(v.parameters["current"], v.parameters["strengths"], strict=True))
    previous = v.parameters["previous"]
    return np.array(
        [
            strength.get(t, 0.0) if previous is None or (i > 0 and ids[i - 1] in previous) else 0.0
            for i, t in enumerate(ids)
        ]
    )


@pytest.fixture(scope="module", params=[0, 1])
def planted(request):
    module, truth = network(request.param)
    data = source(request.param)
    seen = {}
    for part in PARTS:
        batch = next(data.batches(part, rows=100))
        act, logits = run(module, batch)
        documents = [
            (batch.tensors["input_ids"][r, :n].tolist(), act[r, :n].double().numpy())
            for r, n in enumerate(batch.lengths)
        ]
        seen[part] = (batch, documents, logits)
    return module, truth, seen


def rules(truth, *sorts):
    return [v for v in truth.variables if v.parameters["sort"].split()[0] in sorts]


@pytest.mark.parametrize("part", PARTS)
def test_a_rule_without_noise_is_the_activation(planted, part):
    _, truth, seen = planted
    found = rules(truth, "token", "context", "silent")
    assert len(found) == 28
    for v in found:
        for ids, act in seen[part][1]:
            assert np.abs(act[:, v.index] - holds(v, ids)).max() < 1e-3
            assert ((act[:, v.index] > 0) == (holds(v, ids) > 0)).all()


def test_rules_fire_in_enough_documents_to_be_tested(planted):
    _, truth, seen = planted
    documents = seen["validate.0"][1][:60]
    for v in truth.variables:
        firing = sum((act[:, v.index] > 0).any() for _, act in documents)
        assert firing == 0 if v.parameters["sort"] == "dead" else firing >= 20, v


def test_noisy_rules_correlate_as_planted(planted):
    _, truth, seen = planted
    for v in rules(truth, "noisy"):
        pooled = [(holds(v, ids), act[:, v.index]) for part in PARTS[:2] for ids, act in seen[part][1]]
        rule, act = (np.concatenate(x) for x in zip(*pooled, strict=True))
        assert np.corrcoef(rule, act)[0, 1] == pytest.approx(v.parameters["correlation"], abs=0.06)


def nearby(documents, index):
    """Tokens at 0, -1, -2, -3, position and whether the token occurred before, beside the activation."""
    rows, target = [], []
    for ids, act in documents:
        for i in range(1, len(ids)):
            rows.append([ids[max(i - d, 0)] for d in range(4)] + [i, ids[i] in ids[:i]])
            target.append(act[i, index])
    return np.array(rows), np.array(target)


def predictability(documents, index):
    """Held-out correlation of a boosted forest that reads everything nearby."""
    forest = HistGradientBoostingRegressor(max_iter=30, categorical_features=[0, 1, 2, 3], random_state=0)
    forest.fit(*nearby(documents[:80], index))
    x, y = nearby(documents[80:], index)
    return np.corrcoef(forest.predict(x), y)[0, 1]


def test_no_rule_over_nearby_tokens_predicts_the_unreadable(planted):
    _, truth, seen = planted
    documents = seen["explore"][1] + seen["validate.0"][1][:40]
    readable = predictability(documents, rules(truth, "context")[0].index)
    assert readable > 0.7  # the same forest finds a rule where there is one
    for v in rules(truth, "unreadable", "noise")[:4]:
        assert abs(predictability(documents, v.index)) < 0.12


def test_noise_comes_from_several_tokens_far_back_and_from_no_other(planted):
    module, truth, seen = planted
    batch = seen["explore"][0]
    row = int(np.argmax(batch.lengths))
    one = batch.select([row])
    ids, last = one.tensors["input_ids"], int(batch.lengths[row]) - 1
    heard = [v.index for v in rules(truth, "unreadable", "noise")]
    biases = module.model.layers[0].mlp.up_proj.bias
    lifted = biases.detach().clone()
    with torch.no_grad():  # let every neuron fire, so that a change cannot hide below zero
        biases += 100.0
        base = run(module, one)[0][0, last, heard]
        moved = []
        for at in range(1, last):
            changed = ids.clone()
            changed[0, at] = 1 + ids[0, at] % (len(VOCABULARY) - 1)
            altered = type(one)(one.tensors | {"input_ids": changed}, one.mask, one.rows, one.special)
            if (run(module, altered)[0][0, last, heard] - base).abs().max() > 1e-3:
                moved.append(at)
        biases.copy_(lifted)
    assert 3 <= len(moved) <= 4  # two heads may pick the same place
    assert max(moved) <= last - 5


def test_removing_a_neuron_changes_exactly_the_outputs_it_is_said_to(planted):
    module, truth, seen = planted
    batch, documents, logits = seen["validate.0"]
    some = batch.select(list(range(16)))
    for v in truth.variables:
        _, without = run(module, some, silent=v.index)
        change = (logits[:16, : without.shape[1]] - without)[some.scored].double().numpy()
        act = np.concatenate([a[1:, v.index] for _, a in documents[:16]])
        expected = np.zeros(len(VOCABULARY))
        if v.effect:
            expected[v.effect["raises"]] = v.effect["raises_by"]
            expected[v.effect["lowers"]] = v.effect["lowers_by"]
            assert len(set(v.effect["raises"] + v.effect["lowers"])) == 16
            assert min(v.effect["raises_by"]) >= 0.5 and max(v.effect["lowers_by"]) <= -0.5
            assert v.effect["raises_by"] == sorted(v.effect["raises_by"], reverse=True)
            assert v.effect["lowers_by"] == sorted(v.effect["lowers_by"])
        assert np.abs(change - act[:, None] * expected).max() < 1e-3


def test_without_neurons_the_logits_are_log_frequencies(planted):
    module, _, seen = planted
    batch, documents, logits = seen["explore"]
    act, _ = run(module, batch)
    quiet = (act.abs().sum(-1) == 0) & batch.scored
    assert quiet.any()
    share = logits[quiet].softmax(dim=-1).mean(dim=0)
    counts = Counter(t for ids, _ in documents for t in ids[1:])
    seen_share = np.array([counts[t] for t in range(len(VOCABULARY))]) / counts.total()
    assert np.corrcoef(share.numpy(), seen_share)[0, 1] > 0.97


def test_every_sort_of_neuron_is_there_and_in_no_order(planted):
    _, truth, _ = planted
    sorts = [v.parameters["sort"] for v in truth.variables]
    assert Counter(sorts) == SORTS and sum(SORTS.values()) == 48
    assert sorts != sorted(sorts, key=list(SORTS).index)
    for v in truth.variables:
        sort = v.parameters["sort"]
        readable = sort.split()[0] in ("token", "context", "noisy", "silent")
        assert v.kind == ("token-rule" if readable else "nothing")
        assert bool(v.effect) == (sort not in ("silent", "noise", "dead"))
        assert BOS not in v.parameters.get("current", [])


def test_dead_neurons_have_output_weights_that_mislead(planted):
    module, truth, _ = planted
    for v in rules(truth, "dead"):
        assert module.model.layers[0].mlp.down_proj.weight[:, v.index].norm() > 0.5
    for v in rules(truth, "silent", "noise"):
        assert module.model.layers[0].mlp.down_proj.weight[:, v.index].norm() == 0


# --- documents ---


def test_documents_differ_by_topic_and_shifted_ones_are_on_topics_of_their_own():
    language = Language.of(0)
    documents = [language.document("explore", i) for i in range(200)]
    lengths = [len(d) - 1 for d in documents]
    assert SHORTEST <= min(lengths) < 30 and 110 < max(lengths) <= LONGEST
    assert all(d[0] == BOS and (d[1:] != BOS).all() and d.max() < len(VOCABULARY) for d in documents)
    likely = np.log(language.topics[:, 1:])

    def topic(document):
        return int(np.argmax(likely[:, document[1:] - 1].sum(axis=1)))

    assert Counter(map(topic, documents)).keys() >= set(range(6))
    unseen = [topic(language.document("shift", i)) for i in range(60)]
    assert np.mean([t >= 6 for t in unseen]) > 0.9
    assert np.mean([topic(d) >= 6 for d in documents]) < 0.1


def test_token_frequencies_follow_zipf():
    frequency = np.sort(Language.of(3).frequency[1:])[::-1]
    assert frequency.sum() == pytest.approx(1.0)
    assert 8 < frequency[0] / frequency[-1] < 40
