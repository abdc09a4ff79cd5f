"""Where Triton cannot run torch does, and it is said and recorded which one ran."""

import sys

import pytest
import torch

from prosect.core.errors import BadInput, Conflict, Unsupported
from prosect.core.progress import shown
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.fit_record import read_record
from prosect.decompose.fitting import Harvesting, fit_dictionaries
from prosect.decompose.fused.products import Fused, obstacle
from prosect.decompose.products import PLAIN, Products, products_for
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from traced import Model as TracedModel
from traced import Text


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def with_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", sys)  # something that can be imported
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def dictionary(**recipe):
    return Dictionary("resid_post.0", 8, TopK(2), recipe=Recipe(batch=16, start_rows=60, **recipe))


def test_on_a_cpu_torch_makes_them_and_there_is_nothing_to_say(without):
    assert products_for(Recipe(), "cpu") == PLAIN == Products(False, "")
    assert products_for(Recipe(precision="bfloat16"), "cpu") == Products(True)
    assert PLAIN.words == "torch in float32" and Products(True).words == "torch in bfloat16"
    assert Products(True).precise == PLAIN


def test_on_a_gpu_without_triton_torch_makes_them_and_says_why(without):
    made = products_for(Recipe(precision="bfloat16"), "cuda")
    assert type(made) is Products and made.short
    assert "Triton cannot be imported" in made.why
    assert products_for(Recipe(kernels="torch"), "cuda") == PLAIN


def test_what_was_asked_for_by_name_is_refused_where_it_cannot_be(without):
    with pytest.raises(
        Unsupported, match=r"Triton's kernels on cpu: Triton cannot be imported.*kernels=auto"
    ):
        products_for(Recipe(kernels="triton"), "cpu")


def test_a_cpu_is_an_obstacle_and_the_interpreter_is_none(with_it, monkeypatch):
    assert obstacle(torch.device("cpu")) == "it is no CUDA device"
    with pytest.raises(Unsupported, match="it is no CUDA device"):
        dictionary(kernels="triton").fit(ArrayStream({"resid_post.0": torch.zeros(32, 4)}))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert obstacle(torch.device("cpu")) is None
    assert products_for(Recipe(kernels="triton"), "cpu") == Fused()
    assert products_for(Recipe(), "cpu") == PLAIN  # nobody wants to wait for it unasked
    assert Fused(True).words == "Triton in bfloat16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there_is_an_obstacle(with_it):
    assert obstacle(torch.device("cuda")) == "torch finds no CUDA device"


@pytest.mark.parametrize(
    ("name", "word", "known"),
    [("precision", "bf16", "'float32' or 'bfloat16'"), ("kernels", "cuda", "'auto', 'torch' or 'triton'")],
)
def test_unknown_words_are_refused(name, word, known):
    recipe = object.__new__(Recipe)  # tests check types of arguments before a recipe can
    vars(recipe).update(vars(Recipe()), **{name: word})
    with pytest.raises(BadInput, match=f"{name} = '{word}'.*{known}"):
        recipe.__post_init__()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_fit_says_and_records_what_made_its_products(without, tmp_path, capsys, precision):
    made = {"one": dictionary(precision=precision), "two": dictionary(precision=precision)}
    with shown():
        done = fit_dictionaries(
            TracedModel(), Text(), made, tmp_path / "fit", 120, harvesting=Harvesting(rows=4)
        )
    words = f"torch in {precision}"
    assert [d["products"] for d in read_record(tmp_path / "fit")["dictionaries"]] == [words] * 2
    assert all(d.facts_["products"] == words for d in done.dictionaries.values())
    said = capsys.readouterr().err.count(f"topk@resid_post.0 on cpu: products by {words}")
    assert said == (2 if precision == "bfloat16" else 0)
    assert "prosect.decompose.fused.kernels" not in sys.modules  # Triton is left alone where it is not used


def test_a_training_is_not_gone_on_with_by_others(tmp_path, monkeypatch):
    """They round otherwise: the numbers would be neither's."""
    x = torch.randn(96, 4, generator=Seed(0).torch())
    stream = ArrayStream({"resid_post.0": x})

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    monkeypatch.setattr("prosect.decompose.train.finished", stop)
    with pytest.raises(Stop):
        dictionary().fit(stream, tmp_path, 2)
    monkeypatch.setattr("prosect.decompose.trainer.products_for", lambda *_: Fused())
    with pytest.raises(Conflict, match="products"):
        dictionary().fit(stream, tmp_path, 2)
