"""The spec of a run: everything that decides what will be done, with every default written out.

A spec is TOML. ``prosect spec TARGET`` prints the resolved one with a comment for each field; ``prosect
run FILE`` runs it. Unknown keys are refused.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from prosect.core.errors import BadInput, UnknownName
from prosect.core.records import Record

Study = Literal[
    "latents",
    "heads",
    "residues",
    "features",
    "replacement",
    "patching",
    "lens",
    "flow",
    "steering",
    "attribution",
    "synthesis",
    "probing",
]


class Data(Record):
    """What is read and how it is cut."""

    text: str = Field(
        "", description="folder or .jsonl of texts; empty: the embedded corpus (Python's standard library)"
    )
    documents: int = Field(900, ge=1, description="most documents, chosen by content")
    context: int = Field(128, ge=8, description="tokens in a window")
    folds: int = Field(2, ge=1, le=8, description="folds of validate; each round opens a fresh one")
    explore: float = Field(0.3, gt=0, lt=1, description="share of the clusters to look at freely")
    sealed: float = Field(0.15, ge=0, lt=1, description="share of the clusters kept for the end")
    explore_windows: int = Field(4, ge=1, description="most windows from one explored document")
    validate_windows: int = Field(3, ge=1, description="most windows from one validation document")
    inputs: int = Field(
        0, ge=0, description="inputs in each part of a generator; 0: the organism's own number"
    )


class Decompose(Record):
    """What the activations are written in terms of."""

    kind: str = Field("topk", description="decomposition to study (prosect ls methods)")
    site: str = Field("", description="site to decompose; empty: the middle of the network")
    width: int = Field(1024, ge=1, description="components")
    active: int = Field(24, ge=1, description="components active at once, k; what a jumprelu aims at")
    objective: dict[str, int | float | tuple[int, ...]] = Field(
        {}, description="parameters of how a dictionary is trained, such as weight for l1 or jumprelu"
    )
    tokens: int = Field(400_000, ge=1, description="activations to train on, repeats included")
    batch: int = Field(1024, ge=1, description="activations in a training step")
    rate: float = Field(0.0, ge=0, description="learning rate; 0: by the width")


class Describe(Record):
    """What is looked at and described."""

    components: int = Field(48, ge=0, description="components drawn at random")
    chosen: int = Field(
        8, ge=0, description="components taken because they are the most active, marked as chosen"
    )
    neurons: int = Field(16, ge=0, description="neurons drawn at random, for comparison")
    effects: int = Field(12, ge=0, description="drawn components whose effect is described too")
    heads: Literal["none", "best", "all"] = Field(
        "best", description="roles to claim: each head's best on explore, or every role of every head"
    )
    controls: int = Field(4, ge=1, description="random directions for each band of firing rates")
    untrained: int = Field(2, ge=0, description="networks with fresh random weights to compare with")
    beside: int = Field(
        12, ge=0, description="components drawn at random beside which readable models of the inputs stand"
    )
    tokens: int = Field(60_000, ge=100, description="most explored positions that explanations are fitted on")


class Patch(Record):
    """What `prosect patch` does."""

    pairs: str = Field(
        "", description="JSON lines of clean, counterfactual, answer, wrong; empty: copied random blocks"
    )
    sites: tuple[str, ...] = Field(("resid_pre",), description="sites, heads, or kinds for every layer")
    each: Literal["site", "head"] = Field("site", description="patch sites whole, or head by head")
    way: Literal["noising", "denoising"] = Field(
        "noising", description="noising: what is needed; denoising: what is enough"
    )
    chosen: int = Field(6, ge=0, description="places claimed because their effect is the largest on explore")
    random: int = Field(6, ge=0, description="places claimed that are drawn at random from the others")
    margin: float = Field(
        0.05, ge=0, description="share of the gap by which an effect must exceed an unrelated value's"
    )
    budget_mb: float = Field(512.0, gt=0, description="memory for one pass")


class Lens(Record):
    """What `prosect lens` does."""

    steps: int = Field(250, ge=1, description="batches that the tuned lens is trained on")
    rate: float = Field(1e-3, gt=0, description="learning rate at the first step")
    margin: float = Field(0.02, ge=0, description="nats by which a tuned lens must be nearer than its rivals")


class Flow(Record):
    """What `prosect flow` does."""

    rows: int = Field(24, ge=2, description="windows of explore that every head is looked at on")
    controls: int = Field(
        3, ge=1, description="other heads of the layer that a head's pattern is compared with"
    )
    margin: float = Field(0.02, ge=0, description="rank correlation by which a pattern must beat its rivals")


class Steer(Record):
    """What `prosect steer` does."""

    token: str = Field("", description="the token to steer toward; it must be a single one")
    site: str = Field("", description="where; empty: the middle of the network")
    vector: Literal["means", "probe", "latent"] = Field(
        "means", description="the direction: a difference of means, a probe's normal, or what a latent writes"
    )
    dictionary: str = Field("", description="file of the dictionary that the latent is of")
    latent: int = Field(0, ge=0, description="its number")
    strengths: tuple[float, ...] = Field(
        (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0), min_length=1, description="doses: factors on the direction"
    )
    controls: int = Field(4, ge=1, description="random directions of the same length")
    rows: int = Field(96, ge=1, description="windows of explore that the curve is read on")
    margin: float = Field(0.05, ge=0, description="nats by which a dose must beat random directions")


class Synthesise(Record):
    """What `prosect synthesise` does."""

    site: str = Field("", description="where the units are; empty: mlp_act in the middle of the network")
    indices: tuple[int, ...] = Field((), description="units to make strings for; empty: drawn at random")
    units: int = Field(4, ge=1, description="units drawn at random, where none are named")
    length: int = Field(4, ge=1, description="tokens in a string")
    seeds: int = Field(3, ge=1, description="searches for each unit; each starts elsewhere")
    steps: int = Field(30, ge=1, description="most steps of one search")
    candidates: int = Field(64, ge=2, description="swaps of a token run at each step")
    budget: int = Field(3000, ge=1, description="most strings run in one search")
    margin: float = Field(
        0.5,
        ge=0,
        description="standard deviations of the unit on explored text by which a string must beat its rivals",
    )


class Attribute(Record):
    """What `prosect attribute` does."""

    methods: tuple[str, ...] = Field(
        ("saliency", "input-x-gradient", "integrated-gradients"),
        min_length=1,
        description="methods whose maps are claimed to order features as patching does",
    )
    tokens: int = Field(16, ge=3, description="most tokens of a window that are attributed: the first ones")
    rows: int = Field(16, ge=2, description="explored rows that maps and their sanity checks are made on")
    donors: int = Field(
        0,
        ge=0,
        description="explored rows that features are replaced from; 0: 4 windows of text, 32 rows of numbers",
    )
    networks: int = Field(
        1, ge=1, description="networks with random weights whose maps each method must beat"
    )
    steps: int = Field(8, ge=1, description="gradients on each path of integrated gradients")
    output: int = Field(0, ge=0, description="which output is asked about, where inputs are numbers")
    margin: float = Field(
        0.05, ge=0, description="rank correlation by which a map must beat its controls and baselines"
    )


class Probe(Record):
    """What `prosect probe` does."""

    concept: str = Field(
        "inside brackets",
        description="what is read: inside quotes, inside comment, inside brackets, repeated, class NAME, next TOKEN",
    )
    sites: tuple[str, ...] = Field(
        ("resid_post",), min_length=1, description="where: sites, heads, or kinds for every layer"
    )
    tokens: int = Field(
        16_000, ge=100, description="most explored positions; probes are fitted to half of them"
    )
    margin: float = Field(
        0.01, ge=0, description="share of positions told right by which a probe must beat its rivals"
    )


class Validate(Record):
    """What a claim must do to be supported."""

    rounds: int = Field(
        2, ge=1, le=8, description="turns of the loop; the error budget of .05 is divided over them"
    )
    units_min: int = Field(40, ge=40, description="independent units a test needs (no lower than 40)")
    firing_min: int = Field(20, ge=1, description="units in which a component must be active")
    margin: float = Field(
        0.1, ge=0, description="correlation by which a cause must beat controls and baselines"
    )
    margin_table: float = Field(
        0.02, ge=0, description="correlation by which a cause must beat the plain tables it has to beat"
    )
    margin_attention: float = Field(
        0.1, ge=0, description="share of attention by which a role must beat its rivals"
    )
    margin_loss: float = Field(
        0.01, ge=0, description="nats by which removing a head must hurt more than removing others"
    )
    margin_effect: float = Field(0.05, ge=0, description="nats by which an effect must beat its controls")
    margin_change: float = Field(
        0.2, ge=0, description="correlation by which a predicted change must beat its rivals"
    )
    margin_replacement: float = Field(
        0.05, ge=0, description="share of right answers that a replacement may lose"
    )
    effect_rows: int = Field(44, ge=1, description="windows in which each component is removed")
    seal: bool = Field(True, description="re-estimate supported claims once on the sealed split at the end")


class Spec(Record):
    """A run."""

    target: str = Field(description="preset, organism:NAME, local Hugging Face folder or hub id")
    seed: int = Field(0, ge=0, description="root of every random choice")
    device: str = Field("auto", description="cpu, cuda, mps or auto")
    limit: int = Field(
        0, ge=0, description="most documents or inputs in each part; above 0 the run is marked as partial"
    )
    null: Literal["", "statistical"] = Field(
        "",
        description="statistical: break the link between inputs and activations, so that every claim is false",
    )
    studies: tuple[Study, ...] = Field(
        (),
        description="what to examine: latents, heads, residues, features, replacement, patching, lens, flow, "
        "steering, attribution, synthesis, probing",
    )
    scripted: bool = Field(False, description="add a wrong claim on purpose, to show it fail and be refined")
    trust_remote_code: bool = Field(False, description="let the model's own code run")
    allow_pickle: bool = Field(False, description="load weights from pickles")
    data: Data = Data()
    decompose: Decompose = Decompose()
    describe: Describe = Describe()
    patch: Patch = Patch()
    lens: Lens = Lens()
    flow: Flow = Flow()
    steer: Steer = Steer()
    attribute: Attribute = Attribute()
    synthesise: Synthesise = Synthesise()
    probe: Probe = Probe()
    validate_: Validate = Field(Validate(), alias="validate")

    model_config = ConfigDict(populate_by_name=True)  # added to Record's: frozen, no unknown keys, no NaN


def read_spec(path: Path) -> Spec:
    """A spec from a TOML file.

    Raises:
        BadInput: the file is missing, not TOML, or has a value that does not fit.
        UnknownName: it has a key that does not exist.
    """
    path = Path(path)
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise BadInput(f"{path}, which {what}", "a spec in TOML", "prosect spec TARGET > FILE")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}, which is not TOML ({error})", "a spec in TOML") from error
    return make_spec(content)


def make_spec(content: dict[str, Any]) -> Spec:
    """A spec from nested values, every unknown or unfitting one refused by name."""
    try:
        return Spec.model_validate(content)
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(p) for p in problem["loc"])
            if problem["type"] == "extra_forbidden":
                raise UnknownName("key", where, keys()) from error
            raise BadInput(
                f"{where} = {json.dumps(problem.get('input'), default=str)}", problem["msg"].lower()
            ) from error
        raise


def keys() -> list[str]:
    """Every key of a spec, dotted."""
    out = []
    for name, field in Spec.model_fields.items():
        key = field.alias or name
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Record):
            out += [f"{key}.{k}" for k in inner.model_fields]
        else:
            out.append(key)
    return out


def dump(spec: Spec) -> dict[str, Any]:
    """The spec as nested plain values, aliases used."""
    return spec.model_dump(mode="json", by_alias=True)


def to_toml(spec: Spec) -> str:
    """The spec as TOML, a comment for every field."""
    values = dump(spec)
    lines = ["# A prosect spec. Edit and run: prosect run THIS-FILE", ""]
    tables: list[tuple[str, type[Record]]] = []
    for name, field in Spec.model_fields.items():
        key = field.alias or name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Record):
            tables.append((key, field.annotation))
        else:
            lines += [f"# {field.description}", f"{key} = {_value(values[key])}"]
    for key, record in tables:
        lines += ["", f"[{key}]  # {(record.__doc__ or '').splitlines()[0].rstrip('.').lower()}"]
        for inner, field in record.model_fields.items():
            lines += [f"# {field.description}", f"{inner} = {_value(values[key][inner])}"]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + "}"
    text = json.dumps(value, ensure_ascii=False)  # TOML strings and numbers are JSON's,
    return text.replace("\x7f", "\\u007f")  # but for one control character
