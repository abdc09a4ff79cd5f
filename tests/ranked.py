"""Several processes for tests of ranks: each runs the same jobs, and what they made is compared in the test's own.

Jobs live here, because a process that was started anew has to find them. They find one another through a file.
"""

import contextlib
import itertools
import json
import multiprocessing
import os
from pathlib import Path

import torch

from killed import Killed
from prosect.core.errors import Conflict
from prosect.core.seeds import Seed
from prosect.decompose.calibrate import calibrated
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.fitting import Harvesting, fit_dictionaries
from prosect.decompose.objectives import L1, BatchTopK, EachTopK, Gated, JumpReLU, Matryoshka, Pursued
from prosect.decompose.pursuit import Pursuit
from prosect.decompose.ranks import checkpoints
from prosect.decompose.ranks.dealt import ALONE, Latents, Positions
from prosect.decompose.ranks.pursuing import pursued
from prosect.decompose.ranks.sharded import Sharded
from prosect.decompose.ranks.world import RankLost, joined
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream, batches
from prosect.decompose.trainer import Trainer
from prosect.store.tensors import load_tensors, save_tensors
from traced import Model as TracedModel
from traced import Text

D, LATENTS, BATCH, STEPS = 10, 24, 32, 12
CLOSE = 2e-4
"""Of the largest number of its kind, after 12 steps of Adam at a rate of 0.01; sums are made in another order."""
HOWS = {"positions": Positions, "latents": Latents}
EVERY = {
    "topk": EachTopK(3),
    "batchtopk": BatchTopK(3),
    "matryoshka": Matryoshka(3, (4, 9, 24)),
    "l1": L1(0.3),
    "annealed": L1(0.3, power=0.4, anneal_from=0.2, anneal_steps=3),
    "gated": Gated(0.3),
    "jumprelu": JumpReLU(weight=0.02, bandwidth=0.4, start=0.3),
    "jumprelu-target": JumpReLU(target_l0=2.0, bandwidth=0.4, start=0.3),
}
KINDS = {
    **{name: ("x", {"sparsity": objective}) for name, objective in EVERY.items()},
    "crosscoder": (("x", "y"), {"sparsity": L1(0.3), "targets": ("x", "y", "z")}),
    "transcoder": ("x", {"sparsity": EachTopK(3), "targets": "y", "skip": True}),
    "cross-layer": (("x", "y"), {"sparsity": EachTopK(3), "targets": ("z", "w"), "cross_layer": True}),
    "resampled": ("x", {"sparsity": EachTopK(3)}),
    "pursued": ("x", {"sparsity": Pursued(3)}),
}


def rows(n, seed=0):
    generator = Seed(seed).child("test").torch()
    s = (torch.rand(n, 20, generator=generator) < 0.15) * torch.rand(n, 20, generator=generator)
    return s @ torch.randn(20, D, generator=generator) + 3


def stream(steps=STEPS):
    # blocks and batches share no edge
    return ArrayStream({site: rows(steps * BATCH, seed=i) for i, site in enumerate("xyzw")}, block=50)


def dictionary(kind, **recipe):
    sites, asked = KINDS[kind]
    given = {
        "batch": BATCH,
        "rate": 1e-2,
        "aux": 1 / 4,
        "aux_latents": 3,
        "dead_after": 100,
        "start_rows": 200,
    }
    if not asked["sparsity"].auxk or kind == "resampled":
        given["resample"] = (0.5, 0.8)
    given["calibration_rows"] = 400
    return Dictionary(sites, LATENTS, recipe=Recipe(**{**given, **recipe}), **asked)


def trained(ranks, kind):
    """A training watched at every step: who was picked where, and for how long each latent has been idle."""
    made, data = dictionary(kind), stream()
    trainer = Trainer(made, data.widths, STEPS, ranks)
    trainer.start(data)
    for latent in (3, 11, 20):  # dead, and on both ranks
        if trainer.span.start <= latent < trainer.span.stop:
            trainer.idle[latent - trainer.span.start] = 10**6
            trainer.bias.data[latent - trainer.span.start] = -1.0 if "topk" in kind else -5.0
    seen, idle = [], []
    for batch in batches(data, data.sites, BATCH):
        share = ranks.share(batch)
        x = trainer._standard(share, trainer.reads, trainer.read)
        with torch.no_grad():
            pre = torch.addmm(trainer.bias, x, trainer.encoder.T)
            picks = trainer.objective.select(pre, trainer.parameters(), ranks)
            fires = pre.reshape(-1)[picks.places] > 0
        everywhere = torch.zeros(len(x), trainer.span.stop - trainer.span.start)
        everywhere[picks.rows[fires], picks.latents[fires]] = 1.0
        seen.append(everywhere)
        trainer.advance(share)
        trainer.note()
        idle.append(trainer.idle.clone())
    x = rows(300)
    x = torch.cat([x] * len(made.reads), dim=1)
    weights, facts = calibrated(trainer.weights(), trainer.objective, x, ranks.lasting)
    named = {n: t for n, t in vars(weights).items() if t is not None}
    about = {"history": trainer.history, "facts": facts, "elements": trainer.encoder.numel()}
    return {**named, "seen": torch.stack(seen), "idle": torch.stack(idle)}, about


