"""The tables of names: what exists, and where it is, without importing any of it.

A floor may look up a name here whose code lies above it: `prosect.load("organism:induction")` reaches a
builder, and a test runs a description, without importing the room either lives in.
"""

from __future__ import annotations

from prosect.core.registry import Registry

_COMPILED = {
    "reverse": "the sequence backwards",
    "sort": "the numbers in ascending order",
    "histogram": "how often each token occurs",
    "fraction-previous": "the share of x among the tokens so far",
    "dyck-1": "whether round brackets are balanced",
    "dyck-2": "whether brackets of two sorts are balanced",
    "most-frequent": "the token that occurs most often",
    "remove-duplicates": "each token once, in order",
    "detect-pattern": "where a b a has just been read",
    "count": "how often x occurs",
    "max-of-k": "the largest of the numbers",
    "modular-sum": "the sum modulo 3",
    "induction": "what followed this token the last time",
    "difference-of-shares": "the share of x so far less that of y",
}
"""The programs that ship, and what each computes."""

ORGANISMS = Registry(
    "organism",
    {
        "induction": (
            "prosect.organisms.induction:build",
            "hand-wired two-layer attention-only transformer that repeats what followed a token before",
        ),
        "superposition": (
            "prosect.organisms.superposition:build",
            "64 hidden units carrying 256 sparse features in superposition",
        ),
        "pentagon": (
            "prosect.organisms.superposition:build_pentagon",
            "toy model of superposition: five features in two dimensions",
        ),
        "modular": (
            "prosect.organisms.modular:build",
            "analytic network for addition modulo a prime; every neuron's frequency and phases are known",
        ),
        "modular-grokked": (
            "prosect.organisms.modular:build_grokked",
            "network trained on addition modulo a prime until it generalises",
        ),
        "planted": (
            "prosect.organisms.planted:build",
            "token network whose neurons follow planted rules and raise planted outputs, decoys among them",
        ),
        "deceptive": (
            "prosect.organisms.deceptive:build",
            "network trained so that its gradient points at the wrong features",
        ),
        "pylm": (
            "prosect.organisms.pylm:build",
            "real language model of Python source; nobody knows its mechanism",
        ),
        "compiled-sort-superposed": (
            "prosect.organisms.compiler.superposed:build",
            "program that sorts, trained into half the dimensions it needs",
        ),
        **{
            f"compiled-{name}": (
                f"prosect.organisms.compiler.zoo:build_{name.replace('-', '_')}",
                f"program compiled to a transformer: {about}",
            )
            for name, about in _COMPILED.items()
        },
    },
)
DECOMPOSITIONS = Registry(
    "decomposition",
    {
        "neurons": ("prosect.decompose.linear:Neurons", "the units of a site as they are"),
        "heads": ("prosect.decompose.linear:Heads", "the attention heads of a layer"),
        "random": (
            "prosect.decompose.linear:RandomDirections",
            "random directions, the floor for every other",
        ),
        "pca": ("prosect.decompose.linear:Pca", "principal components"),
        "svd": ("prosect.decompose.linear:Svd", "singular vectors of the uncentred activations"),
        "ica": ("prosect.decompose.linear:Ica", "independent components"),
        "nmf": ("prosect.decompose.linear:Nmf", "non-negative matrix factorisation, signs split"),
        "kmeans": ("prosect.decompose.linear:KMeans", "cluster centres"),
        "topk": ("prosect.decompose.dictionary:Dictionary", "sparse dictionary, the k largest latents"),
        "batchtopk": (
            "prosect.decompose.dictionary:Dictionary",
            "sparse dictionary, the k largest latents for each position of a batch, on average",
        ),
        "matryoshka": (
            "prosect.decompose.dictionary:Dictionary",
            "sparse dictionary whose first latents reconstruct by themselves",
        ),
        "pursuit": (
            "prosect.decompose.dictionary:Dictionary",
            "sparse dictionary, codes found one after another by matching pursuit",
        ),
        "l1": ("prosect.decompose.dictionary:Dictionary", "sparse dictionary, the sum of codes penalised"),
        "gated": (
            "prosect.decompose.dictionary:Dictionary",
            "sparse dictionary, whether a latent fires apart from how much",
        ),
        "jumprelu": (
            "prosect.decompose.dictionary:Dictionary",
            "sparse dictionary, a learned threshold for each latent",
        ),
    },
)
DESCRIPTIONS = Registry(
    "description kind",
    {
        "token-rule": ("prosect.describe.rules:TokenRule", "a short rule over tokens and their context"),
        "token-table": ("prosect.describe.tables:TokenTable", "mean activation for each token"),
        "position-table": ("prosect.describe.tables:PositionTable", "mean activation for each position"),
        "frequency-table": (
            "prosect.describe.tables:FrequencyTable",
            "mean activation for each band of token frequency",
        ),
        "head-role": ("prosect.describe.roles:HeadRole", "where a head looks, as a rule over the text"),
        "offset-table": ("prosect.describe.roles:OffsetTable", "mean attention for each distance"),
        "output-sets": ("prosect.describe.effects:OutputSets", "the outputs a component raises and lowers"),
        "polynomial": ("prosect.describe.polynomial:Polynomial", "a polynomial of two inputs"),
        "head-output": (
            "prosect.describe.head_outputs:HeadOutput",
            "what a head does to the tokens it looks at",
        ),
        "input-rule": ("prosect.describe.inputs:InputRule", "a sparse threshold rule over numeric inputs"),
        "lens-nearness": (
            "prosect.describe.lens.nearness:LensNearness",
            "how near a layer's reading is to the model's prediction",
        ),
        "flow-agreement": (
            "prosect.describe.flow.agreement:FlowAgreement",
            "how well where a head looks ranks its sources by what taking them out does",
        ),
        "steer-effect": (
            "prosect.describe.steered:SteerEffect",
            "what adding a direction does to how likely a token is",
        ),
        "patch-effect": (
            "prosect.describe.patched:PatchEffect",
            "what giving one place another run's value does to the answer",
        ),
        "string-activation": (
            "prosect.describe.synthesis.strings:StringActivation",
            "what a string of tokens does to a unit",
        ),
        "concept-reading": (
            "prosect.describe.probes.reading:ConceptReading",
            "how often a linear probe tells a concept right",
        ),
        "additive-table": (
            "prosect.describe.additive:AdditiveTable",
            "a sum of tables over the last few tokens",
        ),
        "surrogate": (
            "prosect.describe.surrogate:SurrogateRule",
            "a linear model, a tree or a sum of functions",
        ),
        "map-agreement": (
            "prosect.describe.attribution.agreement:MapAgreement",
            "how well an attribution map orders features by what replacing them does",
        ),
        "trigonometric": (
            "prosect.describe.trigonometric:Trigonometric",
            "a product of cosines of two residues",
        ),
        "trigonometric-output": (
            "prosect.describe.trigonometric:TrigonometricOutput",
            "a cosine over the outputs",
        ),
    },
)
TESTS = Registry(
    "test",
    {
        "predict-activations": (
            "prosect.validate.predict:PredictActivations",
            "level 1: predicted against measured activation",
        ),
        "attend": ("prosect.validate.attend:Attend", "level 1: attention on the keys a role predicts"),
        "head-matters": ("prosect.validate.matters:Matters", "effect: loss without a head"),
        "raise-outputs": ("prosect.validate.raises:RaiseOutputs", "effect: logits without a direction"),
        "change-outputs": (
            "prosect.validate.changes:ChangeOutputs",
            "effect: every output's change without a unit",
        ),
        "replace": ("prosect.validate.replace:Replace", "level 3: parts replaced by a description's code"),
        "learned": ("prosect.validate.learned:Learned", "rank among untrained networks"),
        "measured-effect": (
            "prosect.validate.measured:MeasuredEffect",
            "effect: the claim's own measurement, row by row, beside its rivals'",
        ),
    },
)
PRESETS = Registry(
    "preset",
    {
        "pylm": (
            "prosect.assay.openings.language:language",
            "a real language model of Python source, on real text",
        ),
        "induction": (
            "prosect.assay.openings.organisms:induction",
            "a hand-wired induction circuit among decoys",
        ),
        "superposition": (
            "prosect.assay.openings.organisms:superposition",
            "256 sparse features in 64 dimensions, and five in two",
        ),
        "modular": (
            "prosect.assay.openings.organisms:modular",
            "addition modulo 31, written down and learned",
        ),
        "planted": (
            "prosect.assay.openings.organisms:planted",
            "neurons with planted rules and outputs, decoys among them",
        ),
    },
)
