"""Rounds: the stages as flows, rounds made of them, rounds in a row, and the same without Prefect.

    run request -> recipe -> RoundContext -> stages -> summary

Open first: `run_round` (the walk through the stages), then `stage_flows` and `round` (the same as Prefect
flows), `run_request` and `forms` (what a run is asked for), `campaign` and `night` (rounds in a row).
"""
