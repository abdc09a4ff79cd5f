"""A network opened for study."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from markupsafe import Markup
from torch import Tensor, nn

from prosect.core.canonical import digest, digest_tensors
from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.core.markup import card
from prosect.core.progress import say
from prosect.data.batch import Batch
from prosect.model import unembed
from prosect.model.anatomy import Anatomy
from prosect.model.edits import Edit
from prosect.model.entry import After, Blocks, blocks_of, entered
from prosect.model.exit import behind, cut, last_of, spread, taken
from prosect.model.forward import Forward
from prosect.model.inputs import Inputs, Right, as_batch, checked, example_for
from prosect.model.reads import Positions
from prosect.model.run import Passed, Runner
from prosect.model.sitemap import SiteMap
from prosect.model.survey import survey
from prosect.model.trace import Trace

if TYPE_CHECKING:
    from prosect.model.check import CheckReport
    from prosect.model.generate import Generation
    from prosect.model.placing import Placing
    from prosect.model.sweep import Swept

_VOLATILE = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache")


class Model:
    """A module, its tokenizer if it has one, and a map of its sites that it has proved.

    Make one with `prosect.load` or `Model.of`. Nothing about the module changes: neither mode nor
    ``requires_grad``, and no hook stays.

    Attributes:
        name: for people.
        module: the network itself.
        tokenizer: or None.
        sites: which names it has, what they are, which are refused and why.
        n_layers, d_model, n_heads, d_head, vocab_size, max_positions: sizes; None where meaningless.
        report: of the last self-check; None if there was none.
    """

    def __init__(self, module: nn.Module, name: str, example: Batch, tokenizer: Any | None = None) -> None:
        self.module, self.name, self.tokenizer = module, name, tokenizer
        self.example = example
        found: Anatomy = survey(module, example)
        self.n_layers, self.d_model = found.layers, found.d_model
        self.n_heads, self.d_head, self.vocab_size = found.heads, found.d_head, found.vocab
        self.max_positions = found.max_positions
        self.is_language_model = found.decoder
        self.sites = SiteMap(
            type(module).__name__,
            module,
            found.entries,
            found.refused,
            found.widths,
            found.traits,
            found.layers,
            found.starts,
        )
        self._norm, self._head = found.norm, found.head
        self.report: CheckReport | None = None
        self._right: Right | None = None
        self.runner = Runner(module, self.sites)

    @classmethod
    def of(
        cls,
        module: nn.Module,
        name: str = "",
        inputs: Inputs | None = None,
        tokenizer: Any | None = None,
        check: bool = True,
    ) -> Model:
        """Open a module that is already in memory.

        Args:
            module: any; sites with names are found on transformers models.
            name: for people; the class's name by default.
            inputs: what to open it with: a dict of tensors by forward keyword, a tensor, a Batch. A
                transformers model that reads tokens or pixels needs none.
            tokenizer: for text.
            check: prove the map of sites (`model.check`); sites that fail are refused by name.

        Raises:
            BadInput: inputs are needed, or do not fit the forward.
        """
        forward = Forward(module)
        example = example_for(module) if inputs is None else as_batch(inputs, forward, tokenizer)
        if len(example) == 0:
            raise BadInput("example inputs without rows", "at least one row")
        few = example.select(list(range(min(2, len(example)))))
        model = cls(module, name or type(module).__name__, few.to(_device(module)), tokenizer)
        if check:
            for line in model.check().lines():
                say(line)
        return model

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return _device(self.module)

    @property
    def dtype(self) -> torch.dtype:
        """Of its first floating parameter; float32 without one."""
        floating = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        return next(floating, torch.float32)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over configuration and named weights: the same wherever and under whatever name it lies."""
        config = getattr(self.module, "config", None)
        if config is not None and hasattr(config, "to_dict"):
            content = {k: v for k, v in config.to_dict().items() if k not in _VOLATILE}
            text = json.dumps(content, sort_keys=True, default=str)
        else:
            text = str(self.module)
        kind = type(self.module).__name__
        return digest({"class": kind, "config": text, "weights": digest_tensors(self.module.state_dict())})

    @cached_property
    def unembedding(self) -> Float[Tensor, "vocab d_model"] | None:
        """What reads the residual stream, divided by the last norm's scale, into logits.

        The norm's gain and centring are folded in; its bias adds the same to every input and is left out, as
        are a cap or a factor on the logits. None where there is none, or where the last norm has another form.
        """
        if self._norm is None or self._head is None or self.d_model is None:
            return None
        norm = unembed.measure(self._norm, self.d_model)
        return None if norm is None else unembed.folded(self._head, norm)

    def direct_effect(
        self, directions: Float[Tensor, "*n width"], centred: bool = True
    ) -> Float[Tensor, "*n vocab"]:
        """What directions in the residual stream add to the logits by themselves. See `unembed.direct_effect`.

        Raises:
            Unsupported: the model has no unembedding.
            ShapeMismatch: directions of another width.
        """
        if self.unembedding is None:
            raise Unsupported(f"direct effects in {self.name}", "a language model with an unembedding")
        return unembed.direct_effect(self.unembedding, directions, centred)

    def batch(self, inputs: Inputs) -> Batch:
        """A batch on the model's device: from text, token ids, tensors, or a batch.

        Raises:
            BadInput: a token outside the vocabulary, more positions than the model has, text without tokenizer.
            ShapeMismatch: tensors that disagree about the number of rows, padding on the left.
        """
        device = self.device
        if self._right is not None and isinstance(inputs, Batch) and self._right.holds(inputs, device):
            return inputs
        made = as_batch(inputs, self.runner.forward, self.tokenizer)
        right = checked(made, self._vocabulary, self.max_positions)
        here = all(
            t.device == device for t in (*right.tensors.values(), right.mask, right.special) if t is not None
        )
        right = right if here else right.to(device)
        self._right = Right(right, device)
        return right

    @property
    def _vocabulary(self) -> int | None:
        """Rows of the token embedding, which may be more than the vocabulary."""
        try:
            find: Any = self.module.get_input_embeddings
            table = find()
        except (AttributeError, NotImplementedError):
            return self.vocab_size
        return int(table.weight.shape[0]) if isinstance(table, nn.Embedding) else self.vocab_size

    def run(
        self,
        batch: Inputs,
        capture: Sequence[str] = (),
        edits: Sequence[Edit] = (),
        grad: bool = False,
        finite: bool = True,
        stop_early: bool = False,
        after: After | None = None,
        where: Bool[Tensor, "rows positions"] | None = None,
    ) -> Trace:
        """One pass: make edits, read sites.

        Captures are taken after all edits, by reference, on the model's device and in its dtype, detached
        unless ``grad``. A pass that touches the inside of attention (q, k, v, scores, probs) computes
        attention in the open, which agrees with the model's own kernel to rounding; any other pass is
        bit-identical to the model's own.

        Args:
            batch: a Batch, or anything `batch` takes.
            capture: names of sites.
            edits: see `prosect.model.edits`.
            grad: keep the graph, so that gradients with respect to every captured site can be taken.
            finite: refuse NaN and infinity in the output and in what is captured.
            stop_early: leave the pass once every captured site has been read; there is then no output.
            after: do not compute the blocks up to this one, whose output is given (see `can_enter`); sites
                inside them are not there. Edits at the given output itself are made.
            where: True at the real positions whose output is wanted, which is then (wanted, ...), row by row.
                What follows the last block is not computed elsewhere where the example proved that it need
                not be; it then agrees with a whole pass to rounding.

        Raises:
            UnknownName: no such site.
            Unsupported: a site that this model does not have.
            BadInput: a row, position or head that is not there; a site met more or less than once.
            ShapeMismatch: a value that does not fit its site.
            NotFinite: NaN or infinity at a real position; the site and its rows are named.
        """
        given = self.batch(batch)
        if after is None and where is None:
            return self.runner.trace(given, capture, edits, grad, finite, stop_early)
        touched = (*([capture] if isinstance(capture, str) else capture), *(e.site for e in edits))
        if where is not None:
            self._check_where(where, given)
        cuts = where is not None and not any(behind(self.sites.site(n), self.n_layers or 0) for n in touched)
        last = self._last if cuts else None
        with ExitStack() as stack:
            if after is not None:
                self._check_after(after, given, touched)
                stack.enter_context(entered(self._entered, after))
            if last is not None and where is not None:
                stack.enter_context(cut(last, where))
            skipped = 0 if after is None else after.layer + 1
            trace = self.runner.trace(
                given, capture, edits, grad, finite and last is None, stop_early, skipped
            )
        if where is None or trace._output is None:
            return trace
        out = taken(trace._output, where)
        if finite and last is not None:
            self.runner.check_finite(Passed(dict(trace.values), spread(out, where), False), given)
        return replace(trace, _output=out)

    @property
    def can_enter(self) -> bool:
        """Whether a pass can begin in the middle: proved on the example, bit by bit, when first asked."""
        return self._blocks is not None

    @cached_property
    def _blocks(self) -> Blocks | None:
        with self.runner.meter.paused():
            return blocks_of(self)

    def before(self, site: str) -> int | None:
        """The last block that an edit at this site does not reach; None if that is none, or it cannot be entered."""
        at = self.sites.site(site)
        if at.layer is None or not self.can_enter:
            return None
        last = min(at.layer if at.kind == "resid_post" else at.layer - 1, (self.n_layers or 0) - 2)
        return last if last >= 0 else None

    @cached_property
    def _last(self) -> nn.Module | None:
        return last_of(self)

    @property
    def _entered(self) -> Blocks:
        if self._blocks is None:
            raise Unsupported(
                f"a pass from the middle of {self.name}", "a model that gives the same output when entered so"
            )
        return self._blocks

    @staticmethod
    def _check_where(where: Tensor, batch: Batch) -> None:
        if batch.mask is None:
            raise Unsupported("an output at some positions of inputs without them", "token ids, or all of it")
        if where.shape != batch.mask.shape or where.dtype != torch.bool:
            raise ShapeMismatch(
                f"where of shape {tuple(where.shape)} and {where.dtype}",
                f"{tuple(batch.mask.shape)} and torch.bool",
            )
        if (where & ~batch.mask.to(where.device)).any():
            raise BadInput("where is True at padding", "real positions")

    def _check_after(self, after: After, batch: Batch, touched: Sequence[str]) -> None:
        if len(after.resid) != len(batch):
            raise ShapeMismatch(f"a stream of {len(after.resid)} rows", f"{len(batch)}, as the batch has")
        for name in touched:
            site = self.sites.site(name)
            below = site.layer is not None and site.layer <= after.layer
            if below and not (site.kind == "resid_post" and site.layer == after.layer):
                raise BadInput(
                    f"site {name} in a pass that begins after block {after.layer}", "a site behind it"
                )

    @property
    def blocks(self) -> Blocks | None:
        """The blocks that a pass can begin after; None if that was not proved (see `can_enter`)."""
        return self._blocks

    @property
    def placing(self) -> Placing:
        """Where edits can be made in passes over their causal cones, proved when first asked.

        Raises:
            Unsupported: this model is always run whole; the reason is named.
        """
        found = self._placing
        if isinstance(found, Unsupported):
            raise Unsupported(found.got, found.expected, found.hint)
        return found

    @cached_property
    def _placing(self) -> Placing | Unsupported:
        from prosect.model.proof import prove

        try:
            with self.runner.meter.paused():
                return prove(self)
        except Unsupported as reason:
            return reason

    def sweep(
        self,
        edits: Sequence[Sequence[Edit]],
        batch: Inputs,
        metric: Callable[[Tensor, Batch], Tensor],
        budget_mb: int | float = 512.0,
        reads: Positions | None = None,
        keep: Path | None = None,
    ) -> Float[np.ndarray, "edits rows"]:
        """Run the same rows under many lists of edits: the scores of `swept`."""
        return self.swept(edits, batch, metric, budget_mb, reads, keep).scores

    def swept(
        self,
        edits: Sequence[Sequence[Edit]],
        batch: Inputs,
        metric: Callable[[Tensor, Batch], Tensor],
        budget_mb: int | float = 512.0,
        reads: Positions | None = None,
        keep: Path | None = None,
    ) -> Swept:
        """Run the same rows under many lists of edits, and say how. See `prosect.model.sweep`."""
        from prosect.model.sweep import swept

        return swept(self, edits, batch, metric, budget_mb, reads, keep)

    def generate(
        self,
        prompts: Inputs,
        edits: Sequence[Edit] = (),
        max_new_tokens: int = 20,
        temperature: int | float = 0.0,
        seed: int = 0,
        stop: Sequence[int] | None = None,
    ) -> Generation:
        """Continue prompts under edits. See `prosect.model.generate`."""
        from prosect.model.generate import generate

        return generate(self, prompts, edits, max_new_tokens, temperature, seed, stop)

    def check(self) -> CheckReport:
        """Prove the map of sites; sites that fail are refused from then on. See `prosect.model.check`."""
        from prosect.model.check import check

        self.report = check(self)
        return self.report

    def _repr_html_(self) -> Markup:
        sizes = {
            "layers": self.n_layers,
            "width": self.d_model,
            "heads": self.n_heads,
            "vocabulary": self.vocab_size,
        }
        rows: list[tuple[str, object]] = [("class", type(self.module).__name__)]
        rows += [(k, v) for k, v in sizes.items() if v is not None]
        rows += [("parameters", f"{sum(p.numel() for p in self.module.parameters()):,}")]
        rows += [("device and dtype", f"{self.device}, {str(self.dtype).removeprefix('torch.')}")]
        rows += [("sites", len(self.sites.names()))]
        refused = self.sites.refused
        caveat = f"{len(refused)} named sites are refused; model.sites.refused says why." if refused else ""
        return card(self.name, rows, caveat)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {type(self.module).__name__}, {len(self.sites.names())} sites)"


def _device(module: nn.Module) -> torch.device:
    """Where the first parameter is. A walk of its own: `nn.Module.parameters` names every module on the way."""
    pending: list[nn.Module | None] = [module]
    while pending:
        m = pending.pop()
        if m is None:
            continue
        for p in m._parameters.values():
            if p is not None:
                return p.device
        pending += reversed(m._modules.values())
    return torch.device("cpu")
