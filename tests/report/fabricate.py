"""Run folders as a real run would leave them, made through the real records: every outcome, kind and edge.

Nothing here is measured. Numbers are drawn so that all verdicts occur, and the ledgers verify.
"""

import math
import re
from pathlib import Path

import numpy as np
from explored import pictures

from prosect.core.canonical import digest, plain
from prosect.core.exhibits import (
    AttentionExample,
    Exhibit,
    Figure,
    FigureTable,
    Findings,
    Grid,
    InputExample,
    OutputEffect,
    Scatter,
    SiteCell,
    SplitFact,
    TokenExample,
)
from prosect.core.proportions import share
from prosect.core.records import (
    Calibration,
    Comparison,
    Component,
    Description,
    Evidence,
    Executable,
    Family,
    Hypothesis,
    Measured,
    Note,
    Opening,
    Rival,
    Scope,
    TestPlan,
    TruthCheck,
)
from prosect.store.atomic import write_json
from prosect.store.run import RunFolder

SCOPE = Scope(model="5f" * 32, data="a7" * 32, dtype="float32", tokenizer="c0" * 32)
METRIC = "correlation of predicted with measured activation"
EFFECT = "share of named outputs that move as predicted under ablation"
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"quotes' & <b>angles</b> -->",
    "\u202eright to left override\u202c",
    "null\x00bell\x07escape\x1b[31mred",
    "{{ 7*7 }} {% raw %}",
    "\u2028line\u2029paragraph\ufeff",
    "עברית و عربي \u0301combining",
    "javascript:alert(3)",
)
CODE = '''
class Frame:
    """A window on a table, with the names of its columns."""

    def __init__(self, rows, names=None, *, copy=False):
        if names is None:
            names = [f"c{i}" for i in range(len(rows[0]))]
        self.rows = list(rows) if copy else rows
        self.names = tuple(names)

    def __len__(self):
        return len(self.rows)

    def select(self, *wanted):
        missing = set(wanted) - set(self.names)
        if missing:
            raise KeyError(f"no column {sorted(missing)}")
        at = [self.names.index(name) for name in wanted]
        return Frame([[row[i] for i in at] for row in self.rows], wanted)

    def where(self, test):
        kept = []
        for row in self.rows:
            if test(dict(zip(self.names, row))):
                kept.append(row)
        return Frame(kept, self.names)

def read(path, delimiter=",", encoding="utf-8"):
    with open(path, encoding=encoding, newline="") as file:
        head, *rows = csv.reader(file, delimiter=delimiter)
    return Frame(rows, head)

def main(argv=None):
    options = parser().parse_args(argv)
    try:
        frame = read(options.path)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    for name in options.columns or frame.names:
\tprint(name, len(frame))
    return 0
'''
PIECES = re.findall(r"\n[ ]*|\t| ?\w+| ?[^\w\s]+|[ ]+", CODE)


def measured(rng, centre, half, n):
    return Measured(
        estimate=centre,
        low=max(-1.0, centre - half * rng.uniform(0.9, 1.2)),
        high=min(1.0, centre + half * rng.uniform(0.8, 1.0)),
        n=n,
        method="studentised bootstrap over units",
    )


def plan(name, kind, level, metric, rivals, fold, unit="cluster"):
    return TestPlan(
        name=name,
        kind=kind,
        level=level,
        metric=metric,
        rivals=tuple(
            Rival(name=r, role=role, decides=decides, margin=margin) for r, role, decides, margin, _ in rivals
        ),
        unit=unit,
        units_min=40,
        firing_min=20,
        draws=99_999,
        fold=fold,
        seed=7,
    )


CAUSE_RIVALS = (
    ("shuffled codes", "control", True, 0.1, 0.02),
    ("random direction, same explainer", "control", True, 0.1, 0.21),
    ("unigram table", "baseline", True, 0.02, 0.38),
    ("position table", "baseline", False, 0.0, 0.07),
)
EFFECT_RIVALS = (
    ("random direction", "control", True, 0.1, 0.12),
    ("frequent outputs", "baseline", True, 0.05, 0.31),
)
REPLACE_RIVALS = (("mean ablation", "baseline", True, 0.05, 0.0), ("linear fit", "baseline", True, 0.0, 0.4))


