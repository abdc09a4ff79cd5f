"""Train the organism `template` and ship it.

    python scripts/train_template.py train WORK --seconds 240   # again and again until it says that it is done
    python scripts/train_template.py finish WORK                # writes the weights beside the package's others
    python scripts/train_template.py measure                    # measures the shipped ones again

About ten minutes on one core. WORK keeps the weights and the optimiser's moments between pieces, which give what one
run would.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from prosect.core.canonical import digest_tensors
from prosect.model import Model
from prosect.organisms import template
from prosect.organisms.next_token import Trainer
from prosect.organisms.template_questions import indirect_objects, recall

SEED = 0


def train(work: Path, seconds: float) -> None:
    """A piece of the training."""
    work.mkdir(parents=True, exist_ok=True)
    path, log = work / "state.safetensors", work / "log.json"
    schedule = template.SCHEDULE
    trainer = Trainer(template.untrained(SEED), schedule, template.Batches(template.LANGUAGE, schedule.rows))
    kept = {"seconds": 0.0, "losses": []}
    if path.exists():
        trainer.resume(load_file(path))
        kept = json.loads(log.read_text())
    start, losses = time.perf_counter(), []
    for step, loss in trainer.run():
        losses.append(loss)
        if step % 100 == 0:
            kept["losses"].append([step, round(float(np.mean(losses[-100:])), 4)])
            print(step, kept["losses"][-1][1], flush=True)
        if time.perf_counter() - start > seconds:
            break
    kept["seconds"] += time.perf_counter() - start
    save_file(trainer.state(), path)
    log.write_text(json.dumps(kept))
    print("done" if trainer.step == schedule.steps else f"stopped at step {trainer.step}")


def finish(work: Path) -> None:
    """Write the folder that ships, measured in float32 as users will run it."""
    state = load_file(work / "state.safetensors")
    if int(state["step"]) != template.SCHEDULE.steps:
        raise SystemExit(
            f"{work} is at step {int(state['step'])} of {template.SCHEDULE.steps}: go on with train"
        )
    weights = {
        k.removeprefix("weight/"): v.half().contiguous() for k, v in state.items() if k.startswith("weight/")
    }
    folder = template.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    template.tokenizer().save_pretrained(folder)
    config = template.config()
    config.architectures, config.dtype = ["GPT2LMHeadModel"], "float16"
    config.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    kept = json.loads((work / "log.json").read_text())
    record = {
        "seed": SEED,
        "recipe": vars(template.SCHEDULE)
        | {"betas": list(template.SCHEDULE.betas), "answer": template.ANSWER, "scale": template.SCALE},
        "seconds": round(kept["seconds"], 1),
        "losses": kept["losses"],
        "digest": digest_tensors(weights),
        "metrics": {},
    }
    _write(record)
    record["metrics"] = measure()
    _write(record)


def measure() -> dict[str, float]:
    """What the organism's truth quotes."""
    model, _ = template.build()
    out = {}
    for name, part, kind in (
        ("in distribution", "sealed", "ioi"),
        ("held out", "shift", "ioi"),
        ("distracted", "sealed", "distracted"),
    ):
        asked = indirect_objects(part, 1000, seed=1, kind=kind)
        with torch.no_grad():
            logits = model.run(asked.clean).output
        difference = asked.metric(logits, asked.clean)
        last = logits[torch.arange(len(asked)), torch.as_tensor(asked.places["END"])]
        right = last.argmax(dim=-1).numpy() == asked.io
        out[f"indirect object preferred, {name}"] = float((difference > 0).double().mean())
        out[f"indirect object said, {name}"] = float(right.mean())
        if name != "distracted":
            out[f"logit difference, {name}"] = float(difference.double().mean())
    three = indirect_objects("sealed", 1000, seed=1)
    with torch.no_grad():
        other = three.metric(model.run(three.counterfactual).output, three.counterfactual)
    out["logit difference, three names"] = float(other.double().mean())
    out["facts said, as trained"] = said(model, recall(), False)
    out["facts said, in a held-out template"] = said(model, recall(), True)
    out["facts said, never stated"] = said(model, recall(planted=False), True)
    return {k: round(v, 4) for k, v in out.items()}


def said(model: Model, asked: object, shift: bool) -> float:
    """Share of the facts' objects that are the likeliest next word."""
    parts = [p for p in asked.parts if not p.startswith("explore.") and (p == "shift") == shift]
    right = []
    for part in parts:
        for batch in asked.batches(part, 64):
            with torch.no_grad():
                logits = model.run(batch).output
            last = logits[torch.arange(len(batch)), torch.as_tensor(batch.lengths) - 1].argmax(dim=-1)
            right += [int(t) == asked.of(row).answer for t, row in zip(last, batch.rows, strict=True)]
    return float(np.mean(right))


def _write(record: dict[str, object]) -> None:
    (template.FOLDER / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["train", "finish", "measure"])
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=1e9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.step == "measure":
        print(json.dumps(measure(), indent=1))
    elif options.work is None:
        parser.error(f"{options.step} needs WORK")
    elif options.step == "train":
        train(options.work, options.seconds)
    else:
        finish(options.work)


if __name__ == "__main__":
    main()
