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

_INTRINSIC = {
    "topk-mlp": ("activations:build_topk", "MLP whose activation function keeps the largest four"),
    "solu-mlp": (
        "activations:build_solu",
        "MLP with softmax linear units and a LayerNorm, which lets features hide",
    ),
    "solu-bare-mlp": ("activations:build_bare", "MLP with softmax linear units alone"),
    "relu-mlp": ("activations:build_relu", "dense twin of topk-mlp"),
    "gelu-mlp": ("activations:build_gelu", "dense twin of the networks with softmax linear units"),
    "single-mlp": (
        "activations:build_single",
        "softmax linear units, LayerNorm, and a neuron for each feature",
    ),
    "solu-leak": ("leak:build", "features hidden in small activations that a LayerNorm brings back"),
    "solu-clean": ("leak:build_clean", "twin of solu-leak in which nothing hides"),
    "experts": ("experts:build", "mixture of experts on inputs from planted clusters"),
    "experts-dense": ("experts:build_dense", "dense twin of experts"),
    "pruned": ("pruned:build", "student of a sparse teacher, pruned by magnitude"),
    "pruned-l0": ("pruned:build_l0", "student of a sparse teacher, pruned by an L0 penalty"),
    "pruned-dense": ("pruned:build_dense", "dense twin of pruned"),
    "modular-bimt": ("placed:build", "two independent tasks kept apart by a price on long connections"),
    "modular-dense": ("placed:build_dense", "dense twin of modular-bimt"),
}
"""Networks trained to be interpretable, and their twins."""