class Maker:
    """Draws claims, their evidence and their exhibits."""

    def __init__(self, seed, hostile):
        self.rng = np.random.default_rng(seed)
        self.hostile = hostile

    def said(self, text):
        if not self.hostile:
            return text
        return f"{text} {HOSTILE[self.rng.integers(len(HOSTILE))]}"

    def tests(self, side, round, strength):
        fold = f"validate.{round - 1}"
        if side == "effect":
            return (plan("moves outputs", "output-effect", 1, EFFECT, EFFECT_RIVALS, fold),)
        made = [plan("predicts", "predict-activations", 1, METRIC, CAUSE_RIVALS, fold)]
        if strength > 0.45:
            made.append(
                plan("replaces", "handcrafted", 3, "loss recovered (share)", REPLACE_RIVALS[:1], fold)
            )
        if strength > 0.8:
            made.append(
                plan("learned", "rank-untrained", None, "score", (), fold, unit="network").model_copy(
                    update={"rivals": (Rival(name="untrained networks", role="control", margin=0.0),)}
                )
            )
        return tuple(made)

    def evidence(self, h, strength, enough):
        rng, out = self.rng, []
        for p in h.tests:
            n = int(rng.integers(60, 240)) if enough else int(rng.integers(3, 30))
            centre = float(np.clip(strength + rng.normal(0, 0.03), -0.2, 0.98))
            half = 1.1 / math.sqrt(n) if enough else 0.4
            level = {r[0]: r[4] for r in (*CAUSE_RIVALS, *EFFECT_RIVALS, *REPLACE_RIVALS)}
            comparisons = []
            for r in p.rivals:
                other = float(np.clip(level.get(r.name, 0.3) + rng.normal(0, 0.04), -0.3, 0.9))
                gap = measured(rng, centre - other, half * 1.2, n)
                clear = (gap.estimate - r.margin) / (half * 0.6)
                comparisons.append(
                    Comparison(
                        rival=r.name,
                        role=r.role,
                        decides=r.decides,
                        measured=measured(rng, other, half, n),
                        difference=gap,
                        margin=r.margin,
                        p=float(np.clip(0.5 * math.erfc(clear / math.sqrt(2)), 1e-5, 1.0)),
                    )
                )
            deciding = [c.p for c in comparisons if c.decides]
            out.append(
                Evidence(
                    hypothesis=h.id,
                    test=p.name,
                    measured=measured(rng, centre, half, n),
                    comparisons=tuple(comparisons),
                    p=max(deciding) if deciding else None,
                    units=n,
                    firing=n // 2,
                    enough=enough,
                    note="" if enough else f"fires in {n // 2} of the 20 clusters asked for",
                    cost={"forward passes": n, "tokens": n * 128},
                )
            )
        return out


RULES = (
    ("fires on `def` at the start of a line", {"tokens": ["def"], "previous": ["\n    "]}),
    ("fires on a closing bracket that ends a call", {"tokens": [")", "))"], "context": "call"}),
    ("fires on `self` after an opening parenthesis", {"tokens": ["self"], "previous": ["("]}),
    ("fires on the name of an exception being raised", {"tokens": ["KeyError", "OSError"], "within": 2}),
    ("fires on the second of two equal names in a line", {"relation": "repeat", "within": 12}),
    ("fires inside a docstring, from its third word on", {"after": '"""', "from": 3}),
    ("fires on `return` when the function has a `for` above it", {"tokens": ["return"], "seen": ["for"]}),
    ("fires on the colon that opens a block", {"tokens": [":"], "next": ["\n"]}),
)
ROLES = (
    ("looks at the token that followed the same token before", {"role": "induction"}),
    ("looks at the previous token", {"role": "offset", "offset": 1}),
    ("looks at the first token of the document", {"role": "first"}),
)


