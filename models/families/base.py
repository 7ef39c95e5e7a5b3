"""What a model family provides: the protocol that the rest of models/ rests on. No torch at import."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from data.errors import ModelError
from models.families.fit import Grid, Read
from models.families.settings import Expert, ModelSettings, SampleSettings
from models.lazy import LazyModule
from models.parameterization import Parameterization
from models.quantise import quantise

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

Frames = npt.NDArray[np.uint8]
"""uint8 [B, T, H, W, 3], RGB."""

EXPERT_PARTS: Mapping[Expert, str] = {"high": "transformer", "low": "transformer_2"}
"""What diffusers calls the networks of a model that has two."""


class Family(Protocol):
    """An architecture: how its diffusers pipeline is loaded, driven and trained.

    `pipeline` is the family's diffusers pipeline, `transformer` its denoising network, adapter or not.

    Attributes:
        name: as in recipes.
        parameterization: what the network predicts.
        lora_targets: suffixes of the linear layers that get an adapter by default.
        experts: its networks where it has two, the one for high noise first; see `OneNetwork`.
    """

    name: str
    parameterization: Parameterization
    lora_targets: tuple[str, ...]
    experts: tuple[Expert, ...]

    def grid(self, read: Read) -> Grid | None:
        """Which sizes and steps a model takes, by its configurations; None: they are not at hand.

        Asked before any weights are read, and so without PyTorch. KeyError, TypeError and ValueError mean
        that a configuration is another class's.
        """
        ...

    def load_pipeline(self, settings: ModelSettings) -> Any:
        """The whole pipeline, in eval mode, frozen, quantised as asked; on a GPU only its VAE is there yet.

        The other parts go to a GPU when they are needed (`models.sampling.offload`). Raises ModelError if it
        cannot be loaded.
        """
        ...

    def load_transformer(self, settings: ModelSettings) -> nn.Module:
        """Only the denoising network (`settings.expert`'s, of two), frozen and quantised, on its device.

        Training needs no VAE and no text encoder. Raises ModelError.
        """
        ...

    def sigma_range(self, settings: ModelSettings) -> tuple[float, float]:
        """The noise levels at which `settings.expert` works: from the first on, below the second."""
        ...

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int) -> Tensor:
        """[B, L, D] text embeddings with the padding that the network sees, L = max_sequence_length."""
        ...

    def sample_latents(
        self,
        pipeline: Any,
        embeds: Tensor,
        negative: Tensor | None,
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> Tensor:
        """Latents float32 [B, C, T, H, W] as the sampler leaves them: normalised, the x0 of training.

        Args:
            embeds: [B, L, D].
            negative: [B, L, D] of the unconditional branch, or None without guidance.
            seeds: one a clip; a clip's starting noise depends on its own seed alone.

        Raises:
            ModelError: the geometry does not fit the model.
        """
        ...

    def decode(self, pipeline: Any, latents: Tensor) -> Frames:
        """Frames of normalised latents [B, C, T, H, W], untiled, rounded as diffusers rounds."""
        ...

    def predict(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        """The network's prediction [B, C, T, H, W] at noise levels sigma [B]."""
        ...


class OneNetwork:
    """What a family of one network has to say of experts."""

    experts: tuple[Expert, ...] = ()

    def sigma_range(self, settings: ModelSettings) -> tuple[float, float]:
        """All noise levels."""
        return 0.0, 1.0


def without_gradients(method: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorator: within the call PyTorch records nothing for a backward pass."""

    @wraps(method)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with torch.no_grad():
            return method(*args, **kwargs)

    return called


def networks_of(experts: Sequence[Expert], pipeline: Any) -> dict[str, nn.Module]:
    """The denoising networks of a pipeline by the name of the part; without experts it has one."""
    parts = [EXPERT_PARTS[expert] for expert in experts] or ["transformer"]
    return {part: getattr(pipeline, part) for part in parts}


def ready(network: Any, settings: ModelSettings) -> nn.Module:
    """A network that was just loaded: frozen, in eval mode, quantised as asked. It stays where it is."""
    module: nn.Module = network.eval().requires_grad_(False)
    quantise(module, settings.quantise, getattr(torch, settings.dtype))
    return module


def ready_pipeline(pipeline: Any, settings: ModelSettings, experts: Sequence[Expert] = ()) -> Any:
    """A pipeline that was just loaded, see `Family.load_pipeline`."""
    pipeline.set_progress_bar_config(disable=True)
    for network in networks_of(experts, pipeline).values():
        ready(network, settings)
    for part in (pipeline.vae, pipeline.text_encoder):
        part.eval().requires_grad_(False)
    pipeline.vae.to(settings.torch_device)
    return pipeline


def prediction_and_target(
    family: Family, transformer: nn.Module, latents: Tensor, embeds: Tensor, sigma: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Prediction and target of `latents` [B, C, T, H, W] at (sigma [B], noise [B, C, T, H, W])."""
    noisy = family.parameterization.noisy(latents, noise, sigma)
    return family.predict(transformer, noisy, sigma, embeds), family.parameterization.target(
        latents, noise, sigma
    )


def load_arguments(settings: ModelSettings) -> dict[str, Any]:
    """What every `from_pretrained` gets: pinned, safetensors only; a local folder never asks the network."""
    return {
        "revision": settings.revision,
        "dtype": getattr(torch, settings.dtype),
        "use_safetensors": True,
        "local_files_only": Path(settings.path).is_dir(),
    }


def check_folder(settings: ModelSettings, needed: Sequence[str]) -> None:
    """Raise ModelError if `settings.path` is a local folder that lacks one of the `needed` components."""
    folder = Path(settings.path)
    if not folder.is_dir():
        return
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(f"{folder} holds no model_index.json: expected a model saved with save_pretrained()")
    try:
        named = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as failure:
        raise ModelError(f"{index} is not JSON: {failure}") from failure
    for part in needed:
        if part not in named or not (folder / part).is_dir():
            raise ModelError(
                f"model at {folder} has no {part}: copy that folder too, or save the pipeline again"
            )


def load_config(settings: ModelSettings, kind: Any, part: str | None = None) -> dict[str, Any]:
    """The configuration of one part, without its weights; of the pipeline, if no part is named.

    Args:
        kind: the part's diffusers class, which knows the file's name.
        part: the subfolder, for example "transformer".

    Raises:
        ModelError: it cannot be read.
    """
    with loading(settings, f"the configuration of the {part or 'pipeline'}"):
        config: dict[str, Any] = kind.load_config(
            settings.path,
            subfolder=part,
            revision=settings.revision,
            local_files_only=load_arguments(settings)["local_files_only"],
        )
    return config


def pixels(video: Tensor) -> Frames:
    """A decoded video [B, 3, T, H, W] in [-1, 1] as frames, rounded as diffusers rounds."""
    unit = (video * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1).float()
    frames: Frames = (unit * 255).round().to("cpu", torch.uint8).contiguous().numpy()
    assert frames.dtype == np.uint8
    return frames


@contextmanager
def loading(settings: ModelSettings, what: str) -> Iterator[None]:
    """Turn what diffusers raises for a missing or damaged model into a ModelError that names it."""
    import diffusers
    import transformers
    from safetensors import SafetensorError

    # their bars, one a file, would tear the round's own
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, SafetensorError) as failure:
        pinned, hint = "", ""
        if settings.revision:
            pinned = f" at revision {settings.revision}"
            hint = ". Is model.revision a commit of this model, and is it in the cache or the network there?"
        raise ModelError(f"cannot load {what} of {settings.path}{pinned}: {failure}{hint}") from failure
