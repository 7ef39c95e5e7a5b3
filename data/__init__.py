"""Data: the rows of the loop, where they are kept, and how they are asked for.

    Prompt -> Clip -> Score -> Example | Pair -> Policy -> Evaluation
       \\________________ rows of `records` _________________/
                               |
                  Store: parts + media + manifests   ->   SQL views

What comes in: prompts (named sets of the physics world, or a file of yours), media and rows from the stages.
What goes out: rows, Arrow tables, decoded frames, curated examples and pairs, SQL views.
Who calls: tasks/ (everything), models/ and rewards/ (records, keys, video), flows/ (queries, champion).
This package knows none of them.

Open first: `records` (what a row is), then `store` (how rows are committed). After that

    keys        digests of questions and files; seeds
    store       content-addressed store; a manifest is the commit point   (store_files: durable writes)
    manifest    what a committed unit of work holds
    video       mp4 files: encode, decode, copies for browsers
    prompts     prompt sets and prompt files
    curation    scores -> examples and pairs, in SQL
    queries     the named views over a store
    champion    which policy is the best so far
    gc          what no manifest reaches
    failpoints  crash points for tests
    world/      the 2-D physics world: laws, scenes, renderer, oracle
"""

__all__ = ["curation", "errors", "prompts", "queries", "records", "settings", "store"]
