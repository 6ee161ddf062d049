"""The network, top to bottom: images -> features of an image -> correlation of a pair.

    describe(images) -> ImageFeatures                       all that the network knows of an image
    match(source, target, pairs) -> BestCells, selection    what is read of a correlation, without keeping it
    match_images(images, pairs) -> BestCells, selection     both in one, for images that nothing else is matched with
    correlate(source, target) -> MatcherOutput              the whole correlation, with gradient

`match` is what inference runs, by the fastest engine; `correlate` is the same arithmetic on whole matrices. A batch of
N pairs gives what N single pairs give. `embed_step` and `select_step` are `embed` and `select` in training, where
images and pairs are normalised by the batch that they stand in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dhpf.config import GRID_SIDE, ModelConfig
from dhpf.model.backbone import Backbone
from dhpf.model.best_cells import BestCells
from dhpf.model.correlation import (
    NativeCorrelation,
    appearance_blocks,
    cosines,
    feature_lengths,
    native_products,
    products_at,
    squared_norms,
)
from dhpf.model.engines.problem import MatchEngine, MatchProblem
from dhpf.model.gates import GATES, OpenGates, layer_weights
from dhpf.model.geometry import NUM_CELLS, to_grid
from dhpf.model.global_batch import ALONE, TrainingPairs, Workers, follow, global_moments, normalise
from dhpf.model.hough import NUM_DISPLACEMENTS, HoughVoting
from dhpf.model.match_entropy import PairFeatures, match_entropy


@dataclass(frozen=True)
class ImageFeatures:
    """What the network knows of B images.

    Attributes:
        maps: for each layer that the model keeps: (B, C_l, side_l, side_l) projected maps, side_l <= 60; they may be
            kept in half precision, engines compute in single all the same.
        squared_norms: (B, L, N) squared length of each layer's feature at each grid cell.
        gate_activations: (B, L, H) what the gates know of each image; H is 32, or 0 where no gate is learned.
    """

    maps: tuple[Tensor, ...]
    squared_norms: Tensor
    gate_activations: Tensor

    def __len__(self) -> int:
        return len(self.squared_norms)

    def __getitem__(self, index: Tensor) -> ImageFeatures:
        """The features of the images that a (B',) index tensor names, repeats allowed."""
        maps = tuple(m[index] for m in self.maps)
        return ImageFeatures(maps, self.squared_norms[index], self.gate_activations[index])

    @property
    def num_bytes(self) -> int:
        """Memory that they take."""
        return sum(t.numel() * t.element_size() for t in (*self.maps, self.squared_norms, self.gate_activations))

    def in_half_precision(self) -> ImageFeatures:
        """The same features in about half of the memory; what a half cannot hold becomes its largest value."""
        limit = torch.finfo(torch.float16).max
        return replace(self, maps=tuple(m.clamp(-limit, limit).half() for m in self.maps))

    def in_single_precision(self) -> ImageFeatures:
        """The same features as they can be computed with."""
        return replace(self, maps=tuple(m.float() for m in self.maps))

    @classmethod
    def concatenate(cls, parts: Sequence[ImageFeatures]) -> ImageFeatures:
        """The features of several batches of images as one batch."""
        return cls(
            maps=tuple(torch.cat(layer) for layer in zip(*(p.maps for p in parts), strict=True)),
            squared_norms=torch.cat([p.squared_norms for p in parts]),
            gate_activations=torch.cat([p.gate_activations for p in parts]),
        )


@dataclass(frozen=True)
class MatcherOutput:
    """What the network says of B pairs.

    Attributes:
        correlation: (B, S, T) appearance times geometric score.
        selection: (B, L) 1 for a layer that the pair's gates selected, over all layers of the backbone; all 0 when no
            gate opened and layer 0 answered. Carries the gates' gradient in training.
        geometric_scores: (B, 119, 119) Hough score of each displacement [dy, dx] in cells, from -59 to 59.
    """

    correlation: Tensor
    selection: Tensor
    geometric_scores: Tensor


class HyperpixelNetwork(nn.Module):
    """A frozen backbone, projections of its layers, and the choice of layers for a pair.

    Args:
        config: what to build.
        backbone: `load_backbone(config.backbone, config.weights)`.

    Raises:
        InputError: a fixed layer that the backbone does not have.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.layers = config.kept_layers(len(backbone))
        widths = tuple(backbone.widths[layer] for layer in self.layers)
        self.projections = _projections(config, widths)
        self.selector = GATES[config.layer_selection.gates](widths)
        self.hough = HoughVoting(config.hough_bins)

    # -- an image ------------------------------------------------------------------------------------------------

    def extract(self, images: Tensor) -> list[Tensor]:
        """The frozen backbone's maps of (B, 3, side, side) uint8 images, for the layers that the model keeps."""
        maps = self.backbone(images, last_layer=self.layers[-1])
        return [maps[layer] for layer in self.layers]

    def embed(self, maps: list[Tensor]) -> ImageFeatures:
        """The learned half of `describe`: gates' activations, projected maps and their norms."""
        return self.embed_layers(maps, self.selector.activate(maps), [True] * len(maps))

    def embed_layers(self, maps: list[Tensor], activations: Tensor, used: Sequence[bool]) -> ImageFeatures:
        """`embed` where only some layers will be used: the others' maps get no channel.

        Args:
            activations: of the gates, for these maps.
            used: of each layer, whether some pair of these images selects it.
        """
        projected = [m if of_use else m[:, :0, :GRID_SIDE, :GRID_SIDE] for m, of_use in zip(maps, used, strict=True)]
        if self.projections:
            layers = zip(self.projections, projected, used, strict=True)
            projected = [project(m) if of_use else m for project, m, of_use in layers]
        return _features(projected, activations)

    def describe(self, images: Tensor) -> ImageFeatures:
        """All that the network knows of (B, 3, side, side) uint8 images."""
        return self.embed(self.extract(images))

    def embed_step(
        self, source: list[Tensor], target: list[Tensor], pairs: TrainingPairs, workers: Workers = ALONE
    ) -> tuple[ImageFeatures, ImageFeatures]:
        """`embed` in training: a step's source images, then its target images, each normalised as one batch.

        An image counts as often as it stands in a pair of the step. The base map is layer 0's projection once more, so
        layer 0's running statistics take each batch twice (ALGORITHM section 11).

        Args:
            source, target: `extract` of this process's source and target images.
        """
        if self.config.used_projection != "learned":  # nothing is normalised by the batch
            return self.embed(source), self.embed(target)
        images = ((source, pairs.source_counts(len(source[0]))), (target, pairs.target_counts(len(target[0]))))
        mixed = [self._mixed(maps) for maps, _ in images]
        moments = [global_moments(m, counts, workers) for m, (_, counts) in zip(mixed, images, strict=True)]
        norms = [project[1] for project in self.projections]  # type: ignore[index]
        for batch in moments:
            follow(norms[:1], batch.first(norms[0].num_features))
        for batch in moments:
            follow(norms, batch)
        projected = [normalise(layers, batch, norms) for layers, batch in zip(mixed, moments, strict=True)]
        of_source, of_target = _features_of(projected, [self.selector.activate(maps) for maps, _ in images])
        return of_source, of_target

    def _mixed(self, maps: list[Tensor]) -> list[Tensor]:
        """The projections' convolutions, channels before rows in memory as all that follows reads them."""
        return [project[0](m).contiguous() for project, m in zip(self.projections, maps, strict=True)]  # type: ignore[index]

    # -- a pair --------------------------------------------------------------------------------------------------

    def select(self, source: ImageFeatures, target: ImageFeatures) -> Tensor:
        """(B, L) gates of B pairs over the kept layers, each 0 or 1."""
        every = torch.arange(len(source), device=source.squared_norms.device)
        return self._select(source, target, every, every)

    def _select(self, source: ImageFeatures, target: ImageFeatures, sources: Tensor, targets: Tensor) -> Tensor:
        return self.selector.decide(source.gate_activations[sources], target.gate_activations[targets])

    def select_step(
        self,
        source: ImageFeatures,
        target: ImageFeatures,
        pairs: TrainingPairs,
        uniform: Tensor,
        workers: Workers = ALONE,
    ) -> Tensor:
        """(P, L) gates of a training step's pairs, with gradient.

        Args:
            source, target: `embed_step` of this process's images.
            uniform: (P, L, 2) draws from [0, 1) for the Gumbel noise.
        """
        return self.selector.decide_step(source.gate_activations, target.gate_activations, pairs, uniform, workers)

    @torch.no_grad()
    def match(
        self,
        source: ImageFeatures,
        target: ImageFeatures,
        pairs: Sequence[tuple[int, int]],
        wanted: Tensor,
        engine: MatchEngine,
    ) -> tuple[BestCells, Tensor]:
        """What is read of the correlations of B pairs, and which layers each selected.

        Args:
            source, target: features of images; the same object where pairs are of one collection.
            pairs: (number in source, number in target) of each pair.
            wanted: (B, N) bool, source cells whose match after the mutual filter is asked for.

        Returns:
            the best cells, and the (B, L) selection over all layers of the backbone.
        """
        index = torch.tensor(pairs, device=source.squared_norms.device).view(-1, 2)
        gates = self._select(source, target, index[:, 0], index[:, 1])
        found = self.match_selected(source, target, pairs, gates, wanted, engine)
        return found, self.on_all_layers(gates)

    @torch.no_grad()
    def match_images(
        self, images: Tensor, pairs: Sequence[tuple[int, int]], wanted: Tensor, engine: MatchEngine
    ) -> tuple[BestCells, Tensor]:
        """`match` of (B, 3, side, side) uint8 images that stand in these pairs alone.

        What no pair selects is not projected.
        """
        maps = self.extract(images)
        activations = self.selector.activate(maps)
        index = torch.tensor(pairs, device=images.device).view(-1, 2)
        gates = self.selector.decide(activations[index[:, 0]], activations[index[:, 1]])
        features = self.embed_layers(maps, activations, (layer_weights(gates) > 0).any(dim=0).tolist())
        found = self.match_selected(features, features, pairs, gates, wanted, engine)
        return found, self.on_all_layers(gates)

    @torch.no_grad()
    def match_selected(
        self,
        source: ImageFeatures,
        target: ImageFeatures,
        pairs: Sequence[tuple[int, int]],
        gates: Tensor,
        wanted: Tensor,
        engine: MatchEngine,
    ) -> BestCells:
        """`match` of B pairs whose (B, L) gates are known."""
        weights = layer_weights(gates)
        sources, targets = torch.tensor(pairs, device=gates.device).view(-1, 2).unbind(dim=1)
        problem = MatchProblem(
            source_maps=source.maps,
            target_maps=target.maps,
            pairs=pairs,
            selected=weights > 0,
            source_lengths=feature_lengths(source.squared_norms[sources], weights, self.training),
            target_lengths=feature_lengths(target.squared_norms[targets], weights, self.training),
            exponent=self.config.appearance_exponent,
            hough=self.hough,
            wanted=wanted,
        )
        return engine(problem)

    def appearance(self, source: ImageFeatures, target: ImageFeatures, gates: Tensor) -> list[Tensor]:
        """The appearance matrix of B pairs, as 60 blocks (B, 60, N) of source grid rows."""
        weights = layer_weights(gates)
        native = NativeCorrelation(native_products(source.maps, target.maps, weights))
        source_lengths = feature_lengths(source.squared_norms, weights, self.training)
        target_lengths = feature_lengths(target.squared_norms, weights, self.training)
        exponent = self.config.appearance_exponent
        return list(appearance_blocks(native, source_lengths, target_lengths, exponent))

    def correlate(self, source: ImageFeatures, target: ImageFeatures) -> MatcherOutput:
        """Correlation and layer selection of B pairs."""
        return self.correlate_selected(source, target, self.select(source, target))

    def correlate_selected(self, source: ImageFeatures, target: ImageFeatures, gates: Tensor) -> MatcherOutput:
        """Correlation of B pairs whose (B, L) gates are known."""
        blocks = self.appearance(source, target, gates)
        votes = blocks[0].new_zeros(len(source), NUM_DISPLACEMENTS, NUM_DISPLACEMENTS)
        for y, block in enumerate(blocks):
            self.hough.count_row(votes, block, y)
        scores = self.hough.scores(votes)
        rows = [block * self.hough.score_row(scores, y) for y, block in enumerate(blocks)]
        return MatcherOutput(torch.cat(rows, dim=1), self.on_all_layers(gates), scores)

    @torch.no_grad()
    def match_own_maps(
        self, source: list[Tensor], target: list[Tensor], layers: Sequence[int], engine: MatchEngine
    ) -> BestCells:
        """What B aligned pairs' matches are before anything is learned: by the backbone's own maps of some layers.

        Args:
            source, target: `extract` of the B source and the B target images.
            layers: positions among the kept layers.

        Returns:
            the best cells, every source cell's match asked for.
        """
        used = [[maps[layer] for layer in layers] for maps in (source, target)]
        every = OpenGates(())
        features = [_features(maps, every.activate(maps)) for maps in used]
        gates = every.decide(features[0].gate_activations, features[1].gate_activations)
        wanted = torch.ones(len(gates), NUM_CELLS, dtype=torch.bool, device=gates.device)
        pairs = [(n, n) for n in range(len(gates))]
        return self.match_selected(features[0], features[1], pairs, gates, wanted, engine)

    def cosines(self, source: ImageFeatures, target: ImageFeatures, gates: Tensor, cells: Tensor) -> Tensor:
        """(B, K, T) cosines, not rectified, of (B, K) source cells with all target cells, with gradient."""
        weights = layer_weights(gates)
        lengths = [feature_lengths(f.squared_norms, weights, self.training) for f in (source, target)]
        products = products_at(source.maps, target.maps, weights, cells)
        return cosines(products, lengths[0].gather(1, cells), lengths[1])

    def correlate_cells(
        self, source: ImageFeatures, target: ImageFeatures, gates: Tensor, cells: Tensor, scores: Tensor
    ) -> Tensor:
        """(B, K, T) rows of the correlation at (B, K) source cells, with gradient, given the geometric scores.

        A strong loss reads 10 to 40 of the 3,600 rows; the scores carry no gradient and come from a pass without.
        """
        appearance = self.cosines(source, target, gates, cells).relu().pow(self.config.appearance_exponent)
        return appearance * self.hough.scores_at(scores, cells)

    def match_entropy(
        self, source: ImageFeatures, target: ImageFeatures, pairs: TrainingPairs, gates: Tensor
    ) -> Tensor:
        """(P,) mean entropy of the matches of a training step's pairs, with gradient, given their (P, L) gates."""
        weights = layer_weights(gates)
        sources, targets = ([m.unbind() for m in features.maps] for features in (source, target))
        result = []
        for of_pair, i, j in zip(weights, pairs.sources.tolist(), pairs.targets.tolist(), strict=True):
            layers = of_pair.nonzero().flatten().tolist()
            left, right = (
                PairFeatures(
                    tuple(maps[layer][n] for layer in layers),
                    feature_lengths(features.squared_norms[n][None], of_pair[None], self.training)[0],
                )
                for features, maps, n in ((source, sources, i), (target, targets, j))
            )
            entropy = match_entropy(left, right, of_pair[layers], self.config.appearance_exponent, self.hough)
            result.append(entropy)
        return torch.stack(result)

    # -- before training -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def start_near_identity(self, maps: list[Tensor]) -> None:
        """Starts the projections close to the features that the frozen backbone gives, instead of at random.

        Channels are mixed by the identity, or by orthogonal rows where there are fewer; normalisation starts with the
        statistics of `maps` and with one scale per layer, so that layers count for as much as they do in the backbone.

        Args:
            maps: `extract` of a few images.
        """
        for projection, layer in zip(self.projections, maps, strict=True):
            mix, normalise = projection[0], projection[1]  # type: ignore[index]
            if mix.weight.shape[0] == mix.weight.shape[1]:
                nn.init.dirac_(mix.weight)
            else:
                nn.init.orthogonal_(mix.weight)
            mixed = mix(layer)
            variance, mean = torch.var_mean(mixed, dim=(0, 2, 3))
            normalise.running_mean.copy_(mean)
            normalise.running_var.copy_(variance)
            normalise.weight.fill_(float(variance.mean().sqrt()))
            normalise.bias.zero_()

    # -- the rest ------------------------------------------------------------------------------------------------

    def on_all_layers(self, gates: Tensor) -> Tensor:
        """(B, L) gates of the kept layers -> over all layers of the backbone, 0 for those that are not kept."""
        if len(self.layers) == len(self.backbone):
            return gates
        full = gates.new_zeros(len(gates), len(self.backbone))
        full[:, list(self.layers)] = gates
        return full

    def learned_state(self) -> dict[str, Tensor]:
        """The state dict without the frozen backbone: what a checkpoint stores."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}


class ResidualProjection(nn.Module):
    """A layer's own map plus a linear mix of its channels; begins as the map itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, side, side) -> the same, of at most the grid's side; mixing and resizing may change places."""
        maps = to_grid(maps).contiguous()
        mixed: Tensor = maps + self.mix(maps)
        return mixed


def _features(maps: list[Tensor], activations: Tensor) -> ImageFeatures:
    return _features_of([maps], [activations])[0]


def _features_of(batches: Sequence[list[Tensor]], activations: Sequence[Tensor]) -> list[ImageFeatures]:
    """Of several batches of images, each given by the maps of its layers, whose norms are taken together."""
    on_grid = [[to_grid(m).contiguous() for m in maps] for maps in batches]
    num_layers = len(on_grid[0])
    norms = squared_norms([m for maps in on_grid for m in maps])
    return [
        ImageFeatures(tuple(maps), torch.stack(norms[n * num_layers : (n + 1) * num_layers], dim=1), of_gates)
        for n, (maps, of_gates) in enumerate(zip(on_grid, activations, strict=True))
    ]


def _projections(config: ModelConfig, widths: tuple[int, ...]) -> nn.ModuleList:
    """One projection for each of the kept layers, whose widths are given; none where the maps are taken as they are."""
    match config.used_projection:
        case "learned":
            return nn.ModuleList(_projection(width, config.projection_divisor) for width in widths)
        case "residual":
            return nn.ModuleList(ResidualProjection(width) for width in widths)
        case "none":
            return nn.ModuleList()


def _projection(width: int, divisor: int) -> nn.Sequential:
    """The paper's convolutional feature transform: width -> width / divisor channels (at least 1)."""
    narrow = max(1, width // divisor)
    return nn.Sequential(nn.Conv2d(width, narrow, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU())
