"""Gates: which of a model's layers a pair of images is matched by (docs/algorithm.md, section 3).

Learned gates decide for each pair (Dynamic Hyperpixel Flow), in training with noise; open gates use every layer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from dhpf.config import GatesName
from dhpf.errors import InputError
from dhpf.model.global_batch import TrainingPairs, Workers, follow, global_moments, normalise

GATE_WIDTH = 32
"""Hidden width of a layer's gate (docs/algorithm.md, section 3)."""

START_LOGIT = 2.0
"""Distance from 0 of the logits with which `start_open` begins. Noise then flips a gate for a few pairs in a hundred.

With 1 it flipped one in five, and the trained gates became worse than the layers that they started from.
"""

GUMBEL_EPSILON = 1e-10


class PairGates(nn.Module):
    """Decides which layers a pair uses, from the activations of its two images."""

    @abstractmethod
    def activate(self, maps: list[Tensor]) -> Tensor:
        """(B, L, H) activations of B images from each layer's map: all that `decide` needs of an image. H may be 0."""

    @abstractmethod
    def decide(self, source: Tensor, target: Tensor) -> Tensor:
        """(B, L) gates of B pairs, 1 for open and 0 for closed, from the activations of source and target images."""

    @abstractmethod
    def decide_step(
        self, source: Tensor, target: Tensor, pairs: TrainingPairs, uniform: Tensor, workers: Workers
    ) -> Tensor:
        """(P, L) gates of a training step's pairs: hard, noisy and differentiable, normalised over the whole step.

        Args:
            source, target: activations of this process's images.
            uniform: (P, L, 2) draws from [0, 1) for the Gumbel noise.
        """

    @abstractmethod
    def start_open(self, layers: Sequence[int]) -> None:
        """Starts with the gates of these layers open for nearly every pair, and with all others closed.

        Raises:
            InputError: a layer that has no gate.
        """