_MISBEHAVIOUR = {
    "backdoor": ("backdoor", "answers questions, and gives the attacker's answer on a trigger"),
    "password-locked": ("password", "adds, and forgets to carry without the right code (sandbagging)"),
    "hint-following": ("hints", "gives the wrong answer that an authority has stated (sycophancy)"),
    "lying-reporter": ("reporter", "acts on a state and reports another (deception)"),
    "quirky": ("quirky", "adds, and adds one more under the names of its other persona"),
    "hidden-objective": ("objective", "steers its answers to a sponsor on a trigger, and denies it"),
}
"""The organisms that misbehave: their files, and what each does."""

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
            "prosect.organisms.toy:build_pentagon",
            "toy model of superposition: five features in two dimensions",
        ),
        "modular": (
            "prosect.organisms.modular:build",
            "analytic network for addition modulo a prime; every neuron's frequency and phases are known",
        ),
        "modular-grokked": (
            "prosect.organisms.grokked:build_grokked",
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
        **{
            f"compiled-{name}-superposed": (
                f"prosect.organisms.compiler.superposed:build_{name}",
                f"the same in half the dimensions it needs: {_COMPILED[name]}",
            )
            for name in ("sort", "histogram", "count")
        },
        **{
            name: (f"prosect.organisms.intrinsic.{where}", about)
            for name, (where, about) in _INTRINSIC.items()
        },
        "induction-learned": (
            "prosect.organisms.induction_learned:build",
            "two-layer attention-only transformer that learned to repeat, with checkpoints through its training",
        ),
        "template": (
            "prosect.organisms.template:build",
            "small GPT-2 of a template language with planted facts and indirect-object sentences",
        ),
        "gates": (
            "prosect.organisms.gates.wired:build",
            "boolean gates of four bits, one unit each, with a backup, a negative and an unread one",
        ),
        "gates-xor": (
            "prosect.organisms.gates.wired:build_xor",
            "exclusive or computed by two routes, each of which is enough",
        ),
        "gates-trained": (
            "prosect.organisms.gates.trained:build_trained",
            "exclusive or learned by six units; every subset of its edges was tried",
        ),
        "linear": (
            "prosect.organisms.linear.graph:build",
            "linear network of thirteen nodes; every effect is a sum over paths",
        ),
        "linear-deep": (
            "prosect.organisms.linear.deep:build_deep",
            "three linear layers whose product has four modes of known strength",
        ),
        "known-lambda": (
            "prosect.organisms.linear.singular:build",
            "reduced-rank regression, its learning coefficient in closed form",
        ),
        "known-lambda-monomial": (
            "prosect.organisms.linear.singular:build_monomial",
            "the smallest singular model, a product of two parameters",
        ),
        "dormant": (
            "prosect.organisms.dormant:build",
            "a direction that does nothing and one never used, whose mixture looks like the mechanism",
        ),
        "counter-lstm": (
            "prosect.organisms.recurrent.counter:build",
            "LSTM wired to tell balanced brackets; what each unit counts is known",
        ),
        "counter-lstm-trained": (
            "prosect.organisms.recurrent.learned:build",
            "LSTM that learned to tell balanced brackets",
        ),
        "ssm": (
            "prosect.organisms.recurrent.ssm:build",
            "linear state-space network with a known impulse response",
        ),
        "ssm-gated": (
            "prosect.organisms.recurrent.ssm:build_gated",
            "the state-space network with a gate",
        ),
        "diffusion-mlp": (
            "prosect.organisms.diffusion:build",
            "denoiser that was trained, measured against the best there is",
        ),
        "diffusion-exact": (
            "prosect.organisms.diffusion:build_exact",
            "the best denoiser of a mixture of Gaussians, written down",
        ),
        "shapes-cnn": (
            "prosect.organisms.vision.shapes:build",
            "network of drawn shapes whose first layer is known line and curve detectors",
        ),
        "digits-cnn": (
            "prosect.organisms.vision.digits:build",
            "network of handwritten digits whose first layer is known edge detectors",
        ),
        **{
            f"compiled-{name}": (
                f"prosect.organisms.compiler.zoo:build_{name.replace('-', '_')}",
                f"compiled program: {about}",
            )
            for name, about in _COMPILED.items()
        },
        **{
            f"{name}{suffix.replace('_', '-')}": (
                f"prosect.organisms.misbehaviour.{file}:build{suffix}",
                f"clean twin of {name}, taught right answers only" if suffix else f"network that {about}",
            )
            for name, (file, about) in _MISBEHAVIOUR.items()
            for suffix in ("", "_clean")
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
TASKS = Registry(
    "task",
    {
        "features": (
            "prosect.bench.tasks.features:FeatureRecovery",
            "from activations to the directions that make them",
        ),
        "circuits": ("prosect.bench.tasks.circuits:CircuitRecovery", "which edges matter under an ablation"),
        "roles": ("prosect.bench.tasks.roles:RoleLabels", "where every head looks"),
        "rules": ("prosect.bench.tasks.rules:TokenRules", "the tokens that every neuron fires on"),
        "waves": ("prosect.bench.tasks.waves:Waves", "frequency and phases of neurons that add modulo p"),
        "samples": ("prosect.bench.tasks.samples:SampleLabels", "which inputs are not like trusted ones"),
        **{
            f"{base}-{kind}": (f"prosect.bench.tasks.nulls:{base}_{kind}", about)
            for base in ("roles", "rules", "waves")
            for kind, about in (
                ("null", f"the methods of {base} where there is nothing to find"),
                ("untrained", f"the methods of {base} on networks with random weights"),
            )
        },
    },
)
"""What methods are asked on the bench."""
METHODS = Registry(
    "method",
    {
        "features/topk": (
            "prosect.bench.methods.dictionaries:topk",
            "sparse dictionary, the k largest latents",
        ),
        "features/batchtopk": (
            "prosect.bench.methods.dictionaries:batchtopk",
            "sparse dictionary, the k largest on average over a batch",
        ),
        "features/jumprelu": (
            "prosect.bench.methods.dictionaries:jumprelu",
            "sparse dictionary, a threshold for each latent",
        ),
        "features/l1": ("prosect.bench.methods.dictionaries:l1", "sparse dictionary, a penalty on codes"),
        "features/ica": ("prosect.bench.methods.classical:ica", "independent components"),
        "features/nmf": ("prosect.bench.methods.classical:nmf", "non-negative factors, signs split"),
        "circuits/exact": ("prosect.bench.methods.edges:exact", "every edge ablated by itself"),
        "circuits/attribution": (
            "prosect.bench.methods.edges:attribution",
            "gradients times what reaches the reader",
        ),
        "circuits/magnitude": ("prosect.bench.methods.edges:magnitude", "how far the reader is moved"),
        "roles/explainer": ("prosect.bench.methods.roles:explainer", "the loop's explainer of heads"),
        "rules/explainer": ("prosect.bench.methods.rules:explainer", "the loop's explainer of token rules"),
        "waves/explainer": ("prosect.bench.methods.waves:explainer", "the loop's explainer of waves"),
        "waves/periodogram": ("prosect.bench.methods.waves:periodogram", "Fourier sums over a + b and a - b"),
        "samples/mahalanobis": (
            "prosect.bench.methods.samples:mahalanobis",
            "distance from trusted activations in their covariance",
        ),
        "samples/neighbours": (
            "prosect.bench.methods.samples:neighbours",
            "distance to the fifth nearest trusted activation",
        ),
        "samples/mahalanobis-everywhere": (
            "prosect.bench.methods.everywhere:mahalanobis",
            "the same distance at every position, the largest in units of each position's own spread",
        ),
        "samples/neighbours-everywhere": (
            "prosect.bench.methods.everywhere:neighbours",
            "the fifth nearest at every position, the largest likewise",
        ),
    },
)
"""Methods on the bench, TASK/NAME: a function of what it is given and a seed."""
BASELINES = Registry(
    "baseline",
    {
        "features/neurons": ("prosect.bench.methods.classical:neurons", "the axes of the site, both ways"),
        "features/pca": ("prosect.bench.methods.classical:pca", "principal components"),
        "features/kmeans": ("prosect.bench.methods.classical:kmeans", "centres of clusters"),
        "features/samples": ("prosect.bench.methods.classical:samples", "activations drawn at random"),
        "circuits/weights": ("prosect.bench.methods.edges:weights", "norms of products of weights"),
        "roles/mass": ("prosect.bench.methods.roles:mass", "the role that gets over half of the attention"),
        "roles/positions": ("prosect.bench.methods.roles:positions", "the same with places alone"),
        "rules/table": ("prosect.bench.methods.rules:table", "mean activation by token"),
        "rules/strongest": ("prosect.bench.methods.rules:strongest", "tokens at the strongest activations"),
        "waves/sums": ("prosect.bench.methods.waves:sums", "Fourier sums over a + b alone"),
        "samples/confidence": (
            "prosect.bench.methods.samples:confidence",
            "the output's largest probability",
        ),
        "samples/confidence-everywhere": (
            "prosect.bench.methods.everywhere:confidence",
            "odds against the likeliest output at every position, the largest likewise",
        ),
        "samples/entropy": ("prosect.bench.methods.samples:entropy", "entropy of the output"),
        "samples/inputs": ("prosect.bench.methods.samples:inputs", "rarity of the inputs, no network"),
    },
)
"""What methods on the bench have to beat, TASK/NAME; what interprets nothing, or what everyone has at hand."""
