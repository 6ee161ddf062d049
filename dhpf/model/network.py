"""The network, top to bottom: two images -> features of each -> correlation and layer selection of the pair.

    forward(source, target) -> MatcherOutput                the whole correlation of two batches of images
    describe(images) -> ImageFeatures                       all that the network knows of an image
    correlate(source, target) -> MatcherOutput              the whole correlation of described images
    match(source, target, pairs) -> BestCells, selection    the best cells of a correlation that is not kept
    match_images(images, pairs) -> BestCells, selection     describe and match, for images of these pairs alone

`match` is what inference runs, by the fastest engine; `correlate` is the same arithmetic on whole matrices. A batch of
N pairs gives what N single pairs give. Training, in which images and pairs are normalised by their batch, uses the
functions of dhpf.model.training_step instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dhpf.config import GRID_SIDE, ModelConfig
from dhpf.model.backbone import Backbone
from dhpf.model.correlation import NativeCorrelation, appearance_blocks, feature_lengths, native_products
from dhpf.model.engines.engine import BestCells, MatchEngine, MatchProblem
from dhpf.model.features import (
    ImageFeatures,
    ImageParts,
    build_projections,
    foreground_weights,
    image_features,
)
from dhpf.model.gates import GATES, layer_weights
from dhpf.model.hough import NUM_DISPLACEMENTS, HoughVoting
from dhpf.model.usable_cells import UsableCells, clear_unusable


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
        self.projections = build_projections(config, widths)
        self.selector = GATES[config.layer_selection.gates](widths)
        self.hough = HoughVoting(config.hough_bins)

    def forward(self, source: Tensor, target: Tensor) -> MatcherOutput:
        """Correlation and layer selection of B pairs, from (B, 3, side, side) uint8 source and target images."""
        return self.correlate(self.describe(source), self.describe(target))

    # -- an image ------------------------------------------------------------------------------------------------

    def describe(self, images: Tensor) -> ImageFeatures:
        """All that the network knows of (B, 3, side, side) uint8 images."""
        return self.embed(self.extract(images))

    def extract(self, images: Tensor) -> list[Tensor]:
        """The frozen backbone's maps of (B, 3, side, side) uint8 images, for the layers that the model keeps."""
        maps = self.backbone(images, last_layer=self.layers[-1])
        return [maps[layer] for layer in self.layers]

    def embed(self, maps: list[Tensor]) -> ImageFeatures:
        """The learned half of `describe`: gates' activations, projected maps and their norms."""
        return self.embed_layers(maps, self.selector.activate(maps), [True] * len(maps))

    def embed_layers(self, maps: list[Tensor], activations: Tensor, used: Sequence[bool]) -> ImageFeatures:
        """As `embed`, where only some layers will be used: the maps of the others have no channels.

        Args:
            activations: of the gates, for these maps.
            used: of each layer, whether some pair of these images selects it.
        """
        projected = [m if of_use else m[:, :0, :GRID_SIDE, :GRID_SIDE] for m, of_use in zip(maps, used, strict=True)]
        if self.projections:
            layers = zip(self.projections, projected, used, strict=True)
            projected = [project(m) if of_use else m for project, m, of_use in layers]
        foreground = foreground_weights(maps[-1], self.config.votes)
        return image_features(ImageParts(projected, activations, foreground), self.config.features)

    # -- a pair --------------------------------------------------------------------------------------------------

    def select(self, source: ImageFeatures, target: ImageFeatures) -> Tensor:
        """(B, L) gates of B pairs over the kept layers, each 0 or 1."""
        return self.selector.decide(source.gate_activations, target.gate_activations)

    def correlate(
        self, source: ImageFeatures, target: ImageFeatures, usable: UsableCells | None = None
    ) -> MatcherOutput:
        """Correlation and layer selection of B pairs; of usable cells alone, if these are given."""
        return self.correlate_selected(source, target, self.select(source, target), usable)

    def correlate_selected(
        self, source: ImageFeatures, target: ImageFeatures, gates: Tensor, usable: UsableCells | None = None
    ) -> MatcherOutput:
        """As `correlate`, of B pairs whose (B, L) gates are known."""
        blocks = self.appearance(source, target, gates)
        if usable is not None:
            for block, of_source in zip(blocks, torch.split(usable.source, GRID_SIDE, dim=1), strict=True):
                clear_unusable(block, of_source, usable.target)
        votes = blocks[0].new_zeros(len(source), NUM_DISPLACEMENTS, NUM_DISPLACEMENTS)
        for y, block in enumerate(blocks):
            self.hough.count_row(votes, block, y, source.foreground, target.foreground)
        scores = self.hough.scores(votes)
        rows = [block * self.hough.score_row(scores, y) for y, block in enumerate(blocks)]
        return MatcherOutput(torch.cat(rows, dim=1), self.on_all_layers(gates), scores)

    def appearance(self, source: ImageFeatures, target: ImageFeatures, gates: Tensor) -> list[Tensor]:
        """The appearance matrix of B pairs, as 60 blocks (B, 60, N) of source grid rows."""
        weights = layer_weights(gates)
        native = NativeCorrelation(native_products(source.maps, target.maps, weights))
        source_lengths = feature_lengths(source.squared_norms, weights, self.training)
        target_lengths = feature_lengths(target.squared_norms, weights, self.training)
        exponent = self.config.appearance_exponent
        return list(appearance_blocks(native, source_lengths, target_lengths, exponent))

    # -- matching, without keeping the correlation ---------------------------------------------------------------

    @torch.no_grad()
    def match(
        self,
        source: ImageFeatures,
        target: ImageFeatures,
        pairs: Sequence[tuple[int, int]],
        wanted: Tensor,
        engine: MatchEngine,
        usable: UsableCells | None = None,
    ) -> tuple[BestCells, Tensor]:
        """The best cells of the correlations of B pairs, and the layers that each pair selected.

        Args:
            source, target: features of images; the same object where pairs are of one collection.
            pairs: (number in source, number in target) of each pair.
            wanted: (B, N) bool, source cells whose match after the mutual filter is asked for.
            usable: the cells that take part in matching; None for all.

        Returns:
            the best cells, and the (B, L) selection over all layers of the backbone.
        """
        index = torch.tensor(pairs, device=source.squared_norms.device).view(-1, 2)
        gates = self.selector.decide(source.gate_activations[index[:, 0]], target.gate_activations[index[:, 1]])
        found = self.match_selected(source, target, pairs, gates, wanted, engine, usable)
        return found, self.on_all_layers(gates)

    @torch.no_grad()
    def match_images(
        self,
        images: Tensor,
        pairs: Sequence[tuple[int, int]],
        wanted: Tensor,
        engine: MatchEngine,
        usable: UsableCells | None = None,
    ) -> tuple[BestCells, Tensor]:
        """`match` of (B, 3, side, side) uint8 images that are in these pairs alone.

        Maps of layers that no pair selects are not projected.
        """
        maps = self.extract(images)
        activations = self.selector.activate(maps)
        index = torch.tensor(pairs, device=images.device).view(-1, 2)
        gates = self.selector.decide(activations[index[:, 0]], activations[index[:, 1]])
        features = self.embed_layers(maps, activations, (layer_weights(gates) > 0).any(dim=0).tolist())
        found = self.match_selected(features, features, pairs, gates, wanted, engine, usable)
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
        usable: UsableCells | None = None,
    ) -> BestCells:
        """`match` of B pairs whose (B, L) gates are known."""
        weights = layer_weights(gates)
        sources, targets = torch.tensor(pairs, device=gates.device).view(-1, 2).unbind(dim=1)
        source_votes, target_votes = source.foreground[sources], target.foreground[targets]
        if usable is not None:
            source_votes, target_votes = usable.votes(source_votes, target_votes)
        problem = MatchProblem(
            source_maps=source.maps,
            target_maps=target.maps,
            pairs=pairs,
            selected=weights > 0,
            source_lengths=feature_lengths(source.squared_norms[sources], weights, self.training),
            target_lengths=feature_lengths(target.squared_norms[targets], weights, self.training),
            source_votes=source_votes,
            target_votes=target_votes,
            exponent=self.config.appearance_exponent,
            hough=self.hough,
            wanted=wanted,
            readout=self.config.readout,
            usable=usable,
        )
        return engine(problem)

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