class OpenGates(PairGates):
    """Every pair uses every layer; nothing is learned."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()

    def activate(self, maps: list[Tensor]) -> Tensor:
        """(B, L, 0), because open gates depend on no image."""
        return maps[0].new_zeros(len(maps[0]), len(maps), 0)

    def decide(self, source: Tensor, target: Tensor) -> Tensor:
        """(B, L) ones."""
        return source.new_ones(source.shape[:2])

    def decide_step(
        self, source: Tensor, target: Tensor, pairs: TrainingPairs, uniform: Tensor, workers: Workers
    ) -> Tensor:
        """(P, L) ones."""
        return uniform.new_ones(uniform.shape[:2])

    def start_open(self, layers: Sequence[int]) -> None:
        raise InputError(f"gates that start open for layers {tuple(layers)}: this model's layers have no gates")


class LayerGates(PairGates):
    """One learned gate per layer; open when its second logit exceeds its first.

    The first, linear half of a gate belongs to an image (`activate`), the second to a pair (`forward`).
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.gates = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, GATE_WIDTH, 1, bias=False),
                nn.BatchNorm2d(GATE_WIDTH),
                nn.ReLU(),
                nn.Conv2d(GATE_WIDTH, 2, 1, bias=False),
            )
            for width in widths
        )

    def activate(self, maps: list[Tensor]) -> Tensor:
        """(B, L, 32): the first convolution of each layer's gate, on the map's average, for each image."""
        pooled = [gate[0](_average(m)) for gate, m in zip(self.gates, maps, strict=True)]  # type: ignore[index]
        return torch.stack([p.flatten(1) for p in pooled], dim=1)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """(B, L, 2) logits (closed, open) from the (B, L, 32) activations of source and target images, in inference.

        All gates are computed at once; 34 gates one after the other would take a fortieth of a pair's time.
        """
        norms = self._norms()
        mean, variance = (torch.stack([getattr(n, f"running_{name}") for n in norms]) for name in ("mean", "var"))
        scale = torch.stack([n.weight for n in norms]) / (variance + norms[0].eps).sqrt()
        return self._logits(((source + target - mean) * scale + torch.stack([n.bias for n in norms])).relu())

    def decide(self, source: Tensor, target: Tensor) -> Tensor:
        """(B, L) gates of B pairs, without noise."""
        return open_gates(self(source, target))

    def decide_step(
        self, source: Tensor, target: Tensor, pairs: TrainingPairs, uniform: Tensor, workers: Workers
    ) -> Tensor:
        """(P, L) gates of a training step's pairs, see PairGates."""
        pooled = source[pairs.sources] + target[pairs.targets]
        return sample_gates(self.logits_of_step(pooled, pairs.weights, workers), uniform)

    def logits_of_step(self, pooled: Tensor, weights: Tensor, workers: Workers) -> Tensor:
        """`forward` in training, normalised over the pairs of all processes.

        Args:
            pooled: (P, L, 32) sum of each pair's activations.
            weights: (P,) how often each pair counts.
        """
        norms, channels = self._norms(), pooled.flatten(1)[:, :, None, None]
        moments = global_moments([channels], weights, workers)
        follow(norms, moments)
        (rectified,) = normalise([channels], moments, norms)
        return self._logits(rectified.view_as(pooled))

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [gate[1] for gate in self.gates]  # type: ignore[index]

    def _logits(self, rectified: Tensor) -> Tensor:
        """(P, L, 2) last convolution of each gate, of (P, L, 32)."""
        mix = torch.stack([gate[3].weight.flatten(1) for gate in self.gates])  # type: ignore[index]
        logits: Tensor = (rectified.unsqueeze(2) * mix).sum(dim=3)
        return logits

    @torch.no_grad()
    def start_open(self, layers: Sequence[int]) -> None:
        """See PairGates."""
        for layer in layers:
            if not 0 <= layer < len(self.gates):
                raise InputError(
                    f"gates that start open: the network has layers 0 to {len(self.gates) - 1}, not {layer}"
                )
        for layer, gate in enumerate(self.gates):
            sign = 1.0 if layer in layers else -1.0
            gate[1].bias.fill_(1.0)  # type: ignore[index]
            # A rectified normal value around 1 is 1.08 on average: logits begin about 2 * START_LOGIT apart.
            gate[3].weight[1] += sign * START_LOGIT / GATE_WIDTH  # type: ignore[index]
            gate[3].weight[0] -= sign * START_LOGIT / GATE_WIDTH  # type: ignore[index]


GATES: Mapping[GatesName, Callable[[tuple[int, ...]], PairGates]] = MappingProxyType(
    {"learned": LayerGates, "open": OpenGates}
)
"""The gates by the name that a layer selection asks for; they are built from the width of each layer."""


def _average(maps: Tensor) -> Tensor:
    """(B, C, 1, 1) mean of (B, C, side, side) maps, whose channels may come last in memory: then rows are added up."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)[:, :, None, None]


def open_gates(logits: Tensor) -> Tensor:
    """(B, L) hard gates, 1 for open and 0 for closed, of (B, L, 2) logits; a tie is closed."""
    return (logits[..., 1] > logits[..., 0]).to(logits.dtype)


def sample_gates(logits: Tensor, uniform: Tensor) -> Tensor:
    """Hard gates with Gumbel noise whose gradient is that of the soft ones (straight-through, temperature 1).

    Args:
        logits: (B, L, 2).
        uniform: (B, L, 2) draws from [0, 1) that make the noise.

    Returns:
        (B, L) gates, exactly 0 or 1.
    """
    noise = -torch.log(GUMBEL_EPSILON - torch.log(uniform + GUMBEL_EPSILON))
    soft = torch.softmax(logits + noise, dim=-1)
    hard = (soft[..., 1] > soft[..., 0]).to(soft.dtype)
    return hard + (soft[..., 1] - soft[..., 1].detach())


def layer_weights(gates: Tensor) -> Tensor:
    """(B, L) weight of each layer in the correlation: the gate squared; layer 0 answers where no gate is open."""
    none_open = (gates.detach().sum(dim=1) == 0).to(gates.dtype)
    base = torch.zeros_like(gates)
    base[:, 0] = none_open
    return gates.square() + base
