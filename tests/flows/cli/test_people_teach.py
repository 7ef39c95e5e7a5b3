"""Labels of people from a file to the pairs that teach, to a metric, and to the calibration of a judge."""

import json

import typer.testing

from data.queries import run_query
from data.store import Store
from flows.cli.main import commands

PEOPLE = [
    "--set",
    "rewards.people={question: better}",
    "--set",
    "rewards.sharpness={}",
    "--set",
    "feedback=people",
]


def run(*words):
    result = typer.testing.CliRunner().invoke(commands(), list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.output


def test_pairs_of_people_teach_and_examine(tiny, tmp_path):
    run("generate", *tiny.args(), "--plain")
    clips = run_query(
        Store.open(tiny.store), "SELECT prompt_id, list(clip_id ORDER BY clip_id) FROM clips GROUP BY ALL"
    )[1]
    votes = [
        {"clip_id": one, "other_clip_id": other, "question": "better", "rater": rater, "answer": answer}
        for _, (one, other, last) in clips
        for one, other, answers in (
            (one, other, ["first", "first", "tie"]),
            (last, one, ["second", "tie", "first"]),
        )
        for rater, answer in zip(["ann", "bob", "eve"], answers, strict=True)
    ]
    path = tmp_path / "people.jsonl"
    path.write_text("".join(json.dumps(vote) + "\n" for vote in votes))
    run("import", "labels", path, "--store", tiny.store)
    run("score", *tiny.args(), "--plain", *PEOPLE)
    output = run("curate", *tiny.args(), "--plain", *PEOPLE)
    assert "3 pairs" in output
    pairs = run_query(Store.open(tiny.store), "SELECT chosen, rejected, margin FROM pairs ORDER BY chosen")[1]
    assert [row[:2] for row in pairs] == sorted((one, other) for _, (one, other, _) in clips)
    assert {round(row[2], 6) for row in pairs} == {0.666667}
    # The last clip of each prompt only tied or has no majority: of no pair, but with a value.
    values = run_query(Store.open(tiny.store), "SELECT count(value) FROM scores WHERE reward = 'people'")[1]
    assert values == [(9,)]
    run("calibrate", *tiny.args(), *PEOPLE, "--reward", "sharpness", "--labels", "people", "--controls", "0")
    (found,) = (
        json.loads(path.read_text()) for path in (tiny.store / "calibrations").glob("sharpness-*.json")
    )
    # All but the clips that lost their pair: those that tied are of value one half.
    assert (found["labels"], found["overall"]["n"], found["overall"]["positives"]) == ("people", 9, 6 / 9)
