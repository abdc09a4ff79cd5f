"""Which strings of tokens activate a unit: searched for with the model alone, and tried on text that nobody had seen.

Of every unit two things are claimed of the string that activates it most: that alone it activates the unit more than
an unseen text does at its strongest place, and that at the end of an unseen text it raises the unit there. Both are
measured beside random strings as long and beside the strings that were found for other units. A unit need not respond
on text to what activates it most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prosect.assay import plans
from prosect.assay.explored import thinned, vocabulary
from prosect.assay.spec import Spec
from prosect.assay.studies.searched import found_table, limits_of, string_map
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, extent, folds
from prosect.core.errors import BadInput, Unsupported
from prosect.core.exhibits import Exhibit, SiteCell
from prosect.core.records import Component, Description, Executable, Hypothesis, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.core.verdicts import Verdict
from prosect.data.batch import Batch
from prosect.data.tokens import TokenSource
from prosect.describe.synthesis.contexts import OnText, on_text, over
from prosect.describe.synthesis.strings import RandomString, StringActivation
from prosect.describe.synthesis.tokens import NEED_DRAWS, STARTS, Tokens, synthesise_tokens
from prosect.describe.synthesis.unit import Unit
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations
from prosect.validate.truth import variable_of

METHOD = "token-synthesis@1"
RANDOM_SHOWN = 2
"""Random strings in a unit's picture."""


