"""Records: what a row is. Nothing but this and `data.records_outside` defines a column.

Each row class is a frozen dataclass; its Arrow schema is read off its fields. A measurement that failed is a
null with a status and a reason, never a number; a float that is not finite is refused when a table is made.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import pyarrow as pa

from data.keys import digest
from data.records_outside import Exclusion as Exclusion
from data.records_outside import Import as Import
from data.records_outside import Imported as Imported
from data.records_outside import Label as Label
from data.records_outside import Latent as Latent

SCHEMA_VERSION: Final = 1
IMPORTED: Final = "imported"
"""What stands for the policy of a clip from outside."""

Status = Literal["ok", "failed"]


class Row(Protocol):
    """Any row of this module: a dataclass whose fields are the columns."""

    __dataclass_fields__: typing.ClassVar[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to generate from. `template` is the world's template name, or "" for a text of your own."""

    prompt_id: str
    text: str
    category: str
    template: str
    split: str
    source: str


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip: how it was made, and where its pixels and its latent are.

    One from outside has `IMPORTED` for its policy, a number of its file's digest for its seed, no sampler
    and no latent (path "", rows -1): table `latents` has those that a model's VAE made of it.

    Paths are relative to the store root. The latent file is safetensors: `latents` [B, C, T, H, W] float32 as
    the sampler left them (normalised, what the trainer wants) and `prompt_embeds` [P, L, D] float32, one row
    for each different prompt of the shard.
    """

    clip_id: str
    prompt_id: str
    prompt: str
    category: str
    split: str
    policy_id: str
    seed: int
    width: int
    height: int
    frames: int
    fps: float
    sampler: str
    steps: int
    guidance: float
    batch_size: int
    row_in_batch: int
    video_path: str
    video_sha256: str
    codec: str
    latent_path: str
    latent_row: int
    embed_row: int
    device_kind: str
    code_version: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate of a best-of-N policy: one of the clips made for a prompt and seed, of which one is kept.

    `policy_id` is the best-of-N policy's, `seed` that of the clip it stands for (and of the first candidate).
    `value` is what the choosing reward said, null where it failed; `reason` says why it was kept or not.
    """

    policy_id: str
    prompt_id: str
    seed: int
    clip_id: str
    value: float | None
    kept: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """One reward's judgement of one clip. `detail` is a JSON object with whatever the reward saw."""

    clip_id: str
    reward: str
    reward_version: str
    value: float | None
    status: Status
    error: str | None
    detail: str

    def __post_init__(self) -> None:
        _value_or_reason(self.value, self.status, self.error, f"score of {self.clip_id} by {self.reward}")


@dataclass(frozen=True, slots=True)
class PromptAnswer:
    """What a judge said of a prompt by its text alone, in [0, 1]: whether a law concerns it, P(yes)."""

    prompt_id: str
    reward: str
    reward_version: str
    value: float
    detail: str


@dataclass(frozen=True, slots=True)
class Example:
    """A scored clip as the curation sees it: shaped reward r' in [0, 1], training weight, why (not) kept."""

    curation_id: str
    clip_id: str
    prompt_id: str
    category: str
    reward: float
    weight: float
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two clips of one prompt; `margin` = r'(chosen) - r'(rejected) > 0."""

    curation_id: str
    prompt_id: str
    category: str
    chosen: str
    rejected: str
    margin: float


@dataclass(frozen=True, slots=True)
class PairSegment:
    """A piece of a pair's clips, in seconds, in which the chosen one is better. A pair without is whole."""

    curation_id: str
    chosen: str
    rejected: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class StoredError:
    """Denoising error of a policy on one clip at one fixed (noise level, noise).

    `draws` names the distribution and the seed that the draws come from; `draw` is the number of this one,
    `sigma` its noise level. `error` is a float32 number, held exactly.
    """

    policy_id: str
    clip_id: str
    draws: str
    draw: int
    sigma: float
    error: float


@dataclass(frozen=True, slots=True)
class Policy:
    """A trained adapter over a base model. `settings` and `curve` are JSON; paths start at the store root."""

    policy_id: str
    base_id: str
    parents: list[str]
    objective: str
    curation_id: str
    adapter_path: str
    adapter_sha256: str
    rank: int
    alpha: float
    targets: list[str]
    steps: int
    settings: str
    curve: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One metric of one policy's clip, keyed so that two policies compare prompt by prompt, seed by seed."""

    policy_id: str
    prompt_id: str
    category: str
    split: str
    seed: int
    metric: str
    value: float | None
    status: Status
    error: str | None
    clip_id: str

    def __post_init__(self) -> None:
        _value_or_reason(self.value, self.status, self.error, f"{self.metric} of clip {self.clip_id}")


