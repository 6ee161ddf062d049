"""The forward pass of a training step, as functions over a HyperpixelNetwork.

In training, batch normalisation is over the whole step, gates are sampled with noise, and a loss reads some rows of a
correlation, or an entropy, with gradient (docs/algorithm.md, sections 8 and 11).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dhpf.frame import NUM_CELLS
from dhpf.model.correlation import cosines, feature_lengths, products_at
from dhpf.model.engines.engine import BestCells, MatchEngine
from dhpf.model.features import ImageFeatures, ImageParts, features_of_batches, foreground_weights, image_features
from dhpf.model.gates import OpenGates, layer_weights
from dhpf.model.global_batch import ALONE, TrainingPairs, Workers, follow, global_moments, normalise
from dhpf.model.match_entropy import PairFeatures, match_entropy
from dhpf.model.network import HyperpixelNetwork


def embed_step(
    network: HyperpixelNetwork,
    source: list[Tensor],
    target: list[Tensor],
    pairs: TrainingPairs,
    workers: Workers = ALONE,
) -> tuple[ImageFeatures, ImageFeatures]:
    """Features of a step's source images and of its target images, each of the two normalised as one batch.

    An image counts as often as it stands in a pair of the step. The base map is layer 0's projection a second time, so
    that layer 0's running statistics are updated twice per batch (docs/algorithm.md, section 11).

    Args:
        source, target: `network.extract` of this process's source and target images.
    """
    if network.config.used_projection != "learned":  # nothing is normalised by the batch
        return network.embed(source), network.embed(target)
    config = network.config
    images = ((source, pairs.source_counts(len(source[0]))), (target, pairs.target_counts(len(target[0]))))
    mixed = [_mixed(network, maps) for maps, _ in images]
    moments = [global_moments(m, counts, workers) for m, (_, counts) in zip(mixed, images, strict=True)]
    norms = [project[1] for project in network.projections]  # type: ignore[index]
    for batch in moments:
        follow(norms[:1], batch.first(norms[0].num_features))
    for batch in moments:
        follow(norms, batch)
    projected = [normalise(layers, batch, norms) for layers, batch in zip(mixed, moments, strict=True)]
    parts = [
        ImageParts(of_layers, network.selector.activate(maps), foreground_weights(maps[-1], config.votes))
        for of_layers, (maps, _) in zip(projected, images, strict=True)
    ]
    of_source, of_target = features_of_batches(parts, config.features)
    return of_source, of_target


def _mixed(network: HyperpixelNetwork, maps: list[Tensor]) -> list[Tensor]:
    """The outputs of the projections' convolutions, channels before rows in memory, as later steps read them."""
    layers = zip(network.projections, maps, strict=True)
    return [project[0](m).contiguous() for project, m in layers]  # type: ignore[index]


def cosines_at(
    network: HyperpixelNetwork, source: ImageFeatures, target: ImageFeatures, gates: Tensor, cells: Tensor
) -> Tensor:
    """(B, K, T) cosines, not rectified, of (B, K) source cells with all target cells, with gradient."""
    weights = layer_weights(gates)
    lengths = [feature_lengths(f.squared_norms, weights, network.training) for f in (source, target)]
    products = products_at(source.maps, target.maps, weights, cells)
    return cosines(products, lengths[0].gather(1, cells), lengths[1])


def correlate_cells(
    network: HyperpixelNetwork,
    source: ImageFeatures,
    target: ImageFeatures,
    gates: Tensor,
    cells: Tensor,
    scores: Tensor,
) -> Tensor:
    """(B, K, T) rows of the correlation at (B, K) source cells, with gradient, given the geometric scores.

    A strong loss reads 10 to 40 of the 3,600 rows; the scores carry no gradient and come from a pass without one.
    """
    cosine = cosines_at(network, source, target, gates, cells)
    return cosine.relu().pow(network.config.appearance_exponent) * network.hough.scores_at(scores, cells)


def match_entropies(
    network: HyperpixelNetwork, source: ImageFeatures, target: ImageFeatures, pairs: TrainingPairs, gates: Tensor
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
                feature_lengths(features.squared_norms[n][None], of_pair[None], network.training)[0],
                features.foreground[n],
            )
            for features, maps, n in ((source, sources, i), (target, targets, j))
        )
        exponent = network.config.appearance_exponent
        result.append(match_entropy(left, right, of_pair[layers], exponent, network.hough))
    return torch.stack(result)


@torch.no_grad()
def match_own_maps(
    network: HyperpixelNetwork,
    source: list[Tensor],
    target: list[Tensor],
    layers: Sequence[int],
    engine: MatchEngine,
) -> BestCells:
    """Matches B aligned pairs by the backbone's own maps of some layers, as before any training.

    Args:
        source, target: `network.extract` of the B source and the B target images.
        layers: positions among the kept layers.

    Returns:
        the best cells, every source cell's match asked for.
    """
    every, config = OpenGates(()), network.config
    features = [
        image_features(
            ImageParts(
                [maps[layer] for layer in layers],
                every.activate([maps[layer] for layer in layers]),
                foreground_weights(maps[-1], config.votes),
            ),
            config.features,
        )
        for maps in (source, target)
    ]
    gates = every.decide(features[0].gate_activations, features[1].gate_activations)
    wanted = torch.ones(len(gates), NUM_CELLS, dtype=torch.bool, device=gates.device)
    pairs = [(n, n) for n in range(len(gates))]
    return network.match_selected(features[0], features[1], pairs, gates, wanted, engine)
