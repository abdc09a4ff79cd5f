"""What is saved comes back with the same codes and reconstructions, in every format that can hold it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from prosect.core.errors import BadInput, Conflict, ShapeMismatch, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.pretrained import import_dictionary, load_dictionary, save_dictionary
from prosect.decompose.sparsity import Threshold, TopK

READ, LATENTS, ROWS = 6, 14, 50
SHAPES = {
    "autoencoder": ("resid_post.3", None, False),
    "transcoder": ("mlp_in.3", "mlp_out.3", False),
    "skip transcoder": ("mlp_in.3", "mlp_out.3", True),
    "autoencoder with a skip": ("resid_post.3", None, True),
}
CENTRES = ("none", "the offset", "another")
FIRING = {"relu": (Threshold(), False), "jumprelu": (Threshold(), True), "topk": (TopK(3), False)}
HOLDS = {
    "saelens": {(s, f) for s in SHAPES for f in FIRING if s != "autoencoder with a skip"}
    - {("transcoder", "topk"), ("skip transcoder", "topk")},
    "sparsify": {(s, "topk") for s in SHAPES},
    "gemma_scope": {(s, f) for s in ("autoencoder", "transcoder") for f in ("relu", "jumprelu")},
    "prosect": {(s, f) for s in SHAPES for f in FIRING},
}


def dictionary(shape="autoencoder", firing="relu", centre="the offset", sites=None, dtype=torch.float32):
    g = Seed(0).child("round trip", shape, firing, centre).torch()
    site, target, skip = SHAPES[shape]
    site, target = sites or (site, target)
    sparsity, thresholds = FIRING[firing]

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    offset = draw(READ)
    weights = Weights(
        draw(LATENTS, READ),
        draw(LATENTS),
        {"none": torch.zeros_like(offset), "the offset": offset.clone(), "another": draw(READ)}[centre],
        draw(LATENTS, READ),
        offset,
        draw(READ, READ) if skip else None,
        draw(LATENTS) if thresholds else None,
    )
    made = Dictionary(site, LATENTS, sparsity, target, skip=skip)
    return made.with_weights(weights, {site: READ, target or site: READ})


def same(one, other, atol=1e-6):
    g = Seed(0).child("round trip", "x").torch()
    x = torch.randn(ROWS, READ, generator=g)
    before, after = one.encode({one.reads[0]: x}), other.encode({other.reads[0]: x})
    size = max(1.0, float(before.values.abs().max()))
    assert torch.allclose(before.dense(), after.dense(), rtol=0, atol=atol * size)
    y, z = (d.reconstruct({d.reads[0]: x})[d.writes[0]] for d in (one, other))
    assert torch.allclose(y, z, rtol=0, atol=atol * max(1.0, float(y.abs().max())))


@pytest.mark.parametrize("format", HOLDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("firing", FIRING)
def test_it_comes_back_or_is_refused(tmp_path, format, shape, firing):
    for centre in CENTRES:
        made = dictionary(shape, firing, centre)
        folder = tmp_path / centre
        if (shape, firing) not in HOLDS[format]:
            with pytest.raises(Unsupported, match=r'format="(prosect|saelens|sparsify)"'):
                save_dictionary(folder, made, format)
            assert list(tmp_path.iterdir()) == []
            continue
        assert save_dictionary(folder, made, format) == folder
        where = {"sites": made.reads, "targets": made.writes} if format == "gemma_scope" else {}
        found = import_dictionary(folder, **where)  # that one has no room for sites
        assert found.format == format
        back = found.dictionary
        assert (back.reads, back.writes) == (made.reads, made.writes)
        same(made, back)


def test_prosects_own_is_to_the_bit_and_holds_several_sites(tmp_path):
    g = Seed(0).child("crosscoder").torch()
    weights = Weights(*(torch.randn(*s, generator=g) for s in ((7, 5), (7,), (5,), (7, 5), (5,))))
    made = Dictionary(("a", "b"), 7, TopK(2)).with_weights(weights, {"a": 2, "b": 3})
    back = load_dictionary(save_dictionary(tmp_path / "d", made, "prosect"))
    for name, tensor in made.state()[0].items():
        assert torch.equal(tensor, back.state()[0][name])
    assert (back.reads, back.widths_, back.sparsity) == (made.reads, made.widths_, made.sparsity)
    for format in ("saelens", "sparsify", "gemma_scope"):
        with pytest.raises(Unsupported, match="several sites"):
            save_dictionary(tmp_path / "e", made, format)
    with pytest.raises(Unsupported, match="as it was saved"):
        load_dictionary(tmp_path / "d", sites="c")


def test_one_tensor_in_two_places_is_saved_twice(tmp_path):
    """A centre that is the offset, as a tied bias is."""
    one = torch.randn(READ, generator=Seed(0).child("tied").torch())
    table = torch.eye(LATENTS, READ)
    weights = Weights(table, torch.zeros(LATENTS), one, table, one)
    made = Dictionary("x", LATENTS, TopK(2)).with_weights(weights, {"x": READ})
    for format in ("prosect", "saelens", "sparsify"):
        same(made, load_dictionary(save_dictionary(tmp_path / format, made, format)))


def test_one_from_another_device_is_loaded_here(tmp_path):
    made = dictionary("skip transcoder", "jumprelu")
    made.device, made.history_ = "cuda", [{"step": 1}]  # what a machine with a GPU leaves
    back = load_dictionary(save_dictionary(tmp_path / "d", made, "prosect"))
    assert (back.device, back.history_) == ("cpu", [{"step": 1}])
    same(made, back, atol=0)


def test_float64_stays_float64(tmp_path):
    made = dictionary("autoencoder", "jumprelu", "the offset", dtype=torch.float64)
    save_dictionary(tmp_path / "d", made)
    back = load_dictionary(tmp_path / "d")
    assert back.encoder_.dtype == torch.float64
    assert torch.equal(back.encoder_, made.encoder_)


def test_what_saelens_reads_of_a_folder(tmp_path):
    """The keys that its version 6 looks for, and the version without which it takes the folder for an older one."""
    metadata = {"model_name": "gpt2", "dataset_path": "some/text", "context_size": 128, "mine": [1, 2]}
    save_dictionary(tmp_path / "d", dictionary("autoencoder", "topk"), metadata=metadata)
    config = json.loads((tmp_path / "d" / "cfg.json").read_text())
    expected = {
        "architecture": "topk",
        "d_in": READ,
        "d_sae": LATENTS,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "k": 3,
        "rescale_acts_by_decoder_norm": False,
    }
    assert {name: value for name, value in config.items() if name != "metadata"} == expected
    about = config["metadata"]
    assert int(about["sae_lens_version"].split(".")[0]) >= 6
    assert about["hook_name"] == "blocks.3.hook_resid_post"
    assert {name: about[name] for name in metadata} == metadata
    tensors = load_file(tmp_path / "d" / "sae_weights.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "W_enc": (READ, LATENTS),
        "b_enc": (LATENTS,),
        "W_dec": (LATENTS, READ),
        "b_dec": (READ,),
    }
    assert import_dictionary(tmp_path / "d").metadata == about


@pytest.mark.parametrize(
    ("sites", "hook", "head", "reshaped"),
    [
        (("z.5", None), "blocks.5.attn.hook_z", None, "hook_z"),
        (("z.5.h2", None), "blocks.5.attn.hook_z", 2, "none"),
        (("final_norm", None), "unembed.hook_in", None, "none"),
        (("path.of.a.module", None), "path.of.a.module", None, "none"),
        (("q.1.h0", None), "blocks.1.attn.hook_rot_q", 0, "none"),
    ],
)
def test_sites_survive(tmp_path, sites, hook, head, reshaped):
    save_dictionary(tmp_path / "d", dictionary(sites=sites))
    path = tmp_path / "d" / "cfg.json"
    config = json.loads(path.read_text())
    assert config["reshape_activations"] == reshaped
    assert (config["metadata"]["hook_name"], config["metadata"]["hook_head_index"]) == (hook, head)
    assert load_dictionary(tmp_path / "d").reads == sites[:1]
    del config["metadata"]["prosect"]  # by SAELens's names alone
    path.write_text(json.dumps(config))
    assert load_dictionary(tmp_path / "d").reads == sites[:1]
    assert load_dictionary(tmp_path / "d", sites="elsewhere").reads == ("elsewhere",)


def test_frequencies(tmp_path):
    made, shares = dictionary(), torch.linspace(0, 1, LATENTS) ** 4
    save_dictionary(tmp_path / "d", made, frequencies=shares)
    logs = load_file(tmp_path / "d" / "sparsity.safetensors")["sparsity"]
    assert torch.allclose(logs, torch.log10(shares + 1e-10), atol=1e-6)
    found = import_dictionary(tmp_path / "d").frequencies
    assert torch.allclose(found, shares, atol=1e-6)
    assert float(found[0]) == 0
    save_dictionary(tmp_path / "without", made)
    assert import_dictionary(tmp_path / "without").frequencies is None
    with pytest.raises(ShapeMismatch):
        save_dictionary(tmp_path / "e", made, frequencies=shares[1:])
    for bad in (-shares, shares + 0.5, shares * float("nan")):
        with pytest.raises(BadInput, match="0 to 1"):
            save_dictionary(tmp_path / "e", made, frequencies=bad)


def test_a_folder_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    made = dictionary()
    save_dictionary(tmp_path / "d", made)
    before = {p.name: p.read_bytes() for p in (tmp_path / "d").iterdir()}
    with pytest.raises(Conflict, match="holds something"):
        save_dictionary(tmp_path / "d", made)
    assert {p.name: p.read_bytes() for p in (tmp_path / "d").iterdir()} == before
    (tmp_path / "empty").mkdir()
    save_dictionary(tmp_path / "empty", made)
    same(made, load_dictionary(tmp_path / "empty"))
    from prosect.decompose.formats import saelens_write

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saelens_write, "write_json", full)  # after the weights are written
    with pytest.raises(BadInput, match="full disk"):
        save_dictionary(tmp_path / "f", made)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "empty"]


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(UnknownName, match="saelens"):
        save_dictionary(tmp_path / "d", dictionary(), "saelense")
    with pytest.raises(UnknownName):  # pickles are not written
        save_dictionary(tmp_path / "d", dictionary(), "dictionary_learning")
    for format in HOLDS:
        sparsity = Threshold() if format == "gemma_scope" else TopK(2)
        with pytest.raises(BadInput, match="not fitted"):
            save_dictionary(tmp_path / "d", Dictionary("x", 4, sparsity), format)
    wide = Weights(
        torch.ones(LATENTS, READ),
        torch.ones(LATENTS),
        torch.ones(READ),
        torch.ones(LATENTS, 2),
        torch.ones(2),
    )
    made = Dictionary("x", LATENTS, TopK(2), "y").with_weights(wide, {"x": READ, "y": 2})
    with pytest.raises(Unsupported, match="as many as it reads"):
        save_dictionary(tmp_path / "d", made, "sparsify")
    assert list(tmp_path.iterdir()) == []