@dataclass(frozen=True, slots=True)
class Studied:
    """What one cell of a study found; of a cell of several rounds in a row, what one of them did.

    A cell is a feedback, an objective and a seed. `variant` says what else is varied ("main": nothing;
    "tuning": the objective's own settings), `value` to what. `before` and `after` are means of `metric` over
    the `n` clips of `split`, with the paired interval of their difference; null where nothing was learned,
    and then `outcome` says why. `promoted` is the gate's verdict. Of best-of-n, `before` is the mean over all
    clips that could be chosen.

    `clips` were generated for training, `labels` of them judged by the feedback, `accepted` and `pairs` kept;
    `steps` of `batch` units (clips, or pairs) were trained on. `noise` is the share of labels taught the
    other way round, `rounds` the number of the round in its row, `best_of` the n of best-of-n (1: none).

    The keys are those of the stages' manifests, "" where a stage has none; `settings`, `categories`, `guards`
    and `diagnosis` are JSON.
    """

    study: str
    cell: str
    variant: str
    value: str
    feedback: str
    objective: str
    seed: int
    rounds: int
    best_of: int
    noise: float
    metric: str
    split: str
    before: float | None
    after: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    clips: int
    labels: int
    accepted: int
    pairs: int
    steps: int
    batch: int
    promoted: bool
    outcome: str
    policy_before: str
    policy_after: str
    curate_key: str
    finetune_key: str
    evaluate_key: str
    settings: str
    categories: str
    guards: str
    diagnosis: str


