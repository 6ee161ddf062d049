import torch

from dhpf.model.best_cells import BestCells, best_cells
from dhpf.model.transfer import cells_of_points, dense_flow, mutual_filter, transfer


def found(correlation: torch.Tensor, wanted: torch.Tensor | None = None, best_score: float = 1.0) -> BestCells:
    """Best cells of one pair; every cell is wanted unless said."""
    scores = torch.full((1, 119, 119), best_score)
    return best_cells(correlation[None], scores, torch.ones(1, 3600, dtype=torch.bool) if wanted is None else wanted)


def shifted_identity(cells: int) -> torch.Tensor:
    """Every source cell matches the one so many cells to the right, where there is one."""
    correlation = torch.full((3600, 3600), 0.01)
    source = torch.arange(3600)
    inside = source % 60 + cells < 60
    correlation[source[inside], source[inside] + cells] = 1.0
    return correlation


def test_points_follow_a_shift() -> None:
    points = torch.tensor([[[100.0, 80.0], [60.0, 200.0], [300.0, 10.0]]])
    valid = torch.tensor([[True, True, True]])
    moved = transfer(found(shifted_identity(5), cells_of_points(points, valid)), points, valid)
    assert torch.allclose(moved.points[0, :2], points[0, :2] + torch.tensor([20.0, 0.0]))
    assert moved.valid.tolist() == [[True, True, False]]
    assert torch.allclose(moved.confidence, torch.tensor([[1.0, 1.0, 0.0]]))


def test_padding_is_never_valid() -> None:
    moved = transfer(found(shifted_identity(0)), torch.zeros(1, 2, 2), torch.tensor([[True, False]]))
    assert moved.valid.tolist() == [[True, False]]


def test_the_filter_prefers_a_mutual_match_to_a_popular_target() -> None:
    correlation = torch.zeros(3600, 3600)
    correlation[0, 10], correlation[1, 10] = 0.9, 1.5  # target 10 prefers source 1
    correlation[0, 20] = 0.89  # target 20 has no other
    assert correlation[0].argmax() == 10
    assert found(correlation).filtered_target[0, :2].tolist() == [20, 10]
    filtered = mutual_filter(correlation[None])[0]
    assert filtered[0].argmax() == 20
    assert torch.isfinite(filtered).all()  # rows and columns of zeros


def test_flow_has_a_target_for_every_cell() -> None:
    flow = dense_flow(found(shifted_identity(2)))[0]
    assert flow.shape == (3600, 2)
    assert flow[0].tolist() == [8, 0]
