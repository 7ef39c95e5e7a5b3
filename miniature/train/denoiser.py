"""Trains the miniature's transformer and text encoder by flow matching (Lipman et al., arXiv 2210.02747).

    x_sigma = (1 - sigma) x0 + sigma eps,   v = eps - x0,   loss = mean (v_theta(x_sigma, sigma, c) - v)^2

sigma is logit-normal (Esser et al., arXiv 2403.03206). One caption in ten is emptied, so that the model can
be sampled with classifier-free guidance; the weights kept are an exponential moving average.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from miniature.train.architecture import MAX_WORDS

# PyTorch asks for a few plain runs on a side stream before a step is recorded.
_PLAIN_RUNS = 3
# Steps after which the speed is known, and with it how many steps fit into the time.
_TIMED = 40


@dataclass(frozen=True)
class DenoiserSettings:
    """How the transformer is trained: for about `seconds` without compilation, or `steps`, if that is less.

    `sigma_mean` and `sigma_std` are those of the logit. The sampler's flow shift of 5 puts all but one of its
    steps above sigma 0.6; training has to know those levels best.
    """

    seconds: float = 390.0
    steps: int = 1_000_000
    batch_size: int = 1024
    learning_rate: float = 1.5e-3
    warmup: int = 300
    weight_decay: float = 0.01
    caption_dropout: float = 0.1
    sigma_mean: float = 1.2
    sigma_std: float = 1.2
    ema: float = 0.999
    compile: bool = True


class Denoiser(nn.Module):
    """Transformer and text encoder as one module: text is encoded just as `WanPipeline` encodes it."""

    def __init__(self, transformer: WanTransformer3DModel, text_encoder: UMT5EncoderModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder

    def encode_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask [B, L] -> embeddings [B, L, D], zero behind the end of the text."""
        # As numbers to add, [B, 1, L, L]: given the plain mask, the encoder looks at its contents, and a
        # CUDA graph cannot wait for the answer.
        hidden = torch.finfo(torch.float32).min * (1.0 - mask.float())
        added = hidden[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        embeds: Tensor = self.text_encoder(tokens, added).last_hidden_state
        return embeds * mask.unsqueeze(-1)

    def forward(self, x: Tensor, sigma: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Noisy latents [B, C, F, h, w] at sigma [B] -> velocity of the same shape."""
        with torch.autocast(x.device.type, enabled=False):
            text = self.encode_text(tokens, mask)
        velocity: Tensor = self.transformer(x, sigma * 1000.0, text, return_dict=False)[0]
        return velocity


def tokenize(tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Captions -> token ids and mask, int64 [N, MAX_WORDS]."""
    out = tokenizer(
        list(captions), padding="max_length", max_length=MAX_WORDS, truncation=True, return_tensors="pt"
    )
    return out.input_ids, out.attention_mask


def flow_matching_loss(
    predict: Callable[..., Tensor], latents: Tensor, tokens: Tensor, mask: Tensor, settings: DenoiserSettings
) -> Tensor:
    """Mean squared error of the velocity at a random sigma for latents [B, C, F, h, w]."""
    logit = settings.sigma_mean + settings.sigma_std * torch.randn(len(latents), device=latents.device)
    sigma = torch.sigmoid(logit)
    noise = torch.randn_like(latents)
    s = sigma.view(-1, 1, 1, 1, 1)
    velocity = predict((1 - s) * latents + s * noise, sigma, tokens, mask)
    return (velocity.float() - (noise - latents)).square().mean()


class Backward:
    """One training step's passes, on a GPU recorded once as a CUDA graph and replayed.

    The miniature is so small that launching its kernels takes longer than running them; a recorded step is
    one launch. `loss` therefore takes no arguments and draws its own batch from tensors that stay where they
    are. Call it for the gradient of one fresh batch; the gradients of all parameters lie in `gradient` [n].
    """

    def __init__(self, loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter], record: bool) -> None:
        self._loss = loss
        first = parameters[0]
        self.gradient = torch.zeros(sum(p.numel() for p in parameters), device=first.device)
        position = 0
        for parameter in parameters:
            # Views of one tensor: it is cleared, averaged over GPUs and clipped in one operation each.
            parameter.grad = self.gradient[position : position + parameter.numel()].view_as(parameter)
            position += parameter.numel()
        self._graph: torch.cuda.CUDAGraph | None = None
        if record:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_PLAIN_RUNS):
                    self._run()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._recorded = self._run()
            self._graph = graph

    def __call__(self) -> Tensor:
        """The loss, a scalar that the next call may overwrite."""
        if self._graph is None:
            return self._run()
        self._graph.replay()
        return self._recorded

    def clip(self, norm: float) -> None:
        """Scales the gradient down to a length of at most `norm`, without waiting for the device."""
        self.gradient.mul_((norm / (self.gradient.norm() + 1e-6)).clamp(max=1.0))

    def _run(self) -> Tensor:
        self.gradient.zero_()
        loss = self._loss()
        loss.backward()
        return loss.detach()