class Synthesis:
    """The study of strings for some units of one site.

    Args:
        spec: the run's; its ``synthesise`` table names the site and the units and says how strings are searched for.
        run: where what was found is kept.
        subject: a causal language model and its text.
        truth: of an organism, for checking claims after they were tested.

    Raises:
        UnknownName: no such site.
        Unsupported: a site without one vector for each position.
        BadInput: a unit that the site does not have, or one that is named twice.
    """

    name = "synthesis"

    def __init__(self, spec: Spec, run: RunFolder, subject: Subject, truth: Truth | None = None) -> None:
        self.spec, self.run, self.subject, self.truth = spec, run, subject, truth
        self.seed = Seed(spec.seed).child("synthesis")
        model, asked = subject.model, spec.synthesise
        self.site = model.sites.resolve(asked.site or f"mlp_act.{(model.n_layers or 1) // 2}")
        self.info = model.sites.info(self.site)
        if self.info.heads is not None:
            raise Unsupported(
                f"units of {self.site}, which has heads", f"one head, such as {self.site}.h0", "--site"
            )
        if self.info.layout == "pattern" or not self.info.width:
            raise Unsupported(f"units of {self.site}", "a site with one vector for each position", "--site")
        wrong = [i for i in asked.indices if not 0 <= i < self.info.width]
        if wrong:
            raise BadInput(f"unit {wrong[0]} of {self.site}", f"from 0 to {self.info.width - 1}", "--index")
        if len(set(asked.indices)) < len(asked.indices):
            raise BadInput(f"units {list(asked.indices)}", "each unit once", "--index")
        self.words = vocabulary(subject.source)

    @property
    def units(self) -> tuple[int, ...]:
        """The units looked at: those named, or some drawn at random."""
        asked, width = self.spec.synthesise, int(self.info.width or 0)
        drawn = self.seed.child("units").numpy().permutation(width)[: asked.units]
        return asked.indices or tuple(sorted(int(i) for i in drawn))

    def explore(self) -> None:
        """Read explored text once, and search for strings with the model alone."""
        self.seen: dict[str, Any] = self.run.json_step("synthesis", {"study": self.name}, self._look)

    def _look(self) -> dict[str, Any]:
        model, asked = self.subject.model, self.spec.synthesise
        batches, _ = thinned(
            self.subject.source, self.spec.describe.tokens, self.seed.child("explore"), self.subject.rows
        )
        units = [Unit(self.site, i) for i in self.units]
        with self.subject.metered("explore"):
            text = on_text(model, units, batches, asked.length)
        prefix, barred = _lead(batches), sorted({*self.words.specials, *_lead(batches)})
        vocabulary = min(model.vocab_size or 0, len(self.words.strings))
        allowed = tuple(t for t in range(vocabulary) if t not in set(barred))
        with self.subject.metered("search"):
            entries = [
                self._search(unit, there, prefix, allowed) for unit, there in zip(units, text, strict=True)
            ]
        return {"entries": entries, "prefix": prefix, "barred": barred, "vocabulary": vocabulary}

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """Explored text read once; then so many strings for each search, which may end sooner."""
        asked, test, many = self.spec.synthesise, folds(parts), len(self.units)
        batches, _ = thinned(
            self.subject.source, self.spec.describe.tokens, self.seed.child("explore"), self.subject.rows
        )
        read, length = extent(batches), len(_lead(batches)) + asked.length
        searches, layers = many * asked.seeds, self.subject.model.n_layers or 0
        share = 1.0 if self.info.layer is None or not layers else (self.info.layer + 1) / layers
        strings = max(asked.budget, 2 * STARTS) + NEED_DRAWS * asked.length
        shown = asked.seeds + RANDOM_SHOWN
        runs = 2 + 2 * many  # the text as it is, with every string and example in it, and with random ones
        return Planned(
            self.site,
            (
                Work("explored text", read.rows * share, read.length),
                Work(
                    f"{searches} searches of at most {strings:,} strings",
                    (searches * (strings + asked.steps) + many * shown) * share,
                    length,
                    gradients=searches * asked.steps * share,
                ),
            ),
            (
                Work("strings in text", test.rows * runs * share, test.length),
                Work(
                    "strings alone",
                    (test.rows + 2 * many * -(-test.rows // self.subject.rows)) * share,
                    length,
                ),
            ),
            most=True,
        )

    def _search(
        self, unit: Unit, there: OnText, prefix: tuple[int, ...], allowed: tuple[int, ...]
    ) -> dict[str, Any]:
        """What the searches for one unit found, beside its best explored example and random strings."""
        model, asked, index = self.subject.model, self.spec.synthesise, int(unit.index or 0)
        how = Tokens(
            length=asked.length,
            prefix=prefix,
            allowed=allowed,
            seeds=asked.seeds,
            steps=asked.steps,
            candidates=asked.candidates,
            budget=asked.budget,
            seed=self.seed.child("search", index).integer,
        )
        found = synthesise_tokens(model, unit, how)
        drawn = self.seed.child("shown", index).numpy().choice(allowed, (RANDOM_SHOWN, asked.length)).tolist()
        strings = [list(one.tokens) for one in found.seeds]
        values = over(model, unit, [*strings, *drawn], prefix)
        agreement = found.agreement
        return {
            "index": index,
            "spread": there.spread,
            "positions": there.positions,
            "example": {
                "tokens": there.tokens,
                "values": there.values,
                "document": there.document,
                "activation": there.best,
            },
            "seeds": [
                {
                    "tokens": one.tokens,
                    "activation": one.activation,
                    "settled": one.settled,
                    "values": v.tolist(),
                }
                for one, v in zip(found.seeds, values, strict=False)
            ],
            "random": [
                {"tokens": s, "values": v.tolist()}
                for s, v in zip(drawn, values[len(strings) :], strict=True)
            ],
            "activation": found.activation.model_dump(mode="json"),
            "control": found.control.model_dump(mode="json"),
            "luckiest": found.luckiest,
            "agreement": None if agreement is None else agreement.model_dump(mode="json"),
            "agreement control": found.agreement_control,
            "hints": found.hints,
        }

    # -- claims ----------------------------------------------------------------------------------

    @property
    def usable(self) -> list[dict[str, Any]]:
        """Units that vary on explored text: without that there is no scale to measure on."""
        return [e for e in self.seen["entries"] if e["spread"] > 0]

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """Two claims for every unit that varies on explored text: of its string alone, and of it in text."""
        if round > 1:
            return []
        return [claim for entry in self.usable for claim in self._claims(entry, fold)]

    def _component(self, index: int) -> Component:
        return Component(decomposition=f"units@{self.site}", index=index, reads=(self.site,))

    def _claims(self, entry: Mapping[str, Any], fold: str) -> list[Hypothesis]:
        index, spread, length = entry["index"], entry["spread"], self.spec.synthesise.length
        site, prefix = self.site, tuple(self.seen["prefix"])
        random = RandomString(length, self.seen["vocabulary"], tuple(self.seen["barred"]))
        string, example = _best(entry), tuple(entry["example"]["tokens"][-length:])
        others = [_best(e) for e in self.seen["entries"] if e["index"] != index]

        def alone(tokens: tuple[int, ...]) -> Executable:
            return StringActivation(site, index, "alone", spread, tokens, prefix).executable()

        def put(tokens: tuple[int, ...]) -> Executable:
            return StringActivation(site, index, "inserted", spread, tokens).executable()

        text = StringActivation(site, index, "text", spread)
        drawn_alone = StringActivation(site, index, "alone", spread, (), prefix, random)
        drawn_put = StringActivation(site, index, "inserted", spread, random=random)
        unit = "cluster" if isinstance(self.subject.source, TokenSource) else "input"
        said = self._say(string)
        activates = plans.activates(
            self.spec,
            fold,
            unit,
            text=text.executable(),
            random=drawn_alone.executable(),
            others=[alone(s) for s in others],
            example=alone(example),
        )
        carries = plans.carries(
            self.spec,
            fold,
            unit,
            random=drawn_put.executable(),
            others=[put(s) for s in others],
            example=put(example),
        )
        return [
            Hypothesis(
                round=1,
                component=self._component(index),
                side="cause",
                description=Description(words=words, effect=effect, about={"tokens": list(string)}),
                explainer=METHOD,
                draw="chosen" if self.spec.synthesise.indices else "random",
                tests=(plan,),
                scope=self.subject.scope,
                explored=explored,
            )
            for words, effect, plan, explored in (
                (
                    f"alone, the string {said} activates unit {index} of {site} more than a text does at its strongest",
                    alone(string),
                    activates,
                    {
                        "best explored example": entry["example"]["activation"] / spread,
                        "random strings, most": entry["luckiest"] / spread,
                    },
                ),
                (
                    f"at the end of a text, the string {said} raises unit {index} of {site}",
                    put(string),
                    carries,
                    {"activation alone": entry["seeds"][0]["activation"] / spread},
                ),
            )
        ]

    def _say(self, tokens: Sequence[int]) -> str:
        source = self.subject.source
        if isinstance(source, TokenSource):
            return repr(source.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
        return repr(" ".join(self.words.strings[t] for t in tokens))

    # -- what is shown -----------------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """Whether the string ends in tokens that the organism's rule asks for; None without truth."""
        if self.truth is None:
            return None
        tokens = hypothesis.description.about["tokens"]
        variable = variable_of(hypothesis.component, self.truth)
        if variable is None:
            return TruthCheck(hypothesis=hypothesis.id, holds=None, why="the truth does not speak of it")
        if variable.kind != "token-rule":
            return TruthCheck(hypothesis=hypothesis.id, holds=False, why="this unit follows no short rule")
        rule = variable.parameters
        before, now = rule.get("previous"), rule["current"]
        holds = tokens[-1] in now and (before is None or (len(tokens) > 1 and tokens[-2] in before))
        why = f"it fires on {len(now)} tokens" + ("" if before is None else f" after {len(before)} others")
        return TruthCheck(hypothesis=hypothesis.id, holds=holds, why=why)

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """For every unit its strings, its best explored example and random strings, with the unit at each token."""
        asked, entries = self.spec.synthesise, self.seen["entries"]
        drawn = "named" if asked.indices else f"drawn at random from the {self.info.width} of {self.site}"
        prefix = [self.words.strings[t] for t in self.seen["prefix"]]
        return Shown(
            exhibits=[self._exhibit(e, drawn) for e in entries],
            map=[
                SiteCell(
                    layer=-1 if self.info.layer is None else self.info.layer,
                    place=f"units of {self.info.kind}",
                    components=int(self.info.width or 0),
                    examined=len(self.usable),
                )
            ],
            tables=(found_table(entries, self.site),),
            pictures=[string_map(e, self.site, self.words.strings) for e in entries],
            decisions=(
                f"units {', '.join(str(e['index']) for e in entries)} of {self.site} were {drawn}",
                f"strings of {asked.length} tokens were searched for {asked.seeds} times for each unit"
                + (f", standing after {' '.join(prefix)}" if prefix else ", with nothing before them")
                + f"; {len(self.seen['barred'])} special tokens were not used",
                "of each unit's strings the one that activates it most was claimed; in text it takes the place of the "
                f"last {asked.length} tokens of a row",
            ),
            limits=limits_of(entries),
        )

    def _exhibit(self, entry: Mapping[str, Any], drawn: str) -> Exhibit:
        return Exhibit(
            component=self._component(entry["index"]),
            kind="unit",
            site=self.site,
            layer=-1 if self.info.layer is None else self.info.layer,
            facts={
                "string": self._say(_best(entry)),
                "best explored example ends in": self._say(
                    entry["example"]["tokens"][-self.spec.synthesise.length :]
                ),
                "standard deviation on explored text": entry["spread"],
            },
            units_drawn=drawn,
        )


def _best(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """The string that activates a unit most."""
    return tuple(entry["seeds"][0]["tokens"])


def _lead(batches: Sequence[Batch]) -> tuple[int, ...]:
    """The special tokens that every row begins with, such as a beginning-of-text token."""
    first = batches[0]
    if first.special is None:
        return ()
    length = int(first.special[0].long().cumprod(dim=0).sum())
    heads = {tuple(row) for b in batches for row in b.tensors["input_ids"][:, :length].tolist()}
    return next(iter(heads)) if len(heads) == 1 else ()
