"""Every part of every family: weights that do not fill it, and files that are not whole, are refused."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import ModelError
from models.families import get_family
from models.families.settings import ModelSettings
from models.policy import base_id
from models.sampling.sampler import Sampler
from tests.models.families.tiny import CASES, Tiny

# One case for each folder: the second of A14B's experts has the first one's.
FOLDERS = [case for case in CASES if case.name != "wan2.2-a14b-low"]
# What a part's depth is called, by its class.
DEPTH = {
    "WanTransformer3DModel": "num_layers", "CogVideoXTransformer3DModel": "num_layers",
    "LTXVideoTransformer3DModel": "num_layers", "AutoencoderKLWan": "num_res_blocks",
    "AutoencoderKLCogVideoX": "layers_per_block", "AutoencoderKLLTXVideo": "layers_per_block",
    "UMT5EncoderModel": "num_layers", "T5EncoderModel": "num_layers",
}  # fmt: skip


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Tiny:
    tiny: Tiny = request.param
    return tiny


@pytest.fixture(scope="module")
def saved(case: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(case.name)
    case.save(path)
    return path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def model(case: Tiny, folder: Path) -> ModelSettings:
    return ModelSettings(device="cpu", family=case.family, path=str(folder), **case.model)


def networks(folder: Path) -> dict[str, str]:
    """Parts with weights and their classes, by the index."""
    index = json.loads((folder / "model_index.json").read_text())
    return {part: named[1] for part, named in index.items() if list((folder / part).glob("*.safetensors"))}


def weights_of(part: Path) -> Path:
    (file,) = part.glob("*.safetensors")
    return file


def change_weights(part: Path, change: Callable[[dict[str, Any], str], None]) -> str:
    """Rewrite a part's weights after `change` of them and a key; returns the key."""
    tensors = load_file(weights_of(part))
    # not an embedding that is tied: without it two keys would lack
    key = [
        key
        for key in sorted(tensors)
        if key.endswith(".weight") and tensors[key].ndim > 1 and "shared" not in key
    ][-1]
    change(tensors, key)
    save_file(tensors, weights_of(part), metadata={"format": "pt"})
    return key


def drop(tensors: dict[str, Any], key: str) -> None:
    del tensors[key]


def add(tensors: dict[str, Any], key: str) -> None:
    tensors["odd.weight"] = torch.zeros(2)


def reshape(tensors: dict[str, Any], key: str) -> None:
    tensors[key] = torch.zeros(3, 5)


def scale(tensors: dict[str, Any], key: str) -> None:
    """As programs save float8 weights: each with the number that it is to be multiplied by."""
    tensors[key] = tensors[key].to(torch.float8_e4m3fn)
    tensors[f"{key.removesuffix('weight')}scale_weight"] = torch.ones(1)


@pytest.fixture
def each(folder: Path, saved: Path) -> Iterator[Any]:
    """Networks one after the other, each broken in a model whose other parts are whole."""

    def parts() -> Iterator[tuple[str, Path]]:
        for part in networks(saved):
            yield part, folder / part
            shutil.rmtree(folder / part)
            shutil.copytree(saved / part, folder / part)

    return parts()


def refused(case: Tiny, model: ModelSettings) -> str:
    """What a plan says of a model."""
    with pytest.raises(ModelError) as told:
        get_family(case.family).check(model)
    return str(told.value)


def test_whole_models_pass(case: Tiny, model: ModelSettings) -> None:
    get_family(case.family).check(model)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop, r"lack 1 key \({key}\)"),
        (add, r"hold 1 key that it has no place for \(odd\.weight\)"),
        (reshape, r"1 key of another shape \({key} is \[3, 5\], not \["),
        (scale, r"float8 numbers with scales of their own \(.*scale_weight"),
    ],
)
def test_weights_of_another_network_are_named_by_part_and_key(
    case: Tiny, model: ModelSettings, each: Any, change: Callable[[dict[str, Any], str], None], told: str
) -> None:
    seen = 0
    for part, place in each:
        key = change_weights(place, change)
        with pytest.raises(ModelError, match=told.format(key=key)) as failure:
            get_family(case.family).check(model)
        assert f"the {part} of {model.path}" in str(failure.value)
        seen += 1
    assert seen >= 3


@pytest.mark.parametrize(("more", "told"), [(1, "lack"), (-1, "no place for")])
def test_a_layer_too_many_or_too_few_is_named(
    case: Tiny, model: ModelSettings, each: Any, saved: Path, more: int, told: str
) -> None:
    for part, place in each:
        config = json.loads((place / "config.json").read_text())
        name = DEPTH[networks(saved)[part]]
        depth = config[name]
        config[name] = [one + more for one in depth] if isinstance(depth, list) else depth + more
        (place / "config.json").write_text(json.dumps(config))
        said = refused(case, model)
        assert f"the {part} of {model.path}" in said, said
        assert told in said, said


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def cut_in_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


def pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def no_header(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 2**62) + bytes(100))


def pickled(file: Path) -> None:
    file.rename(file.with_suffix(".bin"))


def other_precision(file: Path) -> None:
    file.rename(file.with_suffix(".fp16.safetensors"))


def gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (cut, "was cut off or changed"), (cut_in_header, "was cut off or changed"),
        (pointer, "pointer of git-LFS.*git lfs pull"), (empty, "is empty"), (no_header, "is no safetensors file"),
        (pickled, "only safetensors is read.*save_pretrained"), (other_precision, "fp16.safetensors is not read"),
        (gone, "holds no weights"),
    ],
)  # fmt: skip
def test_files_that_are_not_whole_are_found_without_a_library(
    case: Tiny, folder: Path, each: Any, change: Callable[[Path], None], told: str
) -> None:
    """`base_id` is what a plan asks first, and it imports no PyTorch."""
    for part, place in each:
        change(weights_of(place))
        with pytest.raises(ModelError, match=told) as failure:
            base_id(folder)
        assert str(folder / part) in str(failure.value)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "scheduler_config.json"])
@pytest.mark.parametrize(
    ("change", "told"),
    [(gone, "holds no"), (empty, "is empty"), (pointer, "pointer of git-LFS"), (cut, "is not JSON")],
)
def test_other_files_of_a_part_must_be_there_and_whole(
    folder: Path, saved: Path, file: str, change: Callable[[Path], None], told: str
) -> None:
    for place in sorted(folder.glob(f"*/{file}")):
        change(place)
        with pytest.raises(ModelError, match=told):
            base_id(folder)
        shutil.copy(saved / place.relative_to(folder), place)
    base_id(folder)


def test_a_tokenizer_without_words_is_refused(folder: Path) -> None:
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer's words \(tokenizer.json, .*copy the files"):
        base_id(folder)


def test_loaders_ask_too(case: Tiny, model: ModelSettings, folder: Path) -> None:
    """Whoever opens a model without a plan: transformers would fill the missing layer at random."""
    family = get_family(case.family)
    key = change_weights(folder / "text_encoder", drop)
    with pytest.raises(ModelError, match=key):
        Sampler.open(model, case.settings)
    family.load_transformer(model)  # training reads no text encoder
    key = change_weights(folder / case.part, add)
    with pytest.raises(ModelError, match=r"odd\.weight"):
        family.load_transformer(model)
