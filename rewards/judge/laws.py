"""Which laws of a rubric concern a prompt.

A prompts file may say it (`judge.laws`). Of any other prompt the judge is asked, by the text alone: one
yes/no question a law, and from P(yes) = 0.5 on the law concerns it. So every clip of a prompt, of any policy,
is asked the same.

Rubrics of laws go back to VideoPhy-2 (Bansal et al., 2025, arXiv 2503.06800), which asks of each clip the
rules that its action touches, and to PhyGenBench (Meng et al., 2024, arXiv 2410.05363), which asks by the law
that a prompt was written for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from data.errors import ConfigError
from data.explain import nearest
from data.prompts import load_laws
from data.records import prompt_id
from rewards.base import Judgement
from rewards.judge.rubric import Law, Rubric

_LEAST: Final = 0.5

Said = Mapping[str, frozenset[str]]
"""Ids of the laws that concern a prompt, by the prompt's id."""


def said_laws(files: Sequence[str], rubric: Rubric) -> Said:
    """What prompts files (or sets) say of the laws that concern their prompts.

    Raises:
        ConfigError: a file names a law that the rubric lacks, or two files say different things of a prompt.
        DataError: a file cannot be read, or is no prompts file.
    """
    known = {law.id for law in rubric.laws}
    found: dict[str, frozenset[str]] = {}
    for file in files:
        for prompt, laws in load_laws(file).items():
            unknown = sorted(set(laws) - known)
            if unknown:
                raise ConfigError(
                    f"judge.laws: {file} names a law {unknown[0]!r}, which rubric {rubric.name} does not "
                    f"have{nearest(unknown[0], sorted(known))}"
                )
            if found.setdefault(prompt, frozenset(laws)) != frozenset(laws):
                raise ConfigError(
                    f"judge.laws: {file} and a file before it name different laws of one prompt ({prompt})"
                )
    return found


def decided(said: Said, law: Law) -> list[list[Any]]:
    """Prompts (by id) of which the files speak, and whether the law concerns each; for versions."""
    return sorted([prompt, law.id in laws] for prompt, laws in said.items())


def by_file(said: Said, rubric: Rubric, prompt: str) -> dict[str, Judgement] | None:
    """Whether each law (by id) concerns a prompt, as the files say it: 1 or 0. None: they say nothing."""
    laws = said.get(prompt_id(prompt))
    if laws is None:
        return None
    return {law.id: Judgement(float(law.id in laws), {"by": "prompts file"}) for law in rubric.laws}


def concerns(found: Judgement) -> bool:
    """Whether a law concerns a prompt, by what was said or answered of it."""
    return found.value is not None and found.value >= _LEAST
