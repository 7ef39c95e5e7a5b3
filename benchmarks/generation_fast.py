"""The fast mode of generation against the plain way, and what it costs: speed at full size, oracle at small.

    python -m benchmarks.generation_fast --clips 8 --plain-clips 3 --quality-clips 2048
                                                                          results/generation-fast.json

Speed is measured as in benchmarks.generation, whose options these are; quality as in benchmarks.quality.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import quality
from benchmarks.generation import table, to_result
from benchmarks.result import RESULTS, write
from benchmarks.workload import Clock, arguments, ours, run_plain, workload
from models.settings import FastSettings


def main() -> None:
    """See the module's docstring."""
    parser = arguments("the fast mode of generation against the plain way")
    parser.add_argument("--clips", type=int, default=8, help="of ours; whole batches")
    parser.add_argument("--plain-clips", type=int, default=3)
    parser.add_argument("--fast-interval", type=int, default=2)
    parser.add_argument("--quality-clips", type=int, default=2048)
    parser.add_argument("--quality-steps", type=int, default=50)
    parser.add_argument("--quality-batch", type=int, default=256)
    options = parser.parse_args()
    work, mode, clock = workload(options), FastSettings(interval=options.fast_interval), Clock()
    found = quality.measure(
        options.device,
        options.quality_clips,
        options.quality_steps,
        options.quality_batch,
        quality.modes(options.quality_steps, options.device, (options.fast_interval,)),
    )
    quality.table(found, options.quality_clips)
    jobs = work.jobs(max(options.clips, options.plain_clips))
    pipeline = work.pipeline()
    plain = run_plain(pipeline, work, jobs[: options.plain_clips], Clock(options.max_seconds), until=0.0)
    with tempfile.TemporaryDirectory() as name, ours(pipeline, work, mode) as quick:
        whole = max(1, options.clips // work.batch_size) * work.batch_size
        made = quick.run(jobs[:whole], Path(name) / "fast")
        result = to_result(
            "generation-fast",
            work,
            plain,
            made,
            details={
                "mode": mode.describe(),
                "network asked at steps": f"{mode.asked(work.sample.steps)} of {work.sample.steps}",
                "compile and warm-up (s)": round(quick.warm_up_seconds, 1),
            },
            equality={
                "claim": "none: fast clips are other clips; on the miniature the oracle says by how much",
                "clips a mode": options.quality_clips,
                "oracle": quality.as_json(found),
            },
        )
        path = write(result, options.out or RESULTS)
    table(work, plain, {mode.describe(): made})
    print(f"{clock.seconds:.0f} s in all; written to {path}")


if __name__ == "__main__":
    main()
