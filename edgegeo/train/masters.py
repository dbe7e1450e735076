"""bf16 weights to compute with, float32 masters to learn on: what makes a CPU with bf16 instructions fast."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


class Masters:
    """AdamW over float32 copies of the parameters; each step writes them back in the model's own precision."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.98),
        clip: float = 1.0,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        """factors: by parameter name, what the learning rate is multiplied by; 1 where nothing is said."""
        self._live = dict(parameters)
        self._masters = {name: p.detach().float().clone().requires_grad_(True) for name, p in self._live.items()}
        groups: dict[tuple[bool, float], list[Tensor]] = {}
        for name, master in self._masters.items():
            groups.setdefault((master.ndim > 1, (factors or {}).get(name, 1.0)), []).append(master)
        self._optimiser = torch.optim.AdamW(
            [{"params": group, "weight_decay": weight_decay if matrices else 0.0, "factor": factor}
             for (matrices, factor), group in groups.items()],
            lr=lr, betas=betas, fused=True,
        )  # fmt: skip
        self._clip = clip

    def step(self, lr: float) -> float:
        """One update from the gradients that `backward` left; returns their norm before clipping.

        Nothing is updated where the norm is no number.
        """
        for name, live in self._live.items():
            self._masters[name].grad = None if live.grad is None else live.grad.float()
            live.grad = None
        norm = float(torch.nn.utils.clip_grad_norm_(list(self._masters.values()), self._clip))
        for group in self._optimiser.param_groups:
            group["lr"] = lr * group["factor"]
        if math.isfinite(norm):
            self._optimiser.step()
        self._write_back()
        return norm

    @torch.no_grad()
    def _write_back(self) -> None:
        for name, live in self._live.items():
            live.copy_(self._masters[name])

    @property
    def count(self) -> int:
        """How many numbers are learned."""
        return sum(master.numel() for master in self._masters.values())

    def weights(self) -> dict[str, Tensor]:
        """The float32 weights by parameter name."""
        return {name: master.detach().clone() for name, master in self._masters.items()}

    def save(self, file: Path) -> None:
        """Weights and both moments, as safetensors; replaced in one go."""
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        for name, master in self._masters.items():
            tensors[f"weight/{name}"] = master.detach()
            for key, value in self._optimiser.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value
        part = file.with_suffix(".part")
        save_file(tensors, str(part))
        part.replace(file)

    @torch.no_grad()
    def load(self, file: Path) -> None:
        """The state that `save` wrote; training then goes on as if it had not stopped."""
        from safetensors.torch import load_file

        tensors = load_file(str(file))
        for name, master in self._masters.items():
            master.copy_(tensors[f"weight/{name}"])
            keys = ("step", "exp_avg", "exp_avg_sq")
            if f"step/{name}" in tensors:
                self._optimiser.state[master] = {key: tensors[f"{key}/{name}"].clone() for key in keys}
        self._write_back()


def cosine(step: int, steps: int, warmup: int, lr: float, floor: float = 0.02) -> float:
    """Linear warm-up, then a half cosine down to `floor` of the highest rate."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))
    return lr * rise * (floor + (1 - floor) * fall)


def linear(step: int, steps: int, warmup: int, lr: float) -> float:
    """Linear warm-up, then linear decay to zero."""
    return lr * min(1.0, (step + 1) / max(1, warmup)) * max(0.0, 1 - step / max(1, steps))
