import torch

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.model.engines.choose import choose_engine
from dhpf.model.features import ImageFeatures
from dhpf.model.network import HyperpixelNetwork


@torch.inference_mode()
def test_features_in_half_precision_match_alike_in_less_memory(squares: torch.Tensor) -> None:
    network = build_network(ModelConfig(selection="fixed", layers=(5, 8, 10, 11, 15)))
    whole = network.describe(squares[:2])
    half = whole.in_half_precision()
    assert half.num_bytes < 0.6 * whole.num_bytes
    for name in ("compiled", "torch"):
        engine = choose_engine(name)  # type: ignore[arg-type]
        wanted = torch.ones(1, 3600, dtype=torch.bool)
        found, other = (network.match(f, f, [(0, 1)], wanted, engine)[0] for f in (whole, half))
        # Where two targets are as good as each other, the last bit decides.
        assert (found.filtered_target == other.filtered_target).float().mean() > 0.99
        assert torch.allclose(found.best_score, other.best_score, rtol=1e-3)


def test_what_a_half_cannot_hold_becomes_its_largest_value() -> None:
    features = ImageFeatures((torch.tensor([1e6, -1e6, 1.0]),), torch.ones(1), torch.zeros(1, 1, 0))
    assert features.in_half_precision().maps[0].tolist() == [65504, -65504, 1]


def test_features_are_taken_and_joined_by_image(dynamic: HyperpixelNetwork, squares: torch.Tensor) -> None:
    with torch.inference_mode():
        whole = dynamic.describe(squares)
        joined = ImageFeatures.concatenate([whole[torch.tensor([0, 1])], whole[torch.tensor([2, 3])]])
    assert len(joined) == 4
    assert all(torch.equal(a, b) for a, b in zip(whole.maps, joined.maps, strict=True))
    assert torch.equal(whole.gate_activations, joined.gate_activations)
