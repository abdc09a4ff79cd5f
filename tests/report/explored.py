"""Pictures of explore as a run would leave them: each kind, small and large, with controls and gaps."""

import numpy as np

from prosect.core.pictures import Curve, HeatMap, LensTable, Reading, Series, TokenMap, TokenValues
from prosect.core.records import Measured

PROMPT = ["def", " greet", "(", "self", ",", " name", ")", ":", "\n    ", "return", " self", ".", "name"]


def cells(values):
    return tuple(tuple(None if np.isnan(v) else float(v) for v in row) for row in values)


def heat(rng, rows, columns, *, title="Effect of patching the residual stream", causal=False, control=True):
    """A heat map whose largest cells lie along a path from the subject to the end."""
    height, width = len(rows), len(columns)
    values = rng.normal(0, 0.02, (height, width))
    for r in range(height):
        at = width // 3 if r < height * 0.6 else width - 1
        values[r, at] += 0.9 * (1 - abs(r / height - 0.5))
        values[r, max(0, at - 2)] -= 0.25
    beside = rng.normal(0, 0.03, (height, width))
    if causal:
        values[0, width // 2 :] = np.nan
        beside[0, width // 2 :] = np.nan
    top = np.argsort(-np.abs(np.nan_to_num(values)).ravel())[:3]
    return HeatMap(
        title=title,
        about="The clean run’s activation is put into the corrupted run, one site and position at a time; the "
        "control puts in that of an unrelated prompt.",
        rows=rows,
        columns=columns,
        values=cells(values),
        control=cells(beside) if control else (),
        unit="logit difference restored (share)",
        n=32,
        claimed=tuple((int(i) // width, int(i) % width) for i in top),
    )


def series(rng, name, role, centres, n=48):
    made = []
    for c in centres:
        half = rng.uniform(0.05, 0.12)
        made.append(
            Measured(
                estimate=float(c),
                low=float(c - half),
                high=float(c + half),
                n=n,
                method="studentised bootstrap over documents",
            )
        )
    return Series(name=name, role=role, measured=tuple(made))


def dose(rng, doses, along="strength, in norms of the direction"):
    x = np.array(doses)
    scale = max(abs(x).max(), 1e-9)
    return Curve(
        title="Steering along one latent",
        about="The latent’s direction is added at every position; controls are random directions of equal norm.",
        along=along,
        doses=tuple(float(d) for d in doses),
        series=(
            series(rng, "latent 17", "own", 1.6 * np.tanh(2 * x / scale)),
            series(rng, "random direction 1", "control", rng.normal(0, 0.1, len(x))),
            series(rng, "random direction 2", "control", rng.normal(0, 0.1, len(x))),
            series(rng, "loss on other text", "side effect", 0.8 * (x / scale) ** 2, n=40),
        ),
        unit="change of the logit (nats)",
    )


def lens(rng, layers, prompt, said):
    readings = []
    for i in range(layers):
        row = []
        for j in range(len(prompt)):
            p = float(np.clip(rng.beta(1 + 4 * i / layers, 3), 0, 1))
            right = rng.random() < (i + 1) / layers * 0.8
            token = prompt[(j + 1) % len(prompt)] if right else said(prompt[rng.integers(len(prompt))])
            row.append(Reading(token=token, probability=p, rank=1 if right else int(rng.integers(2, 2000))))
        readings.append(tuple(row))
    return LensTable(
        title="What each layer would say",
        about="The logit lens with the final norm’s own statistics.",
        tokens=tuple(prompt),
        layers=tuple(f"layer {i}" for i in range(layers)),
        readings=tuple(readings),
    )


def pictures(rng, said=str, large=True):
    """One of every kind and size.

    Args:
        large: whether there are maps as large as are drawn, and larger.
        said: what is done to every string; a hostile maker adds to it.
    """
    parts = ("attn_out", "mlp_out", "resid_post")
    sites = (*(f"{part}.{i}" for i in range(16 if large else 2) for part in parts), "final")
    prompt = tuple(said(t) for t in PROMPT)
    long = tuple(f"{i}" for i in range(64 if large else 20))
    small = heat(rng, tuple(f"resid_pre.{i}" for i in range(6)), prompt, causal=True)
    tokens = TokenMap(
        title=said("Integrated gradients for the next token"),
        about="Attribution to the embedding of each token; three texts drawn at random.",
        texts=tuple(
            TokenValues(
                tokens=tuple(said(t) for t in PROMPT * repeats),
                values=tuple(float(v) for v in rng.normal(0, 0.3, len(PROMPT) * repeats) ** 3),
                source=said("csv.py"),
                note="completeness error 0.4 %",
            )
            for repeats in (1, 4, 30 if large else 5)
        ),
        unit=said("nats"),
    )
    too_large = heat(
        rng, tuple(f"site {i}" for i in range(90)), tuple(map(str, range(150))), title="Too large"
    )
    return (
        small.model_copy(update={"title": said(small.title), "unit": said(small.unit)}),
        heat(rng, sites, long, title="Every site at 64 positions"),
        heat(rng, sites, tuple(prompt) * 2, title="Every site at each token", control=False),
        heat(rng, ("head 0", "head 1"), tuple("abc"), title="A small map"),
        *((too_large,) if large else ()),
        tokens,
        lens(rng, 12, list(prompt), said),
        dose(rng, (-4, -2, -1, 0, 1, 2, 4)),
        dose(rng, (0, 0.01, 0.1, 1, 10, 100), along=said("scale")),
        HeatMap(title=said("Broken"), about="", rows=("a",), columns=("b", "c"), values=((1.0,),)),
    )
