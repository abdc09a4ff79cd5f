"""Train the organism `induction-learned` and ship it, with its training.

    python scripts/train_induction.py            # trains, measures, writes the weights beside the package's others
    python scripts/train_induction.py --measure  # measures the shipped ones again

About one minute on one core.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from safetensors.torch import save_file

from prosect.core.canonical import digest_tensors
from prosect.describe.induction_heads import induction_heads
from prosect.describe.progress import halfway
from prosect.organisms import induction_learned as organism
from prosect.organisms.next_token import Trainer

KEPT = (0, 200, 400, 500, 550, 600, 650, 700, 750, 800, 900, 1000, 1200, 1600, 2000)
SEED = 0


def train() -> tuple[dict[str, torch.Tensor], float]:
    """The weights at every step that is kept, by name, in half precision; and the seconds it took."""
    start = time.perf_counter()
    module = organism.untrained(SEED)
    trainer = Trainer(module, organism.SCHEDULE, organism.batches(SEED, organism.SCHEDULE.rows))
    kept = {}
    for step in KEPT:
        for _ in trainer.run(step):
            pass
        for name, weight in module.state_dict().items():
            kept[f"{step}/{name}"] = weight.detach().half().contiguous().clone()
    return kept, time.perf_counter() - start


def measure() -> dict[str, float]:
    """What the organism's truth quotes."""
    behaviour = organism.repetition()
    losses, steps = [], []
    for point in organism.checkpoints():
        pairs = behaviour.pairs("validate.0", 128)
        with torch.no_grad():
            logits = point.module(input_ids=pairs.clean.tensors["input_ids"]).logits
        losses.append(-float(behaviour.metric(logits, pairs).mean()))
        steps.append(point.step)
        print(point.step, round(losses[-1], 3), flush=True)
    found = induction_heads(point.model(), behaviour)
    for head in found.heads:
        print(
            head.head,
            head.kind,
            *(round(m.estimate or 0, 3) for m in (head.prefix, head.copying, head.previous)),
        )
    print("gain", found.gain, "lost", found.lost, "random", [m for _, m in found.random], sep="\n")
    return {
        "repeated-token loss before training": losses[0],
        "repeated-token loss": losses[-1],
        "step of the phase change": float(halfway(steps, losses)),
        "induction heads": float(len(found.of("induction"))),
        "largest prefix-matching score": max(h.prefix.estimate or 0.0 for h in found.heads),
        "gain lost without induction heads": found.lost.estimate or 0.0,
        "gain lost without random others": max((m.estimate or 0.0 for _, m in found.random), default=0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = organism.FOLDER
    if options.measure:
        print(json.dumps(measure(), indent=1))
        return
    kept, seconds = train()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(kept, folder / "checkpoints.safetensors")
    record = {
        "seed": SEED,
        "recipe": vars(organism.SCHEDULE) | {"betas": list(organism.SCHEDULE.betas)},
        "steps": list(KEPT),
        "dtype": "float16",
        "seconds": round(seconds, 1),
        "digest": digest_tensors(kept),
        "metrics": {},
    }
    for step in range(2):  # the second time with what was measured of the first
        (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if not step:
            record["metrics"] = {k: round(v, 4) for k, v in measure().items()}


if __name__ == "__main__":
    main()