@dataclass(frozen=True, slots=True)
class Input:
    """A unit that another one read, where it read too many for its question and its manifest to name them.

    `unit` is the key of the one that read, `key` and `digest` are of the manifest that was read. `role` says
    as what, for example "clips"; `place` is where it stands in the list of that role, from 0: the question
    holds the digest of the list.
    """

    unit: str
    role: str
    place: int
    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table: its columns, the columns that name a row, and those that hold paths of media in the store."""

    schema: pa.Schema
    key: tuple[str, ...]
    row: type[Any]
    media: tuple[str, ...] = ()


_ARROW: Final[Mapping[Any, pa.DataType]] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    list[str]: pa.list_(pa.string()),
    Status: pa.string(),
    Imported: pa.string(),
}


def _spec(row: type[Any], *key: str, media: tuple[str, ...] = ()) -> TableSpec:
    hints = typing.get_type_hints(row)
    fields = []
    for field in dataclasses.fields(row):
        hint = hints[field.name]
        nullable = isinstance(hint, types.UnionType)
        if nullable:
            hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
        fields.append(pa.field(field.name, _ARROW[hint], nullable=nullable))
    return TableSpec(pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)}), key, row, media)


TABLES: Final[Mapping[str, TableSpec]] = {
    "prompts": _spec(Prompt, "prompt_id"),
    "clips": _spec(Clip, "clip_id", media=("video_path", "latent_path")),
    "imports": _spec(Import, "name", "source", "source_sha256", "conversion"),
    "latents": _spec(Latent, "clip_id", "encoder", media=("latent_path",)),
    "choices": _spec(Choice, "policy_id", "prompt_id", "seed", "clip_id"),
    "scores": _spec(Score, "clip_id", "reward", "reward_version"),
    "prompt_answers": _spec(PromptAnswer, "prompt_id", "reward", "reward_version"),
    "labels": _spec(Label, "label_id"),
    "exclusions": _spec(Exclusion, "rater", "session", "at"),
    "examples": _spec(Example, "curation_id", "clip_id"),
    "pairs": _spec(Pair, "curation_id", "prompt_id", "chosen", "rejected"),
    "pair_segments": _spec(PairSegment, "curation_id", "chosen", "rejected", "start_s"),
    "reference_errors": _spec(StoredError, "policy_id", "clip_id", "draws", "draw"),
    "policies": _spec(Policy, "policy_id", media=("adapter_path",)),
    "evaluations": _spec(Evaluation, "policy_id", "prompt_id", "seed", "metric", "clip_id"),
    "studies": _spec(Studied, "cell", "rounds", "best_of"),
    "inputs": _spec(Input, "unit", "role", "place"),
}


def to_table(name: str, rows: Iterable[Row] | pa.Table) -> pa.Table:
    """Rows as an Arrow table, sorted by the table's key, so that equal sets of rows give equal bytes.

    Rows that are an Arrow table already, of the very schema and in the order of the key, are only checked.

    Raises:
        ValueError: two rows have the same key, a float is NaN or infinite, or a required field is None; an
            Arrow table has another schema or order.
        TypeError: a row is not of this table's class, or a number is not whole where it must be.
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError: a value is not of its column's type.
    """
    spec = TABLES[name]
    if isinstance(rows, pa.Table):
        return _checked(name, spec, rows)
    held = list(rows)
    for row in held:
        if type(row) is not spec.row:
            raise TypeError(f"table {name} holds {spec.row.__name__} rows, not {type(row).__name__}")
    key = operator.attrgetter(*spec.key)
    held.sort(key=key)
    for first, second in itertools.pairwise(map(key, held)):
        if first == second:
            raise ValueError(f"table {name}: two rows have the key {first}")
    columns = []
    for field in spec.schema:
        values = [getattr(row, field.name) for row in held]
        if not field.nullable and any(value is None for value in values):
            raise ValueError(f"table {name}: column {field.name} may not be null")
        if pa.types.is_floating(field.type) and not all(v is None or math.isfinite(v) for v in values):
            raise ValueError(f"table {name}: column {field.name} holds a number that is not finite")
        if pa.types.is_integer(field.type):
            # Arrow would cut 1.5 to 1.
            values = [None if value is None else operator.index(value) for value in values]
        columns.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(columns, schema=spec.schema)


def _checked(name: str, spec: TableSpec, table: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    if not table.schema.equals(spec.schema, check_metadata=True):
        raise ValueError(f"table {name}: the schema is not that of {spec.row.__name__}")
    for field in spec.schema:
        column = table.column(field.name)
        if not field.nullable and column.null_count:
            raise ValueError(f"table {name}: column {field.name} may not be null")
        # An empty column has no least truth value: null.
        if pa.types.is_floating(field.type) and pc.all(pc.is_finite(column)).as_py() is False:
            raise ValueError(f"table {name}: column {field.name} holds a number that is not finite")
    before, after = table.slice(0, max(0, len(table) - 1)), table.slice(1)
    rising: Any = False
    for column in reversed(spec.key):  # the last column of the key decides where all before it are equal
        first, second = before.column(column), after.column(column)
        rising = pc.or_(pc.less(first, second), pc.and_(pc.equal(first, second), rising))
    if pc.all(rising).as_py() is False:
        raise ValueError(f"table {name}: rows are not in the order of their key, or two rows have the key")
    # In one piece: the pages of a Parquet file follow the pieces of a table.
    return table.combine_chunks()


def from_table(name: str, table: pa.Table) -> list[Any]:
    """Rows of an Arrow table, in its order. Columns this version does not know are left out.

    Raises KeyError: a column of the row class is missing.
    """
    spec = TABLES[name]
    columns = [table.column(field).to_pylist() for field in spec.schema.names]
    return [spec.row(*values) for values in zip(*columns, strict=True)]


def prompt_id(text: str) -> str:
    """Id of a prompt: a function of its text alone, so that the same text is the same prompt everywhere."""
    return "p" + digest(text)[:16]


def clip_id(policy_id: str, text: str, seed: int, sampling: Mapping[str, object], batch_size: int) -> str:
    """Id of a clip, known before it exists.

    Args:
        policy_id: the policy that samples it.
        text: the prompt's text.
        seed: the clip's seed.
        sampling: every setting that changes pixels (steps, guidance, geometry, dtype, ...), JSON values only.
        batch_size: the generation batch's fixed size, because low-precision results depend on it.
    """
    made = {"policy": policy_id, "prompt": text, "seed": seed, "sampling": dict(sampling)}
    return "c" + digest(made | {"batch_size": batch_size})[:24]


def imported_clip_id(source_sha256: str, text: str, conversion: Mapping[str, object]) -> str:
    """Id of a clip from outside: its file, its prompt, and everything that decides its pixels."""
    made = {"policy": IMPORTED, "source": source_sha256, "prompt": text, "conversion": dict(conversion)}
    return "c" + digest(made)[:24]


def _value_or_reason(value: float | None, status: str, error: str | None, what: str) -> None:
    if status not in ("ok", "failed"):
        raise ValueError(f"{what}: status is {status!r}, must be 'ok' or 'failed'")
    if status == "ok" and (value is None or not math.isfinite(value) or error is not None):
        raise ValueError(f"{what}: status ok needs a finite value, no error; not {value} and {error!r}")
    if status == "failed" and (value is not None or not error):
        raise ValueError(f"{what}: status failed needs an error and no value, not {value} and {error!r}")
