"""The fast mode of generation against the plain way, and what it costs: speed at full size, oracle at small.

    python -m benchmarks.generation_fast --clips 8 --plain-clips 3 --quality-clips 2048
                                                                          results/generation-fast.json

Speed is measured as in benchmarks.generation, whose options these are; quality as in benchmarks.quality.
"""

from __future__ import annotations

from benchmarks import quality
from benchmarks.harness import Clock, write
from benchmarks.workload import arguments, compared, ours, run_plain, workload
from models.families.settings import StepCacheSettings


def main() -> None:
    """See the module's docstring."""
    parser = arguments(__doc__)
    parser.add_argument("--fast-interval", type=int, default=2)
    parser.add_argument("--quality-clips", type=int, default=2048)
    parser.add_argument("--quality-steps", type=int, default=50)
    parser.add_argument("--quality-batch", type=int, default=256)
    asked = parser.parse_args()
    work, mode, clock = workload(asked), StepCacheSettings(interval=asked.fast_interval), Clock()
    modes = quality.modes(asked.quality_steps, asked.device, (asked.fast_interval,))
    found = quality.measure(asked.device, asked.quality_clips, asked.quality_batch, modes)
    jobs = work.jobs(max(asked.clips, asked.plain_clips))
    pipeline = work.pipeline()
    plain = run_plain(pipeline, work, jobs[: asked.plain_clips], Clock(asked.max_seconds), until=0.0)
    with ours(pipeline, work, mode) as quick:
        made = quick.run(jobs[: work.whole(asked.clips)])
        details = {
            "mode": mode.describe(),
            "network asked at steps": f"{mode.computed(work.sample.steps)} of {work.sample.steps}",
            "compile and warm-up (s)": round(quick.warm_up_seconds, 1),
        }
    equality = {
        "claim": "none: fast clips are other clips; on the miniature the oracle says by how much",
        "clips a mode": asked.quality_clips,
        "oracle": quality.as_json(found),
    }
    write(compared("generation-fast", work, plain, made, details, equality), asked.out)
    clock.say("done")


if __name__ == "__main__":
    main()
