"""One optimisation step: draw a batch, compare policy and reference, take the gradient.

    units = batches.at(n)                    pairs, or examples, each with one (sigma, noise)
    x0, embeddings                           stored latents, stored prompt embeddings
    e_ref = error(reference(x_sigma))        no gradient, adapter off (or a stored table)
    e     = error(policy(x_sigma))           one forward pass for chosen and rejected together
    loss  = objective(e, e_ref) + terms            (`models.training.loss`)

Everything random about step n is a function of (seed, n).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp

from data.errors import Diverged, ModelError, StageFailed
from models import lora
from models.adapted_linear import fused
from models.compile import compile_blocks, fastest_attention
from models.families.base import Family
from models.lora import Adapter
from models.training.batches import Batches, Units
from models.training.blocks import BlockRunner, MemoryPlan, budget
from models.training.distributed import ALONE, ProcessGroup
from models.training.equations import error
from models.training.loss import WORST, Passes, finish, loss_of
from models.training.objectives import Logs
from models.training.reference import ErrorTable, predict
from models.training.settings import STORED_SEGMENTS, TrainSettings
from models.training.train_data import TrainData

log = logging.getLogger(__name__)

T = TypeVar("T")

STAGE: Final = "finetune"


# What one thread computes with, over weights shared by all: the policy, and the reference if it is needed.
_Networks = tuple[nn.Module, nn.Module | None]


class Run:
    """The state of a run: adapter, optimiser, micro-batch size, threads. Use it as a context manager.

    Attributes:
        micro_batch: units in one pass; halves_apart: whether a pair's halves go through the network one after
            the other; memory_plan: what the blocks keep, where that was measured.

    On a CPU, several threads can share the micro-batches of a step. Gradients are summed in the order of the
    micro-batches, so the result depends on their size and not on the number of threads.
    """

    def __init__(
        self,
        transformer: nn.Module,
        family: Family,
        data: TrainData,
        settings: TrainSettings,
        adapter: Adapter,
        reference_errors: ErrorTable | None = None,
        threads: int = 1,
        group: ProcessGroup = ALONE,
    ) -> None:
        self.group = group
        self.family, self.settings, self.reference_errors = family, settings, reference_errors
        if settings.algorithm.pairwise and data.pair_frames is not None and reference_errors is not None:
            raise ModelError(STORED_SEGMENTS)
        self.parameters = adapter.parameters()
        self.device = next(iter(self.parameters.values())).device
        self.batches = Batches(data, settings, self.device)
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        threads = threads if self.device.type == "cpu" else 1
        if settings.batch_size < self.group.size:
            raise ModelError(
                f"finetune.batch_size is {settings.batch_size}: {self.group.size} processes "
                "need one unit each"
            )
        share = -(-settings.batch_size // (threads * self.group.size))
        # At least one part for every process.
        self.micro_batch = min(settings.micro_batch or share, settings.batch_size // self.group.size)
        diffusers_model: Any = transformer  # nn.Module does not declare its dtype
        self._dtype: torch.dtype = diffusers_model.dtype
        self._ahead: tuple[int, Units] | None = None
        self.halves_apart = False
        self.memory_plan: MemoryPlan | None = None
        self._runner: BlockRunner | None = None
        self._stack = ExitStack()
        self._free: SimpleQueue[_Networks] = SimpleQueue()
        needs_reference = settings.compares_predictions or (
            settings.compares_errors and reference_errors is None
        )
        for policy in (transformer, *(lora.clone_sharing_weights(transformer) for _ in range(threads - 1))):
            reference = lora.reference_of(policy) if needs_reference else None
            self._free.put((policy, reference))
            self._set_up(policy, reference)
        if settings.attention == "fastest":
            self._stack.enter_context(fastest_attention(self.device))
        self._pool: ThreadPoolExecutor | None = None
        if threads > 1:
            self._stack.callback(torch.set_num_threads, torch.get_num_threads())
            pool = ThreadPoolExecutor(threads, "train", initializer=partial(torch.set_num_threads, 1))
            self._pool = self._stack.enter_context(pool)

    def _set_up(self, policy: nn.Module, reference: nn.Module | None) -> None:
        """Compile, and say what the blocks keep for the backward pass."""
        asked, compiled = self.settings.gradient_checkpointing, self.settings.compile
        for network in (policy, reference) if reference is not None else (policy,):
            self._stack.enter_context(fused(lora.layers_of(network)))
        if reference is not None and compiled:
            compile_blocks(reference)
        if not (asked or compiled):
            return
        runner = BlockRunner(policy, compile=compiled)
        self._stack.callback(runner.release)
        if asked == "auto":
            self._runner = runner if self.device.type == "cuda" else None
        elif asked:
            runner.keep(0, attention=asked == "attention")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step; its logs. Less is computed at once until it fits the GPU.

        Raises:
            StageFailed: the loss or the gradient is not finite (`Diverged`), or a single clip does not fit.
        """
        while True:
            try:
                if self._runner is not None and self.memory_plan is None:
                    self.memory_plan = self._agree(self._guarded(partial(self._plan, self._runner, step)))
                return self._update(step, self._accumulate(step))
            except torch.OutOfMemoryError as full:
                if not self._take_less(step):
                    raise self._too_large(step) from full
            self.optimizer.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _guarded(self, work: Callable[[], T]) -> T:
        """Do `work`, which no process may leave alone: if one is out of memory, all of the group are told."""
        found: list[T] = []
        full = torch.OutOfMemoryError("another process of the group is out of memory")
        try:
            found.append(work())
        except torch.OutOfMemoryError as failure:
            # Without its frames: they hold what filled the memory.
            full = failure.with_traceback(None)
        if self.group.least(len(found), self.device) == 0:
            raise full
        return found[0]

    def _plan(self, runner: BlockRunner, step: int) -> MemoryPlan:
        units = self.batches.at(step)
        # Memory does not depend on a value of the whole batch: any does for the trial.
        some = torch.zeros((), device=self.device)
        once = partial(self._gradients, len(units), some, next(units.split(self.micro_batch)))
        # Still to come: the sum of the micro-batches' gradients, and AdamW's two moments.
        size = sum(parameter.numel() * parameter.element_size() for parameter in self.parameters.values())
        reserve = size * (1 + (0 if self.optimizer.state else 2))
        return runner.fit(once, self.device, budget(self.device, self.settings.memory_gb, reserve))

    def _agree(self, plan: MemoryPlan) -> MemoryPlan:
        """All processes of a group keep as much as the one with the least room."""
        assert self._runner is not None
        kept = int(self.group.least(plan.kept, self.device))
        attention = self.group.least(plan.attention, self.device) == 1
        self._runner.keep(kept, attention=attention)
        return replace(plan, kept=kept, attention=attention)

    def _take_less(self, step: int) -> bool:
        """Less at once: what blocks keep, then the micro-batch, then a pair's halves. False: no way."""
        plan, runner = self.memory_plan, self._runner
        if plan is not None and runner is not None and (plan.kept or plan.attention):
            kept = plan.kept // 2
            self.memory_plan = replace(plan, kept=kept, attention=plan.kept > 0)
            runner.keep(kept, attention=plan.kept > 0)
            log.warning("step %d: %s is full, %d blocks now keep everything", step, self.device, kept)
        elif self.micro_batch > 1:
            self.micro_batch = (self.micro_batch + 1) // 2
            self.memory_plan = None  # with less at once, blocks may keep more
            log.warning("step %d: %s is full, micro-batch is now %d", step, self.device, self.micro_batch)
        elif runner is not None and plan is None:
            self.memory_plan = MemoryPlan(0, False, 0, 0)
            runner.keep(0, attention=False)
            log.warning("step %d: %s is full, blocks now keep nothing", step, self.device)
        elif self.settings.algorithm.pairwise and not self.halves_apart:
            self.halves_apart = True
            log.warning("step %d: %s is full, a pair's halves now go one after the other", step, self.device)
        else:
            return False
        return True

    def _too_large(self, step: int) -> StageFailed:
        settings = self.settings
        ways = [] if settings.gradient_checkpointing else ["finetune.gradient_checkpointing: auto"]
        if self._dtype == torch.float32:
            ways.append("model.dtype: bfloat16")
        ways += [
            "smaller or fewer frames",
            f"a finetune.rank below {settings.rank}",
            "model.quantise: fp8-storage",
            "a smaller model",
        ]
        held = ""
        if self.device.type == "cuda":
            weights = torch.cuda.memory_allocated(self.device) / 1e9
            whole = torch.cuda.get_device_properties(self.device).total_memory / 1e9
            held = f" ({whole:.0f} GB, of which weights and optimiser hold {weights:.1f} GB)"
        return StageFailed(
            STAGE,
            f"step {step}: one clip does not fit into the memory of {self.device}{held}. What takes less: "
            + ", ".join(ways),
        )

    def _accumulate(self, step: int) -> Logs:
        """This process's part of the gradient, left in the parameters, and of the logs."""
        ahead, self._ahead = self._ahead, None
        units = ahead[1] if ahead is not None and ahead[0] == step else self.batches.at(step)
        parts = list(units.split(self.micro_batch))
        compute = partial(self._gradients, len(units), self._batch_value(parts, len(units)))
        totals: Logs = {}

        def add_up() -> None:
            for share, slopes, logs in self._map(compute, self.group.shard(parts)):
                for parameter, slope in zip(self.parameters.values(), slopes, strict=True):
                    parameter.grad = slope if parameter.grad is None else parameter.grad.add_(slope)
                for name, value in logs.items():
                    if name.endswith(WORST):
                        totals[name] = torch.maximum(totals[name], value) if name in totals else value
                    else:
                        totals[name] = totals.get(name, 0.0) + share * value

        self._guarded(add_up)
        if self.device.type == "cuda":
            # While the GPU is at work: drawing the noise of the next step takes a CPU some milliseconds.
            self._ahead = step + 1, self.batches.at(step + 1)
        return totals

    def _update(self, step: int, totals: Logs) -> dict[str, float]:
        """Add up what the group computed, and take the optimiser's step."""
        self.group.all_reduce([cast(Tensor, parameter.grad) for parameter in self.parameters.values()])
        self.group.all_reduce([value for name, value in totals.items() if name.endswith(WORST)], ReduceOp.MAX)
        self.group.all_reduce([value for name, value in totals.items() if not name.endswith(WORST)])
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.max_grad_norm)
        values = torch.stack([*totals.values(), norm]).tolist()
        entry = finish(dict(zip([*totals, "grad_norm"], values, strict=True)))
        bad = [name for name, value in entry.items() if not math.isfinite(value)]
        if bad:
            raise Diverged(
                STAGE,
                f"step {step}: {', '.join(bad)} became {entry[bad[0]]}. Lower finetune.lr or finetune.beta; "
                "clips, scores and the last checkpoint are kept",
            )
        rate = learning_rate(self.settings, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {**entry, "lr": rate}

    def _gradients(
        self, whole: int, batch_value: Tensor | None, units: Units
    ) -> tuple[float, tuple[Tensor, ...], Logs]:
        """Share of a micro-batch in the batch, its part of the gradient, and its logs."""
        with self._lent() as networks:
            share, rows = len(units) / whole, units.per_clip()
            seen = self._passes(networks, rows)
            loss, logs = loss_of(self.settings, rows, seen, self.batches.accepted_share, batch_value)
            slopes = torch.autograd.grad(share * loss, list(self.parameters.values()))
        return share, slopes, {"loss": loss.detach(), **logs}

    def _passes(self, networks: _Networks, rows: Units) -> Passes:
        """The policy's prediction for one row a clip, and what the settings compare it with."""
        settings, kind = self.settings, self.family.parameterization
        x0, embeds = self.batches.inputs(rows)
        noisy, target = kind.noisy(x0, rows.noise, rows.sigma), kind.target(x0, rows.noise, rows.sigma)

        policy, still = networks
        reference: Tensor | None = None
        if still is not None:
            with torch.no_grad():
                reference = self._predict(still, noisy, rows.sigma, embeds)
        prediction = self._predict(policy, noisy, rows.sigma, embeds)
        reference_error: Tensor | None = None
        if settings.compares_errors:
            if self.reference_errors is not None:
                reference_error = self.reference_errors(rows.clips[:, 0], rows.fixed_draws).to(self.device)
            else:
                assert reference is not None
                reference_error = error(reference, target, rows.frames)
        return Passes(prediction, target, reference, reference_error)

    def _predict(self, network: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        if not self.halves_apart:
            return predict(self.family, network, noisy, sigma, embeds)
        inputs = zip(noisy.chunk(2), sigma.chunk(2), embeds.chunk(2), strict=True)
        return torch.cat([predict(self.family, network, *half) for half in inputs])

    def _batch_value(self, parts: Sequence[Units], whole: int) -> Tensor | None:
        """`Objective.over_batch` of all parts: a pass without gradient, spared where one is the batch."""
        over_batch = self.settings.algorithm.over_batch
        if over_batch is None or len(parts) == 1:
            return None
        errors = torch.zeros(2, whole, device=self.device)
        own = self.group.shard(errors.split(self.micro_batch, dim=1))
        found = self._guarded(lambda: list(self._map(self._errors, self.group.shard(parts))))
        for place, measured in zip(own, found, strict=True):
            place.copy_(measured)
        self.group.all_reduce([errors])
        return over_batch(errors[0], errors[1], self.settings)

    def _errors(self, units: Units) -> Tensor:
        """Errors of policy and reference on a micro-batch, [2, b], without gradient."""
        with self._lent() as networks, torch.no_grad():
            seen = self._passes(networks, units.per_clip())
            assert seen.reference_error is not None
            return torch.stack([error(seen.prediction, seen.target), seen.reference_error])

    def _map(self, work: Callable[[Units], Any], parts: Sequence[Units]) -> Iterable[Any]:
        return self._pool.map(work, parts) if self._pool else map(work, parts)

    @contextmanager
    def _lent(self) -> Iterator[_Networks]:
        """Networks that no other thread is using."""
        networks = self._free.get()
        try:
            yield networks
        finally:
            self._free.put(networks)

    def state(self) -> dict[str, Tensor]:
        """Adapter and optimiser state by name, on the CPU."""
        held = {}
        for name, parameter in self.parameters.items():
            held[f"adapter/{name}"] = parameter.detach().cpu()
            for moment, value in self.optimizer.state[parameter].items():
                held[f"{moment}/{name}"] = value.detach().cpu()
        return held

    def restore(self, held: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(held[f"adapter/{name}"])
                for moment in ("step", "exp_avg", "exp_avg_sq"):
                    self.optimizer.state[parameter][moment] = held[f"{moment}/{name}"].to(self.device)


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Rate of step n: linear warm-up, times a cosine that reaches zero after the last step, or constant."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    fall = 0.5 * (1 + math.cos(math.pi * step / settings.steps)) if settings.schedule == "cosine" else 1.0
    return settings.lr * rise * fall
