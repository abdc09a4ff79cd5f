"""The model as an object: its digest, its sizes, what it shows of itself."""

import torch

from prosect.model.model import Model


def test_the_digest_sees_weights_configuration_and_dtype(network):
    model = Model.of(network("gpt2"), check=False)
    assert model.digest == Model.of(network("gpt2"), name="another name", check=False).digest
    assert model.digest != Model.of(network("gpt2", seed=1), check=False).digest
    assert model.digest != Model.of(network("gpt2").double(), check=False).digest
    other = network("gpt2")
    other.config.scale_attn_weights = False
    assert model.digest != Model.of(other, check=False).digest
    one, two = (Model.of(torch.nn.Linear(3, 2), inputs=torch.ones(1, 3)) for _ in range(2))
    assert one.digest != two.digest
    two.module.load_state_dict(one.module.state_dict())
    del two.__dict__["digest"]
    assert one.digest == two.digest


def test_sizes_are_those_of_the_model(opened, small):
    llama = opened("llama")
    assert (llama.n_layers, llama.d_model, llama.n_heads, llama.d_head) == (2, 32, 4, 8)
    assert (llama.vocab_size, llama.max_positions) == (50, 32)
    assert llama.is_language_model
    mlp = small("mlp")[0]
    assert (mlp.n_layers, mlp.d_model, mlp.n_heads, mlp.vocab_size, mlp.max_positions) == (None,) * 5
    assert opened("gemma2").max_positions == 32


def test_what_is_shown_is_escaped_and_needs_no_script(network):
    model = Model.of(network("neox"), name="<script>alert(1)</script>")
    shown = model._repr_html_()
    assert "<script" not in shown
    assert "2 named sites are refused" in shown
    assert "model.sites" in shown
    assert "34" not in repr(model)
    assert "<script" not in model.report._repr_html_()
    assert "<script" not in model.sites._repr_html_()


def test_a_batch_of_anything(opened, small, tokens):
    model = opened("gpt2")
    ids = tokens()
    made = [model.batch(given) for given in (ids, {"input_ids": ids}, ids.tolist(), model.batch(ids))]
    for batch in made:
        assert torch.equal(batch.tensors["input_ids"], ids)
        assert bool(batch.mask.all())
        assert len(batch) == 3
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    assert model.batch({"input_ids": ids, "attention_mask": mask}).lengths.tolist() == [4, 7, 7]
    mlp, x = small("mlp")
    assert mlp.batch(x).mask is None
