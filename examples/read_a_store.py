"""Reading a store: questions in SQL, and the same rows as Arrow tables.

python examples/read_a_store.py STORE
"""

import sys

import pyarrow.compute as pc

import vidloop

BEST_AND_WORST = """
    SELECT prompt, reward, max(value) AS best, min(value) AS worst, count(*) AS clips
    FROM scores JOIN clips USING (clip_id)
    WHERE status = 'ok'
    GROUP BY ALL ORDER BY best - worst DESC LIMIT 5
"""


def main(folder: str = "store") -> None:
    """Print what the newest round did, which prompts can teach most, and how clips scored."""
    store = vidloop.open_store(folder)

    # Views over all committed rows: prompts, clips, scores, examples, pairs, policies, evaluations, rounds.
    for row in vidloop.query(store, "SELECT round, verdict FROM rounds ORDER BY round").to_pylist():
        print(row["round"], row["verdict"])
    for row in vidloop.query(store, BEST_AND_WORST).to_pylist():
        spread = f"{row['worst']:.3f} to {row['best']:.3f} over {row['clips']} clips"
        print(f"{row['reward']}: {spread} of {row['prompt']!r}")

    # Without SQL: manifests name a stage's Parquet files, which any tool opens; only committed work shows.
    manifests = store.manifests("score")
    scores = store.arrow([manifest.key for manifest in manifests], "scores")
    failed = pc.sum(pc.equal(scores["status"], "failed")).as_py()
    print(f"{scores.num_rows} scores in {len(manifests)} units, {failed} of them failed")
    clips = vidloop.query(store, "SELECT video_path FROM clips ORDER BY clip_id LIMIT 1")
    print(f"the first clip: {store.path(clips['video_path'][0].as_py())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