def describe(maker, kind, i, round, side):
    if side == "effect":
        words = f"raises {('`self`', '`return`', 'closing brackets')[i % 3]} and lowers names"
        return Description(
            words=maker.said(words),
            effect=Executable(kind="output-sets", parameters={"raised": [3, 9, 12], "lowered": [1]}),
        )
    words, parameters = (ROLES if kind == "head" else RULES)[i % (len(ROLES) if kind == "head" else 8)]
    if kind == "neuron":
        words = f"computes cos(2π·{i + 3}a/31 + 0.4) · cos(2π·{i + 3}b/31 − 1.1)"
        parameters = {"modulus": 31, "frequency": i + 3, "phases": [0.4, -1.1]}
    if round > 1:
        words = f"{words}, but not in {('comments', 'strings', 'decorators')[round % 3]}"
    name = {"head": "head-role", "neuron": "trigonometric"}.get(kind, "token-rule")
    return Description(
        words=maker.said(words),
        cause=Executable(kind=name, parameters=parameters),
        about={"rule length": 2 + round, "coverage": 0.61, "token or context": "context"},
    )


def window(maker, length=22, signed=False, centre_value=3.0):
    rng = maker.rng
    start = int(rng.integers(0, len(PIECES) - length))
    tokens = list(PIECES[start : start + length])
    if maker.hostile:
        for j in rng.integers(0, length, 3):
            tokens[j] = HOSTILE[rng.integers(len(HOSTILE))]
    centre = length * 2 // 3
    values = np.where(rng.random(length) < 0.12, rng.gamma(1.2, 0.5, length), 0.0)
    if signed:
        values = values - np.where(rng.random(length) < 0.2, 0.7, 0.0)
    values[centre] = centre_value
    predicted = np.where(values > 0.6, values * rng.uniform(0.7, 1.15, length), 0.0)
    return (
        tokens,
        tuple(float(v) for v in values.round(4)),
        tuple(float(v) for v in predicted.round(4)),
        centre,
    )


def exhibit(maker, component, kind, layer, strength, rich):
    rng = maker.rng
    base = {
        "component": component,
        "kind": kind,
        "site": component.reads[0],
        "layer": layer,
        "facts": {
            "firing rate": float(rng.uniform(0.0004, 0.05)),
            "norm": 1.0,
            "beats the unigram table": bool(strength > 0.5),
            **({maker.said("note"): maker.said("text")} if maker.hostile else {}),
        },
    }
    if not rich:
        return Exhibit(**base)
    base |= {
        "agreement": float(np.clip(strength + 0.1, -1, 1)),
        "units_drawn": "1,812 files, in 740 clusters",
    }
    n = 240
    x = rng.gamma(0.5, 1.2, n) * (rng.random(n) < 0.6)
    y = np.maximum(0, strength * x + (1 - strength) * rng.gamma(0.6, 1.0, n) * (rng.random(n) < 0.5))
    base["scatter"] = Scatter(
        predicted=tuple(float(v) for v in x),
        measured=tuple(float(v) for v in y),
        control_predicted=tuple(float(v) for v in rng.permutation(x)),
        control_measured=tuple(float(v) for v in y),
        population=51_200,
    )
    if kind == "latent":
        made = []
        for documents in ("first", "second"):
            for stratum, value in (("top", 5.0), ("middle", 2.2), ("near miss", 0.1), ("random", 0.0)):
                for _ in range(2):
                    tokens, values, predicted, centre = window(
                        maker, centre_value=value * rng.uniform(0.8, 1)
                    )
                    made.append(
                        TokenExample(
                            documents=documents,
                            stratum=stratum,
                            source=maker.said(("csv.py", "textwrap.py", "argparse.py")[rng.integers(3)]),
                            tokens=tuple(tokens),
                            measured=values,
                            predicted=predicted,
                            centre=centre,
                        )
                    )
        base["tokens"] = tuple(made)
        base["effects"] = tuple(
            OutputEffect(
                output=maker.said(word),
                direction="raises" if j < 4 else "lowers",
                explored=0.4 if j < 4 else -0.3,
                measured=None
                if j == 5
                else measured(rng, (0.35 if j < 4 else -0.2) * strength * rng.uniform(0.4, 1.2), 0.09, 120),
            )
            for j, word in enumerate((" self", "(", "\n", " return", " name", "__"))
        )
    if kind == "head":
        made = []
        for _ in range(3):
            tokens, *_ = window(maker, 14)
            weight = rng.dirichlet(np.full(14, 0.15))
            says = np.zeros(14)
            says[int(np.argmax(weight)) if rng.random() < strength else 3] = 1.0
            made.append(
                AttentionExample(
                    tokens=tuple(tokens),
                    query=13,
                    attention=tuple(float(v) for v in weight),
                    predicted=tuple(float(v) for v in says),
                    source="csv.py",
                )
            )
        base["attention"] = tuple(made)
    if kind == "neuron":
        a = np.arange(31)
        k = component.index + 3
        truth = np.cos(2 * np.pi * k * a / 31 + 0.4)[:, None] * np.cos(2 * np.pi * k * a / 31 - 1.1)
        base["grid"] = Grid(
            rows="a",
            columns="b",
            measured=tuple(
                map(tuple, (truth + rng.normal(0, 0.1 + 0.5 * (1 - strength), (31, 31))).tolist())
            ),
            predicted=tuple(map(tuple, truth.tolist())),
        )
        base["inputs"] = tuple(
            InputExample(
                documents=d,
                stratum=s,
                words=maker.said(f"a = {rng.integers(31)}, b = {rng.integers(31)}"),
                measured=float(rng.normal(v, 0.1)),
                predicted=None if s == "random" and d == "second" else float(v),
            )
            for d in ("first", "second")
            for s, v in (("top", 0.9), ("middle", 0.4), ("near miss", 0.0), ("random", -0.3))
        )
    return Exhibit(**base)


