"""Opening: every way in, and every way that is refused."""

import json
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import PreTrainedTokenizerFast

from prosect.core import progress
from prosect.core.errors import BadInput, UnknownName, UnsafeFile
from prosect.core.registries import ORGANISMS
from prosect.core.truth import Truth
from prosect.model.load import load
from prosect.model.model import Model


@pytest.fixture
def folder(network, tmp_path):
    network("llama").save_pretrained(tmp_path / "tiny-llama")
    return tmp_path / "tiny-llama"


def with_pickles(folder, network, sharded=False):
    (folder / "model.safetensors").unlink()
    torch.save(network("llama").state_dict(), folder / "pytorch_model.bin")
    if sharded:
        (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00001.bin")
        index = {
            "metadata": {},
            "weight_map": dict.fromkeys(network("llama").state_dict(), "pytorch_model-00001-of-00001.bin"),
        }
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_a_folder_without_a_tokenizer(folder, network, tokens):
    model = load(folder, device="cpu")
    assert model.name == "tiny-llama"
    assert model.tokenizer is None
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    with torch.no_grad():
        expected = network("llama")(tokens()).logits
    assert torch.equal(model.run(tokens()).output, expected)
    assert not model.module.training
    assert load(str(folder)).digest == model.digest == Model.of(network("llama")).digest


def test_a_folder_with_a_tokenizer_reads_text(folder):
    words = {"[UNK]": 0, "one": 1, "two": 2, "three": 3}
    tokenizer = Tokenizer(WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    model = load(folder)
    batch = model.batch(["one two three", "two"])
    assert batch.tensors["input_ids"].tolist() == [[1, 2, 3], [2, 0, 0]]
    assert batch.mask.tolist() == [[True] * 3, [True, False, False]]
    assert batch.rows[1].document == "two"
    assert torch.equal(model.run("one two").output, model.run([[1, 2]]).output)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="tokenizer"):
        load(folder)


def test_dtype_and_device(folder):
    assert load(folder, dtype="bfloat16").dtype == torch.bfloat16
    assert load(folder, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(BadInput, match="float32"):
        load(folder, dtype="int8")
    with pytest.raises(BadInput, match="nonsense"):
        load(folder, device="nonsense")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what it chose without a GPU")
def test_auto_says_what_it_chose(folder, capsys):
    with progress.shown():
        load(folder)
    assert "device: " in capsys.readouterr().err
    with pytest.raises(BadInput, match="without CUDA"):
        load(folder, device="cuda")


@pytest.mark.parametrize("sharded", [False, True])
def test_pickled_weights_are_refused_unless_allowed(folder, network, tokens, sharded):
    with_pickles(folder, network, sharded)
    with pytest.raises(UnsafeFile, match="allow_pickle"):
        load(folder)
    model = load(folder, allow_pickle=True)
    with torch.no_grad():
        assert torch.equal(model.run(tokens()).output, network("llama")(tokens()).logits)


def test_a_pickle_beside_safetensors_is_not_read(folder, tokens):
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    (folder / "training_args.pt").write_bytes(b"nor this")
    assert load(folder).run(tokens()).output.shape == (3, 7, 50)


def test_an_index_that_leads_out_of_its_folder_is_refused(folder):
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "x.safetensors").write_bytes(b"")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeFile, match="leads out"):
        load(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(BadInput, match="no index"):
        load(folder)


def test_weights_that_are_missing_are_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"without weights that fit model\.layers\.1\.mlp\.up_proj"):
        load(folder)


def test_a_model_that_comes_with_code_is_refused_unless_trusted(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text(
        "from transformers import LlamaForCausalLM\n\nclass Own(LlamaForCausalLM):\n    ran = True\n"
    )
    with pytest.raises(UnsafeFile, match=r"modeling\.Own.*trust_remote_code"):
        load(folder)
    assert load(folder, trust_remote_code=True).module.ran


def test_places_where_no_model_is(folder, tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="does not exist"):
        load("./nowhere/at/all")
    with pytest.raises(BadInput, match="which is a file"):
        load(folder / "config.json")
    with pytest.raises(BadInput, match="neither a folder here nor a model the hub gives"):
        load("nobody/nothing-of-this-name")
    with pytest.raises(BadInput, match="cannot open"):
        (folder / "model.safetensors").write_bytes(b"cut short")
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="without weights"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match=r"without config\.json"):
        load(folder)


def test_an_encoder_opens_as_what_its_configuration_names(network, tmp_path):
    network("bert").save_pretrained(tmp_path)
    model = load(tmp_path)
    assert type(model.module).__name__ == "BertModel"
    assert "resid_post.1" in model.sites
    assert not model.is_language_model


def test_an_organism_is_built_by_name_and_its_truth_stays_out(network, monkeypatch):
    room = types.ModuleType("a_room")
    room.build = lambda seed: (Model.of(network("decoder", seed), name="toy", check=False), Truth("toy"))
    monkeypatch.setitem(sys.modules, "a_room", room)
    monkeypatch.setitem(ORGANISMS._where, "toy", "a_room:build")
    model = load("organism:toy", seed=3)
    assert isinstance(model, Model)
    assert model.digest == load("organism:toy", seed=3, device="cpu").digest
    assert model.digest != load("organism:toy").digest
    assert load("organism:toy", dtype="float64").dtype == torch.float64
    with pytest.raises(UnknownName, match="toy"):
        load("organism:toi")


def test_a_module_in_memory(network, tokens):
    module = network("gpt2").train()
    model = load(module)
    assert model.module is module
    assert module.training
    assert model.sites.names()
    linear = nn.Linear(3, 2)
    assert load(linear, inputs=torch.ones(4, 3)).run(torch.ones(1, 3)).output.shape == (1, 2)
    assert load(linear, inputs={"input": torch.ones(4, 3)}).example.tensors.keys() == {"input"}
    assert load(linear, inputs=torch.ones(1, 3).double(), dtype="float64").dtype == torch.float64
    with pytest.raises(BadInput, match="example inputs"):
        load(linear)
    with pytest.raises(BadInput, match="rows"):
        load(linear, inputs=torch.ones(0, 3))
