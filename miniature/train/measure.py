"""The command that measures saved weights and prints the figures as JSON.

python -m miniature.train.measure raft miniature/weights/raft
python -m miniature.train.measure judge DIR --device cuda --samples DIR --workers 16
"""

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, assert_never, get_args

from data.device import resolve_device
from miniature.train import quality
from miniature.train.measure_clip import measure_clip
from miniature.train.measure_judge import measure_judge
from miniature.train.measure_raft import measure_raft
from miniature.world.corpus import processes

Kind = Literal["wan", "clip", "raft", "judge"]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clips", type=int, default=1000, help="behind each figure")
    parser.add_argument("--seed", type=int, default=1, help="of wan and judge")
    parser.add_argument("--workers", type=int, default=1, help="processes for scenes and the oracle")
    parser.add_argument("--samples", type=Path, help="of judge: what miniature.train.judge_samples wrote")
    parser.add_argument("--steps", type=int, default=quality.Sampling.steps, help="of wan")
    parser.add_argument("--guidance", type=float, default=quality.Sampling.guidance, help="of wan")
    args = parser.parse_args()
    kind: Kind = args.kind
    device = resolve_device(args.device)
    with processes(args.workers) if args.workers > 1 else nullcontext() as pool:
        match kind:
            case "clip":
                found: object = measure_clip(args.folder, device, args.clips)
            case "raft":
                found = measure_raft(args.folder, device, args.clips)
            case "judge":
                found = measure_judge(args.folder, device, args.clips, args.seed, args.samples, pool)
            case "wan":
                sampling = quality.Sampling(steps=args.steps, guidance=args.guidance)
                found = quality.measure(args.folder, device, args.clips, sampling, args.seed, pool)
            case _:
                assert_never(kind)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