def components(latents, heads, neurons, decomposition="topk@resid_post"):
    out = []
    for i in range(latents):
        layer = 1 + i % 2
        site = f"resid_post.{layer}"
        name = f"{decomposition}.{layer}"
        out.append(
            (
                "latent",
                layer,
                Component(decomposition=name, index=13 * i % 2048 if latents <= 2048 else i, reads=(site,)),
            )
        )
    for i in range(heads):
        layer = i // 4
        out.append(
            (
                "head",
                layer,
                Component(decomposition=f"heads@z.{layer}", index=i % 4, reads=(f"z.{layer}",), width=16),
            )
        )
    for i in range(neurons):
        out.append(("neuron", 0, Component(decomposition="neurons@mlp_act.0", index=i, reads=("mlp_act.0",))))
    return out


def findings(maker, latents, heads, neurons, **changes):
    base = {
        "title": maker.said("A small model of Python source"),
        "question": "Which parts of this network can be described well enough that the description predicts "
        "what they do on code it has never seen?",
        "model": maker.said("pylm, a 4-layer decoder with 1.2 million weights"),
        "model_facts": {"layers": 4, "width": 128, "heads": 4, "vocabulary": 2048, "norm": "RMS"},
        "data": maker.said("Python's standard library, 1,812 files"),
        "map": (
            *(SiteCell(layer=i, place="heads", components=4, examined=heads and 4) for i in range(4)),
            *(
                SiteCell(layer=i, place="neurons", components=512, examined=neurons if i == 0 else 0)
                for i in range(4)
            ),
            *(
                SiteCell(
                    layer=i,
                    place="dictionary on resid_post",
                    components=2048 if i in (1, 2) else 0,
                    examined=latents // 2 if i in (1, 2) else 0,
                )
                for i in range(4)
            ),
            SiteCell(layer=-1, place="embeddings", components=2048),
        ),
        "splits": (
            SplitFact(
                name="explore",
                use="everything that is fitted or chosen",
                documents=905,
                units=370,
                rows=4000,
                tokens=512_000,
            ),
            SplitFact(name="validate.0", use="round 1", documents=302, units=124, rows=1300, tokens=166_400),
            SplitFact(name="validate.1", use="round 2", documents=301, units=123, rows=1290, tokens=165_120),
            SplitFact(
                name="sealed",
                use="opened once, at the end",
                documents=304,
                units=123,
                rows=1310,
                tokens=167_680,
            ),
        ),
        "tables": (
            FigureTable(
                title="How well each decomposition rebuilds the residual stream",
                about="Loss recovered when the site is replaced by its reconstruction; 1 is the model itself, "
                "0 is mean ablation.",
                rows=(
                    Figure(
                        name="topk, 2,048 latents",
                        measured=measured(maker.rng, 0.93, 0.02, 124),
                        unit="share",
                    ),
                    Figure(
                        name="PCA, 32 components", measured=measured(maker.rng, 0.71, 0.04, 124), unit="share"
                    ),
                    Figure(
                        name="random directions", measured=measured(maker.rng, 0.22, 0.05, 124), unit="share"
                    ),
                    Figure(name="neurons", measured=Measured(estimate=None, note="no decode"), unit="share"),
                ),
            ),
        ),
        "decisions": (
            "The device is cpu, because no accelerator was found.",
            maker.said(
                "Near-duplicate files were clustered before splitting: 1,812 files make 740 clusters."
            ),
        ),
        "limits": (
            "Effects were measured under mean ablation alone; another ablation may give another answer.",
            "One training seed of the dictionary: another seed may find other latents.",
        ),
        "cost": {"forward passes": 18_400, "tokens": 2_355_200},
        "command": "prosect run pylm --seed 0",
        "unit": "cluster of near-duplicate files",
        "sealed": "The sealed split was opened once, by this run. No earlier run opened it.",
    }
    return Findings(**(base | changes))