def train_denoiser(
    model: Denoiser,
    tokenizer: PreTrainedTokenizerFast,
    latents: Tensor,
    captions: Sequence[str],
    settings: DenoiserSettings,
    seed: int,
    say: Callable[[str], None] = print,
) -> Denoiser:
    """Trains on normalised `latents` [N, C, F, h, w] of `captions`; returns the weights' moving average.

    Under `torchrun` each process trains on its own batches of `batch_size`; gradients are averaged.
    """
    device = latents.device
    on_gpu, ranks = device.type == "cuda", dist.get_world_size() if dist.is_initialized() else 1
    model = model.to(device).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    tokens, mask = (t.to(device) for t in tokenize(tokenizer, captions))
    no_tokens, no_mask = (t.to(device) for t in tokenize(tokenizer, [""]))
    if settings.compile:
        model.transformer.compile()
    # Weights start alike everywhere; batches and noise must not.
    torch.manual_seed(seed + (dist.get_rank() if ranks > 1 else 0))

    def loss_of_a_batch() -> Tensor:
        rows = torch.randint(len(latents), (settings.batch_size,), device=device)
        empty = torch.rand(settings.batch_size, 1, device=device) < settings.caption_dropout
        batch_tokens = torch.where(empty, no_tokens, tokens[rows])
        batch_mask = torch.where(empty, no_mask, mask[rows])
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            return flow_matching_loss(model, latents[rows].float(), batch_tokens, batch_mask, settings)

    backward = Backward(loss_of_a_batch, list(model.parameters()), record=on_gpu)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=on_gpu
    )
    steps, step, started, shown = settings.steps, 0, time.monotonic(), 0.0
    while step < steps:
        loss = backward()
        if ranks > 1:
            dist.all_reduce(backward.gradient, dist.ReduceOp.AVG)
        backward.clip(1.0)
        rate = settings.learning_rate * min(1.0, (step + 1) / settings.warmup) * max(0.02, 1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        step += 1
        decay = min(settings.ema, 1 - 1 / (step / 10 + 1))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        if step == _TIMED // 2:
            # What was before compiled and recorded, and is not training time.
            loss.item()
            started = time.monotonic()
        elif step == _TIMED:
            loss.item()
            each = torch.tensor((time.monotonic() - started) / (_TIMED - _TIMED // 2), device=device)
            if ranks > 1:
                dist.all_reduce(each, dist.ReduceOp.MAX)
            steps = min(steps, math.ceil(settings.seconds / each.item()))
            say(f"denoiser: {1e3 * each.item():.1f} ms a step: {steps} steps of {ranks} batches each")
        elapsed = time.monotonic() - started
        if elapsed - shown >= 20 or step == 1:
            shown = elapsed
            say(f"denoiser {elapsed:4.0f} s  step {step}  loss {loss.item():.4f}")
    say(f"denoiser trained: {step} steps")
    return average
