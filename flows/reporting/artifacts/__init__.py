"""Artifacts: what the Prefect UI shows of a round beside its log.

    store + summary.json -> facts -> markdown, tables -> Prefect's artifacts

What comes in: what a round has put into the store, and, while it runs, what its units report. What goes out:
artifacts on the server. Who calls: the flows; `--plain` knows nothing of it. An artifact that cannot be
written is said in the log and fails nothing.

Open first: `card` (a round on one page) and `sheets` (clips before and after as pictures in markdown).
"""