def agree_with_one(how, kind, results):
    """What ranks made of a training is what one process makes of it."""
    expected, about = trained(ALONE, kind)
    found = {name: together(how, name, results) for name in expected}
    assert torch.equal(found["seen"], expected["seen"])
    assert torch.equal(found["idle"], expected["idle"])
    dead = (expected["idle"] >= dictionary(kind).recipe.dead_after).sum(dim=1)
    assert dead.max() > 0  # what is done about dead latents was done
    for name in expected.keys() - {"seen", "idle"}:
        far = (found[name] - expected[name]).abs().max()
        assert far <= CLOSE * expected[name].abs().max().clamp_min(1e-3), (name, float(far))
    for _, said in results:
        assert said["elements"] == about["elements"] // (2 if how == "latents" else 1)
        for point, other in zip(said["history"], about["history"], strict=True):
            assert point["l0"] == other["l0"] and point["dead"] == other["dead"]
            assert abs(point["fvu"] - other["fvu"]) <= 1e-3 * other["fvu"]
        assert abs(said["facts"]["l0"] - about["facts"]["l0"]) <= 0.02
        assert said["facts"]["positions"] == about["facts"]["positions"]
    assert len(about["history"]) == STEPS


def together(how, name, results):
    """What two ranks made, as one would have it."""
    of_latents = {"encoder": 0, "bias": 0, "decoder": 0, "threshold": 0, "idle": 1, "seen": 2}
    parts = [tensors[name] for tensors, _ in results]
    if how == "latents" and name in of_latents:
        return torch.cat(parts, dim=of_latents[name])
    if how == "positions" and name == "seen":
        return torch.cat(parts, dim=1)
    assert torch.equal(*parts)  # to the bit: both go on from the same numbers
    return parts[0]


def tied(ranks, how):
    """The largest among many equal ones."""
    out = {}
    if (
        how == "latents"
    ):  # every direction is there four times, twice on each rank; products are whole numbers
        decoder, x = (
            torch.eye(6).repeat(4, 1),
            torch.randint(-2, 5, (40, 6), generator=Seed(9).torch()).float(),
        )
        here = ranks.span(24)
        out["pursued"] = pursued(Pursuit(4), x, decoder[here].clone(), ranks).dense()[:, here]
    for seed in range(6):
        pre = torch.randint(-2, 3, (8, 16), generator=Seed(seed).torch()).float()
        here = ranks.share({"x": pre})["x"][:, ranks.span(16)]
        for k in (1, 3, 7):
            picks = ranks.largest(here, k) if how != "positions" else None
            chosen = torch.zeros_like(here)
            if picks is not None:
                values = here[picks.rows, picks.latents]
                chosen[picks.rows, picks.latents] = (values > 0).float()
            out[f"each.{seed}.{k}"] = chosen
            every = torch.zeros(here.numel())
            every[ranks.largest_of_all(here, k * 8)] = 1.0
            out[f"all.{seed}.{k}"] = every.view(here.shape)
    return out, None


JOBS = {"trained": trained, "tied": tied}


def run(folder, jobs, size=2, how="positions"):
    """What each rank made of each job: {name: [(tensors, about) of rank 0, of rank 1 ...]}.

    Args:
        folder: an empty one.
        jobs: (function's name, arguments) by name.
        size: how many processes.
        how: what is dealt.
    """
    (folder / "jobs.json").write_text(json.dumps(jobs))
    codes = started(folder, size, work, how)
    assert codes == [0] * size, codes
    return {
        name: [load_tensors(folder / f"{name}.{rank}.safetensors") for rank in range(size)] for name in jobs
    }


