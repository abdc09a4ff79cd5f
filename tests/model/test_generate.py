"""Generation: the same tokens as transformers, and the same rules of editing as a pass."""

import pytest
import torch

from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.model import edits as e
from prosect.model.model import Model

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_greedy_generation_is_that_of_transformers(opened, name):
    model = opened(name)
    made = model.generate(PROMPTS, max_new_tokens=6, stop=[])
    for prompt, new in zip(PROMPTS, made.tokens, strict=True):
        theirs = model.module.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=6, min_new_tokens=6, pad_token_id=0,
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long), eos_token_id=None,
        )  # fmt: skip
        assert list(new) == theirs[0, len(prompt) :].tolist()
    assert made.prompts == ((1, 2, 3), (4, 5, 6, 7, 8))
    assert made.text is None


def test_a_row_s_draws_depend_on_its_number_and_the_seed_alone(opened):
    model = opened("gpt2")
    both = model.generate(PROMPTS, max_new_tokens=8, temperature=2.0, seed=1, stop=[])
    assert (
        both.tokens[0]
        == model.generate(PROMPTS[:1], max_new_tokens=8, temperature=2.0, seed=1, stop=[]).tokens[0]
    )
    assert both == model.generate(PROMPTS, max_new_tokens=8, temperature=2.0, seed=1, stop=[])
    assert both != model.generate(PROMPTS, max_new_tokens=8, temperature=2.0, seed=2, stop=[])
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model.generate(PROMPTS, max_new_tokens=2, temperature=1.0)
    assert torch.equal(state, torch.get_rng_state())


def test_sampling_follows_the_softmax(opened):
    model = opened("gpt2")
    logits = model.run([PROMPTS[0]]).output[0, 2].double()
    expected = (logits / 1.5).softmax(0)
    made = model.generate([PROMPTS[0]] * 2000, max_new_tokens=1, temperature=1.5, stop=[])
    counts = torch.bincount(torch.tensor(made.tokens).flatten(), minlength=50).double()
    keep = expected > 0.01
    spread = (2000 * expected * (1 - expected)).sqrt()
    assert ((counts - 2000 * expected).abs()[keep] < 5 * spread[keep]).all()


def test_positions_stay_with_the_prompt(opened):
    model, v = opened("llama"), torch.full((32,), 3.0)
    from_end = model.generate(PROMPTS, [e.steer("resid_post.0", v, positions=[-1])], 5, stop=[])
    by_number = model.generate(PROMPTS, [e.steer("resid_post.0", v, positions=[[2], [4]])], 5, stop=[])
    assert from_end == by_number
    ids = list(PROMPTS[0])
    for token in from_end.tokens[0]:
        trace = model.run([ids], [], [e.steer("resid_post.0", v, positions=[2])])
        assert token == int(trace.output[0, -1].argmax())
        ids.append(token)


@pytest.fixture
def eager_for_seven(network):
    """A model and a direction under which token 7 is the most likely."""
    module = network("gpt2")
    with torch.no_grad():
        module.transformer.wte.weight[7] *= 4
    module.generation_config.eos_token_id = 7
    model = Model.of(module, check=False)
    return model, model.unembedding[7] * 50


def test_an_edit_without_positions_goes_on(eager_for_seven):
    model, direction = eager_for_seven
    steered = model.generate(PROMPTS, [e.steer("resid_post.1", direction)], 4, stop=[])
    assert steered.tokens == ((7,) * 4,) * 2
    once = model.generate(PROMPTS, [e.steer("resid_post.1", direction, positions=[-1])], 4, stop=[])
    assert all(row[0] == 7 for row in once.tokens)
    assert once != steered
    one = model.generate(PROMPTS, [e.steer("resid_post.1", direction, rows=[1])], 4, stop=[])
    assert one.tokens[1] == (7,) * 4
    assert one.tokens[0] == model.generate(PROMPTS, max_new_tokens=4, stop=[]).tokens[0]


def test_rows_stop_at_their_own_end(opened, eager_for_seven):
    model = opened("gpt2")
    free = model.generate(PROMPTS, max_new_tokens=6, stop=[])
    end = free.tokens[0][2]
    stopped = model.generate(PROMPTS, max_new_tokens=6, stop=[end])
    assert stopped.tokens[0] == free.tokens[0][: free.tokens[0].index(end) + 1]
    cut = free.tokens[1].index(end) + 1 if end in free.tokens[1] else 6
    assert stopped.tokens[1] == free.tokens[1][:cut]
    model, direction = eager_for_seven
    steered = model.generate(PROMPTS, [e.steer("resid_post.1", direction, rows=[0])], 5)
    assert steered.tokens[0] == (7,)  # what the model's own settings end a text with


def test_equal_logits_give_the_lowest_token(network):
    module = network("gpt2")
    with torch.no_grad():
        module.transformer.wte.weight.zero_()
    assert Model.of(module).generate([[1]], max_new_tokens=2, stop=[]).tokens == ((0, 0),)


def test_generation_that_cannot_be(opened, small, tokens):
    model = opened("gpt2")
    with pytest.raises(BadInput, match="no more than 32 positions"):
        model.generate([[1] * 30], max_new_tokens=4)
    assert len(model.generate([[1] * 30], max_new_tokens=3, stop=[]).tokens[0]) == 3
    with pytest.raises(BadInput, match="temperature -1"):
        model.generate(PROMPTS, temperature=-1.0)
    with pytest.raises(BadInput, match="3 real positions"):
        model.generate(PROMPTS, [e.zero("z.0", positions=[3])])
    with pytest.raises(BadInput, match="3 real positions"):
        model.generate(PROMPTS, [e.zero("z.0", positions=[-4])])
    with pytest.raises(ShapeMismatch):
        model.generate(PROMPTS, [e.patch("resid_pre.0", torch.zeros(2, 5, 32))])
    with pytest.raises(Unsupported, match="causal language model"):
        opened("bert").generate(PROMPTS)
    with pytest.raises(Unsupported, match="causal language model"):
        small("mlp")[0].generate(small("mlp")[1])
    assert "generated" in model.generate(PROMPTS, max_new_tokens=1)._repr_html_()
