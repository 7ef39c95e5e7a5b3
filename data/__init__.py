"""Data: the rows of the loop, where they are kept, and how they are asked for.

    Prompt -> Clip -> Score -> Example | Pair -> Policy -> Evaluation
       \\________________ rows of `records` _________________/
                               |
                  Store: parts + media + manifests   ->   SQL views

What comes in: prompts (named sets, or a file of yours), media and rows from the stages.
What goes out: rows, Arrow tables, decoded frames, curated examples and pairs, SQL views.
Who calls: tasks/ (everything), models/ and rewards/ (records, keys, video), flows/ (queries, champion).
This package knows none of them.

Open first: `records` (what a row is), then `store` (how rows are committed). After that

    store/      content-addressed store; a manifest is the commit point
    curation/   scores -> examples and pairs, in SQL
    prompts     prompt sets and prompt files
    video       mp4 files: encode, decode, copies for browsers
    queries     the named views over a store
    policies    the policies of a store and their ancestry; champion: the best so far
    settings    one frozen model for each component's settings; keys: digests and seeds
    plugins     what installed packages add; resources: files that come with a package
    processes   child processes: started, watched, ended; device_lock: one at a time on a GPU
    errors      errors a user can act on
"""

__all__ = ["curation", "errors", "prompts", "queries", "records", "settings", "store"]
