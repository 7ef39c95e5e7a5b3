"""What a model family provides, over its diffusers pipeline. No torch at import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from data.errors import ModelError
from models.families.fit import Grid, Read
from models.families.layout import check_parts
from models.families.settings import Expert, ModelSettings, Quantise, SampleSettings
from models.families.whole import check_whole
from models.lazy import LazyModule
from models.parameterization import Parameterization

if TYPE_CHECKING:
    from collections.abc import Iterator

    import diffusers
    import torch
    import transformers
    from torch import Tensor, nn
else:
    diffusers, torch = LazyModule("diffusers"), LazyModule("torch")
    transformers = LazyModule("transformers")

Frames = npt.NDArray[np.uint8]
"""uint8 [B, T, H, W, 3], RGB."""

_PARTS: Final = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
EXPERT_PARTS: Mapping[Expert, str] = {"high": "transformer", "low": "transformer_2"}
"""What diffusers calls the networks of a model that has two."""


def networks_of(experts: Sequence[Expert], pipeline: Any) -> dict[str, nn.Module]:
    """The denoising networks of a pipeline by the name of the part; without experts it has one."""
    parts = [EXPERT_PARTS[expert] for expert in experts] or ["transformer"]
    return {part: getattr(pipeline, part) for part in parts}


class Family(ABC):
    """An architecture: how its diffusers pipeline is loaded, driven and trained.

    `pipeline` is the family's diffusers pipeline, `transformer` its denoising network, adapter or not.

    Attributes:
        name: as in recipes.
        parameterization: what the network predicts.
        lora_targets: suffixes of the linear layers that get an adapter by default.
        pipeline_class, network_class: names of the diffusers classes.
        training_parts: folders that training reads beside the network's own.
        experts: its networks where it has two, the one for high noise first.
    """

    name: str
    parameterization: Parameterization
    lora_targets: tuple[str, ...]
    pipeline_class: str
    network_class: str
    training_parts: tuple[str, ...] = ()
    experts: tuple[Expert, ...] = ()

    @abstractmethod
    def grid(self, read: Read) -> Grid | None:
        """Which sizes and steps a model takes, by its configurations; None: they are not at hand.

        Asked before any weights are read, and so without PyTorch. KeyError, TypeError, ValueError and
        ArithmeticError mean that a configuration is another class's.
        """

    @abstractmethod
    def decode(self, pipeline: Any, latents: Tensor) -> Frames:
        """Frames of normalised latents [B, C, T, H, W], untiled, rounded as diffusers rounds."""

    @abstractmethod
    def encode(self, pipeline: Any, frames: Frames) -> Tensor:
        """Latents float32 [B, C, T, H, W] of frames, the mode of what the VAE gives, normalised as a sampler
        leaves them: what `decode` undoes.
        """

    @abstractmethod
    def predict(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        """The network's prediction [B, C, T, H, W] at noise levels sigma [B]."""

    def facts(self, settings: ModelSettings) -> dict[str, Any]:
        """What the network is told beside its configuration: attributes; tensors are buffers, not saved.

        Asked before weights are read. Raises ModelError for models that the pipeline would load and run, but
        not as they were made to be run.
        """
        return {}

    def network_part(self, settings: ModelSettings) -> str:
        """Folder of the network that training loads."""
        return "transformer"

    def sigma_range(self, settings: ModelSettings) -> tuple[float, float]:
        """The noise levels at which `settings.expert` works: from the first on, below the second."""
        return 0.0, 1.0

    def check(self, settings: ModelSettings) -> None:
        """Check what of a model is on this machine, by its configurations and the headers of its weights.

        Raises ModelError: as `facts`, or a part lacks files, or its weights do not fill its network.
        """
        check_parts(settings.path, _PARTS)
        if Path(settings.path).is_dir():  # of a hub id configurations may not be here yet
            self.facts(settings)
            check_parts(settings.path, [EXPERT_PARTS[expert] for expert in self.experts])
        check_whole(settings)

    def load_pipeline(self, settings: ModelSettings) -> Any:
        """The whole pipeline, in eval mode, frozen, quantised as asked; on a GPU only its VAE is there yet.

        The other parts go to a GPU when they are needed (`models.sampling.offload`). Raises ModelError if it
        cannot be loaded, or its text encoder's embeddings did not come.
        """
        self.check(settings)
        facts = self.facts(settings)
        with loading(settings, "the pipeline"):
            kind = getattr(diffusers, self.pipeline_class)
            pipeline = kind.from_pretrained(settings.path, **_weights(settings))
        if not Path(settings.path).is_dir():
            check_whole(settings)  # now that all of a hub id is here
        _require_words(pipeline.text_encoder, settings.path)
        pipeline.set_progress_bar_config(disable=True)
        for network in networks_of(self.experts, pipeline).values():
            _ready(network, settings, facts)
        for part in (pipeline.vae, pipeline.text_encoder):
            part.eval().requires_grad_(False)
        pipeline.vae.to(settings.torch_device)
        return pipeline

    def load_transformer(self, settings: ModelSettings) -> nn.Module:
        """Only the denoising network (`settings.expert`'s, of two), frozen and quantised, on its device.

        Training needs no VAE and no text encoder. Raises ModelError.
        """
        part = self.network_part(settings)
        check_parts(settings.path, (part, *self.training_parts))
        facts = self.facts(settings)
        check_whole(settings, part)
        with loading(settings, f"the {part}"):
            kind = getattr(diffusers, self.network_class)
            network = kind.from_pretrained(settings.path, subfolder=part, **_weights(settings))
        if not Path(settings.path).is_dir():
            check_whole(settings, part)
        return _ready(network, settings, facts).to(settings.torch_device)

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int) -> Tensor:
        """[B, L, D] text embeddings with the padding that the network sees, L = max_sequence_length."""
        with torch.no_grad():
            embeds: Tensor = pipeline.encode_prompt(
                list(prompts), do_classifier_free_guidance=False, max_sequence_length=max_sequence_length
            )[0]
        return embeds

    def told(
        self, pipeline: Any, embeds: Tensor, negative: Tensor | None, settings: SampleSettings
    ) -> dict[str, Any]:
        """What this pipeline alone is told when it samples; asked once the request was found to fit."""
        return {}

    def arranged(self, pipeline: Any, latents: Tensor, settings: SampleSettings) -> Tensor:
        """Latents [B, C, T, H, W] of what the pipeline gave."""
        return latents

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
            ConfigError: the geometry does not fit the model.
        """
        # A pipeline would round a size that is off its grid, and only warn.
        grid = self.grid(lambda part: dict(getattr(pipeline, part).config))
        assert grid is not None
        grid.check(settings)
        if len(seeds) != len(embeds):
            raise ValueError(f"{len(seeds)} seeds for {len(embeds)} prompts")
        latents: Tensor = pipeline(
            prompt_embeds=embeds,
            negative_prompt_embeds=negative,
            # One CPU generator a clip: the same noise on every device, in every batch, also where a scheduler
            # draws again at every step.
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            height=settings.height,
            width=settings.width,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            max_sequence_length=settings.max_sequence_length,
            output_type="latent",
            return_dict=False,
            **self.told(pipeline, embeds, negative, settings),
        )[0].float()
        return self.arranged(pipeline, latents, settings)


def _require_words(text_encoder: Any, path: str) -> None:
    """Check that words differ to the text encoder; ModelError: all rows of its embedding are equal.

    transformers 5.0 and 5.1 leave UMT5's embedding zero, and say nothing (its pull request 43880): a model
    would sample, and learn, from prompts that it cannot tell apart.
    """
    weight: Tensor = text_encoder.get_input_embeddings().weight
    # Some rows of a large table: that all of them are equal is no accident.
    rows = weight[:: max(1, len(weight) // 64)]
    if bool((rows == rows[0]).all()):
        raise ModelError(
            f"{path}: the text encoder's token embedding is constant, so that all prompts are one to it. "
            f"transformers 5.0 and 5.1 leave UMT5's at zero: install 5.2 or later (here: "
            f"{transformers.__version__}); else the folder's text_encoder was saved so: fetch it again"
        )


def _ready(network: Any, settings: ModelSettings, facts: Mapping[str, Any]) -> nn.Module:
    for name, fact in facts.items():
        if isinstance(fact, torch.Tensor):
            network.register_buffer(name, fact, persistent=False)
        else:
            setattr(network, name, fact)
    module: nn.Module = network.eval().requires_grad_(False)
    quantise(module, settings.quantise, getattr(torch, settings.dtype))
    return module


def quantise(network: nn.Module, how: Quantise, dtype: torch.dtype) -> None:
    """Hold the weights of `network`, a diffusers model without an adapter, as `how` says, in place.

    fp8-storage: linear and convolution layers lie in memory as float8 (e4m3) and are brought to `dtype` while
    they compute, one by one: diffusers' layerwise casting. Norms, embeddings of patches, and what diffusers
    keeps in float32 stay as they are. An adapter is computed beside such weights and never merged
    into them: three bits of mantissa would round it away.
    """
    if how == "fp8-storage":
        model: Any = network
        model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)


def _source(settings: ModelSettings) -> dict[str, Any]:
    """Pinned; and a local folder never asks the network."""
    return {"revision": settings.revision, "local_files_only": Path(settings.path).is_dir()}


def _weights(settings: ModelSettings) -> dict[str, Any]:
    return {**_source(settings), "dtype": getattr(torch, settings.dtype), "use_safetensors": True}


def load_config(settings: ModelSettings, kind: Any, part: str | None = None) -> dict[str, Any]:
    """The configuration of one part, without its weights; of the pipeline, if no part is named.

    Args:
        kind: the part's diffusers class, which knows the file's name.
        part: the subfolder, for example "transformer".

    Raises:
        ModelError: it cannot be read.
    """
    with loading(settings, f"the configuration of the {part or 'pipeline'}"):
        config: dict[str, Any] = kind.load_config(settings.path, subfolder=part, **_source(settings))
    return config


def pixels(video: Tensor) -> Frames:
    """A decoded video [B, 3, T, H, W] in [-1, 1] as frames, rounded as diffusers rounds."""
    unit = (video * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1).float()
    frames: Frames = (unit * 255).round().to("cpu", torch.uint8).contiguous().numpy()
    assert frames.dtype == np.uint8
    return frames


def encoded(vae: Any, frames: Frames) -> Tensor:
    """What a VAE makes of frames, untiled: the mode, float32 [B, C, T, H, W], not normalised."""
    video = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).to(vae.device, torch.float32)
    with torch.no_grad():
        found: Tensor = vae.encode((video / 127.5 - 1).to(vae.dtype)).latent_dist.mode()
    return found.float()


@contextmanager
def loading(settings: ModelSettings, what: str) -> Iterator[None]:
    """Turn what diffusers raises for a missing or damaged model into a ModelError that names it."""
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