def fabricate(
    folder: Path,
    *,
    latents=24,
    heads=8,
    neurons=6,
    rounds=2,
    seed=0,
    hostile=False,
    rich=True,
    strength=None,
    calibrated=True,
    truth=False,
    finished=True,
    stop_after=None,
    with_findings=True,
    small=False,
    exhibits=True,
    decomposition="topk@resid_post",
    pictured=False,
    **changes,
) -> Path:
    """A run folder.

    Args:
        strength: one strength for every claim (0.05 supports nothing, 0.9 everything); drawn if None.
        stop_after: leave the ledger of a run killed during this round: registered, family closed, no evidence.
        small: one bare test for each claim, and exhibits without pictures.
        exhibits: whether there are any.
        pictured: whether explore left pictures; "large" for large ones too.
        changes: fields of `Findings`.
    """
    maker = Maker(seed, hostile)
    rng = maker.rng
    provenance = {
        "versions": {"python": "3.12.4", "prosect": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "source": digest("source"),
        "git": {"commit": "9d223fd0c1" * 4, "dirty": False},
        "machine": {
            "system": "Linux",
            "processor": "x86_64",
            "cpus": 2,
            "threads": 2,
            "device asked for": "auto",
        },
    }
    spec = {"target": maker.said("pylm"), "seed": 0, "describe": {"explainer": "rules@1", "most": 3}}
    everything = components(latents, heads, neurons, decomposition)
    alive = [
        (i, kind, layer, c, float(rng.beta(1.1, 1.1)) if strength is None else strength)
        for i, (kind, layer, c) in enumerate(everything)
    ]
    parents = {}
    with RunFolder.open(folder, spec, provenance) as run:
        for round in range(1, rounds + 1):
            claims = []
            for i, kind, _layer, c, s in alive:
                sides = ("cause", "effect") if kind == "latent" and i % 3 == 0 and not small else ("cause",)
                for side in sides:
                    if round > 1 and (c.name, side) not in parents:
                        continue
                    tests = maker.tests(side, round, s)
                    h = Hypothesis(
                        round=round,
                        component=c,
                        side=side,
                        description=describe(maker, kind, i, round, side),
                        explainer="rules@1" if kind != "head" else "roles@1",
                        draw="refined" if round > 1 else ("chosen" if i % 4 == 3 else "random"),
                        tests=tests[:1] if small else tests,
                        scope=SCOPE,
                        parent=parents.get((c.name, side)),
                        explored={"correlation": float(np.clip(s + rng.uniform(0, 0.4), 0, 0.99))}
                        if side == "cause"
                        else {"moves outputs": float(np.clip(s + 0.2, 0, 0.99))},
                    )
                    claims.append((h, s))
            if not claims:
                break
            run.append(*(h for h, _ in claims))
            run.append(
                Family(
                    round=round,
                    alpha=0.05 / 2**round,
                    hypotheses=tuple(h.id for h, _ in claims),
                    tests=sum(len(h.tests) for h, _ in claims),
                )
            )
            if stop_after == round:
                break
            fold = f"validate.{round - 1}"
            run.append(Opening(fold=fold, data=SCOPE.data, round=round, hypotheses=len(claims)))
            parents = {}
            records = []
            for j, (h, s) in enumerate(claims):
                records += maker.evidence(h, s, enough=j % 9 != 4)
                if s < 0.45 and j % 3 != 1 and not small:
                    parents[(h.component.name, h.side)] = h.id
                if truth:
                    records.append(
                        TruthCheck(
                            hypothesis=h.id,
                            holds=None if j % 7 == 6 else s > 0.4,
                            why=maker.said("" if s > 0.4 else "the unit carries nothing"),
                        )
                    )
            run.append(*records)
            if strength is None:  # some refinements are better than what they refine
                alive = [
                    (i, k, la, c, min(1.0, s + float(rng.choice([0.0, 0.5])))) for i, k, la, c, s in alive
                ]
        if calibrated:
            run.append(
                Calibration(
                    method="rules@1",
                    side="cause",
                    organism="planted",
                    supported=118,
                    true=112,
                    precision=share(112, 118),
                    recall=share(112, 160),
                    seeds=20,
                    code="d" * 64,
                    size="512 neurons, 64 tokens",
                ),
                Calibration(
                    method="rules@1",
                    side="effect",
                    organism="planted",
                    supported=40,
                    true=21,
                    precision=share(21, 40),
                    recall=share(21, 160),
                    seeds=20,
                    code="d" * 64,
                    size="512 neurons, 64 tokens",
                ),
            )
        run.append(
            Note(about="null runs", text=maker.said("3.5 % of claims false by construction were supported."))
        )
        if pictured:
            changes["pictures"] = pictures(np.random.default_rng(seed), maker.said, large=pictured == "large")
        if with_findings:
            write_json(folder / "findings.json", plain(findings(maker, latents, heads, neurons, **changes)))
        for _, kind, layer, c, s in alive if exhibits else ():
            made = exhibit(maker, c, kind, layer, s, rich and not small)
            write_json(folder / "exhibits" / f"{made.slug}.json", plain(made))
        if finished:
            run.finish({"supported": 3, "rounds": rounds})
    return folder


def main():
    """Write one run of each sort under the folder named on the command line."""
    import sys

    root = Path(sys.argv[1])
    fabricate(root / "normal", latents=36)
    fabricate(root / "hostile", hostile=True)
    fabricate(root / "pictured", latents=4, heads=2, neurons=1, pictured="large")
    fabricate(root / "pictured-hostile", latents=4, heads=2, neurons=1, pictured="large", hostile=True)
    fabricate(root / "truth", truth=True, latents=4, heads=8, neurons=12)
    fabricate(root / "nothing-supported", strength=0.05, calibrated=False)
    fabricate(root / "all-supported", strength=0.95, latents=8)
    fabricate(root / "empty", latents=0, heads=0, neurons=0)
    fabricate(root / "partial", stop_after=1, finished=False, with_findings=False)
    fabricate(root / "limited", latents=4, partial="Limited to 4 latents by --limit 4.")


if __name__ == "__main__":
    main()