def started(folder, size, target, *given):
    """Exit codes of processes that ran ``target(rank, size, folder, ...)``."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=(r, size, str(folder), *given)) for r in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def work(rank, size, folder, how):
    torch.set_num_threads(1)
    folder = Path(folder)
    with joined(f"file://{folder / 'meeting'}", rank, size) as world:
        ranks = HOWS[how](world)
        for name, (job, given) in json.loads((folder / "jobs.json").read_text()).items():
            tensors, about = JOBS[job](ranks, *given)
            save_tensors(folder / f"{name}.{rank}.safetensors", tensors, about)


@contextlib.contextmanager
def dying(owner, name, at, how):
    """The ``at``-th call of a function does not happen; ``how`` happens instead."""
    original, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            how()
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)
    try:
        yield
    finally:
        setattr(owner, name, original)


def kill():
    raise Killed


DEATHS = {
    # what is dealt, which rank dies, what it was about to do, how often it had done that before
    "in a step": ("positions", 1, (Trainer, "advance"), 8),
    "before the checkpoint is written": ("positions", 0, (checkpoints, "save_tensors"), 2),
    "before its own part is written": ("latents", 1, (checkpoints, "save_tensors"), 2),
    "before the parts count": ("latents", 0, (checkpoints, "save_tensors"), 4),
    "before the last parts go": ("latents", 1, (Path, "unlink"), 1),
}


def fitted(ranks, workspace=None):
    """The weights after training with checkpoints every third step."""
    data = stream()
    if isinstance(ranks, Latents):
        made = Sharded.fit(dictionary("topk"), data, ranks, workspace, 3)
        return {n: t for n, t in vars(made.weights).items() if t is not None}, made.history
    return dictionary("topk").fit(data, workspace, 3, ranks=ranks).state()[0], None


def failures(rank, size, folder):
    """Every death, what the other rank says, and what comes of going on; last a death that is none of Python's."""
    torch.set_num_threads(1)
    folder = Path(folder)
    said = {}
    worlds = itertools.count()

    def world():
        return joined(f"file://{folder / f'meeting{next(worlds)}'}", rank, size)

    for how, dealt in HOWS.items():
        with world() as together:
            save_tensors(folder / f"{how}.{rank}.safetensors", fitted(dealt(together))[0])
    for death, (how, dies, (owner, name), at) in DEATHS.items():
        workspace = folder / death
        stop = dying(owner, name, at, kill) if rank == dies else contextlib.nullcontext()
        try:
            with stop, world() as together:
                fitted(HOWS[how](together), workspace)
        except (Killed, RankLost) as error:
            said[death] = [type(error).__name__, str(error)]
        with world() as together:
            together.wait()
            if rank == 0:
                said[f"{death}: files"] = sorted(p.name for p in workspace.iterdir())
            together.wait()
            save_tensors(folder / f"{death}.{rank}.safetensors", fitted(HOWS[how](together), workspace)[0])
    with world() as together:  # others than wrote it; and ranks that are not at the same thing
        for refused in ("latents", "positions"):
            ranks = HOWS[refused](together)
            other = folder / {"latents": "in a step", "positions": "before the parts count"}[refused]
            for name, call in {
                f"{refused} where the other was dealt": lambda r=ranks, o=other: fitted(r, o),
                f"{refused} of another training": lambda r=ranks: r.agree("training", rank),
            }.items():
                try:
                    call()
                except Conflict as error:
                    said[name] = ["Conflict", str(error)]
    (folder / f"said.{rank}.json").write_text(json.dumps(said))
    end = dying(Trainer, "advance", 5, lambda: os._exit(9)) if rank == 1 else contextlib.nullcontext()
    try:
        with end, world() as together:
            fitted(Positions(together), folder / "gone")
    except RankLost as error:
        (folder / f"gone.{rank}.txt").write_text(str(error))
        raise SystemExit(3) from None


def folder_of_dictionaries(ranks, out):
    """As `prosect fit` does it, with two dictionaries from one harvest."""
    recipe = Recipe(batch=16, rate=1e-2, dead_after=100, start_rows=60)
    made = {
        "first": Dictionary("resid_post.0", 8, TopK(2), recipe=recipe),
        "other": Dictionary("z.0", 6, TopK(1), recipe=recipe, seed=Seed(1)),
    }
    done = fit_dictionaries(
        TracedModel(), Text(), made, Path(out), 240, harvesting=Harvesting(rows=4), every=5, ranks=ranks
    )
    tensors = {f"{n}.{k}": t for n, d in done.dictionaries.items() for k, t in d.state()[0].items()}
    again = fit_dictionaries(
        TracedModel(), Text(), made, Path(out), 240, harvesting=Harvesting(rows=4), every=5, ranks=ranks
    )
    return tensors, {"record": done.record, "fresh": [done.fresh, again.fresh]}


def sharded(ranks, folder, kinds):
    """Encoding, decoding, saving and loading a dictionary whose latents are dealt."""
    out, about = {}, {}
    for kind in kinds:
        made = Sharded.fit(dictionary(kind), stream(), ranks)
        path = Path(folder) / f"{kind}.safetensors"
        made.save(path, "model")
        loaded = Sharded.load(path, ranks)
        for name, one in (("made", made), ("loaded", loaded)):
            x = {"x": rows(70, seed=5)}
            codes = one.encode(x)
            out[f"{kind}.{name}.codes"] = codes.dense()
            out |= {f"{kind}.{name}.{site}": y for site, y in one.reconstruct(x, codes).items()}
            about[f"{kind}.{name}"] = {
                "elements": sum(t.numel() for t in vars(one.weights).values() if t is not None),
                "facts": one.facts,
                "places": codes.values.shape[1],
            }
    return out, about


JOBS |= {"folder": folder_of_dictionaries, "sharded": sharded}
