"""The tuned lens: an affine map for each layer, trained so that the model's own last norm and unembedding read it well.

Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens", section 3. Early
layers write in bases that drift from layer to layer; a lens that is allowed to translate says what they hold
rather than how they write it. The map starts as the identity, so an untrained lens is the logit lens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from prosect.core.canonical import Json, digest
from prosect.core.errors import BadInput, OutOfScope, ShapeMismatch
from prosect.core.markup import card
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.lens.lens import LogitLens
from prosect.describe.lens.reading import LensReading, read
from prosect.describe.lens.targets import Targets
from prosect.model.model import Model
from prosect.store.tensors import load_tensors, save_tensors

KIND = "tuned-lens"
VERSION = 1


@dataclass(frozen=True)
class Translator:
    """The map of one site: x → x + A x + b.

    Attributes:
        weight: A, (d_model, d_model), float32.
        bias: b, (d_model,), float32.
    """

    weight: Float[Tensor, "d_model d_model"]
    bias: Float[Tensor, " d_model"]

    def __call__(self, x: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b d_model"]:
        """The stream translated, in the stream's dtype."""
        wide = x.float()
        return (wide + wide @ self.weight.to(x.device).T + self.bias.to(x.device)).to(x.dtype)


@dataclass(frozen=True, eq=False)
class TunedLens:
    """Translators of some sites of one model. Make one with `training.fit`, or `load` one.

    Attributes:
        translators: by canonical site.
        model: digest of the model's configuration and weights.
        about: how it was trained: steps, positions, rates, seed, number of documents.
        losses: mean KL(model ‖ lens) over the last tenth of training, nats, by site; on what it was trained on.
        documents: digests of the documents that it has seen.
    """

    translators: Mapping[str, Translator]
    model: str
    about: Mapping[str, Json] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    documents: frozenset[str] = field(default=frozenset(), repr=False)
    name: str = "tuned lens"

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that it can read."""
        return tuple(self.translators)

    def translate(self, site: str, x: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b d_model"]:
        """The stream at ``site`` translated.

        Raises:
            BadInput: it has no translator for the site.
        """
        if site not in self.translators:
            raise BadInput(f"site {site} through a {self.name}", ", ".join(self.translators))
        return self.translators[site](x)

    def shuffled(self, seed: int = 0) -> TunedLens:
        """A control: every site gets the translator of another one.

        Raises:
            BadInput: there is only one.
        """
        if len(self.translators) < 2:
            raise BadInput("one translator to shuffle", "two or more sites")
        order = Seed(seed).child("shuffled lens").numpy().permutation(len(self.sites)).tolist()
        after = {
            order[i]: order[(i + 1) % len(order)] for i in range(len(order))
        }  # a cycle keeps none in place
        names = self.sites
        moved = {names[i]: self.translators[names[after[i]]] for i in range(len(names))}
        return TunedLens(moved, self.model, self.about, {}, self.documents, f"{self.name} of other layers")

    def unseen(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, refused at the first row of a document that the lens was trained on.

        Raises:
            BadInput: such a row.
        """
        for batch in batches:
            for row, key in enumerate(document_keys(batch)):
                if key in self.documents:
                    name = batch.rows[row].document or f"the tokens of row {row}"
                    raise BadInput(
                        f"{name[:60]!r}, which the {self.name} was trained on",
                        "documents that it has not seen",
                        "the validate split",
                    )
            yield batch

    def save(self, path: Path | str) -> None:
        """Write it as safetensors, atomically.

        Raises:
            BadInput: the disk is full.
        """
        tensors = {f"weight.{s}": t.weight for s, t in self.translators.items()}
        tensors |= {f"bias.{s}": t.bias for s, t in self.translators.items()}
        save_tensors(
            Path(path),
            tensors,
            {
                "kind": KIND,
                "version": VERSION,
                "model": self.model,
                "sites": list(self.sites),
                "about": dict(self.about),
                "losses": dict(self.losses),
                "documents": sorted(self.documents),
                "name": self.name,
            },
        )

    def _repr_html_(self) -> Markup:
        rows: list[tuple[str, object]] = [
            (s, f"KL {loss:.3g} in training") for s, loss in self.losses.items()
        ]
        return card(
            self.name, rows, "What it was trained on; the measured figure comes from other documents."
        )


def load(path: Path | str, model: Model) -> TunedLens:
    """Read a lens, for the model that it was trained on.

    Raises:
        BadInput: the file is missing, unreadable or no lens.
        OutOfScope: it was trained on another model.
        ShapeMismatch: its tensors do not fit its sites.
    """
    tensors, about = load_tensors(Path(path))
    if not isinstance(about, dict) or about.get("kind") != KIND or about.get("version") != VERSION:
        raise BadInput(f"{path}, which holds no tuned lens of version {VERSION}", "what TunedLens.save wrote")
    if about["model"] != model.digest:
        raise OutOfScope(
            f"a tuned lens of another model ({about['model'][:12]}) for {model.name} ({model.digest[:12]})",
            "the model that it was trained on, weight for weight",
            "training one for this model",
        )
    translators = {}
    for site in about["sites"]:
        weight, bias = tensors.get(f"weight.{site}"), tensors.get(f"bias.{site}")
        width = model.d_model
        if weight is None or bias is None or tuple(weight.shape) != (width, width):
            raise ShapeMismatch(
                f"a translator of {site} that does not fit", f"({width}, {width}) and ({width},)"
            )
        translators[site] = Translator(weight, bias)
    return TunedLens(
        translators,
        about["model"],
        about["about"],
        about["losses"],
        frozenset(about["documents"]),
        about["name"],
    )


def evaluate(
    model: Model,
    lens: TunedLens,
    held_out: Iterable[Batch],
    *,
    targets: Targets = "next",
    seed: int = 0,
    shown: int = 4,
    top: int = 5,
) -> LensReading:
    """A tuned lens beside the logit lens on documents that it has not seen, paired position by position.

    Args:
        model: the model it was trained on.
        lens: trained.
        held_out: documents that it was not trained on.
        targets, seed, shown, top: as in `reading.read`.

    Raises:
        OutOfScope: the lens is another model's.
        BadInput: a document that it was trained on.
    """
    if lens.model != model.digest:
        raise OutOfScope(
            f"a tuned lens of another model for {model.name}", "the model that it was trained on"
        )
    return read(
        model,
        lens.unseen(held_out),
        lens,
        sites=lens.sites,
        against=LogitLens(),
        targets=targets,
        seed=seed,
        shown=shown,
        top=top,
    )


def document_keys(batch: Batch) -> list[str]:
    """What tells the document of each row: its name, or its tokens where it has none."""
    out = []
    for i, row in enumerate(batch.rows):
        tokens: Sequence[int] = batch.tensors["input_ids"][i].tolist()
        if batch.mask is not None:
            tokens = [t for t, real in zip(tokens, batch.mask[i].tolist(), strict=True) if real]
        out.append(digest({"document": row.document} if row.document else {"tokens": list(tokens)})[:24])
    return out
