"""Rounds: the stages as flows, rounds made of them, rounds in a row, and the same without Prefect."""
