import torch

from dhpf.model.transfer import best_target_cells, dense_flow, mutual_filter, mutual_matches, transfer

ONE = torch.ones(1)


def shifted_identity(cells: int) -> torch.Tensor:
    """Every source cell matches the one so many cells to the right, where there is one."""
    correlation = torch.full((3600, 3600), 0.01)
    source = torch.arange(3600)
    inside = source % 60 + cells < 60
    correlation[source[inside], source[inside] + cells] = 1.0
    return correlation


def test_points_follow_a_shift() -> None:
    points = torch.tensor([[[100.0, 80.0], [60.0, 200.0], [300.0, 10.0]]])
    moved = transfer(shifted_identity(5)[None], ONE, points, torch.tensor([[True, True, True]]))
    assert torch.allclose(moved.points[0, :2], points[0, :2] + torch.tensor([20.0, 0.0]))
    assert moved.valid.tolist() == [[True, True, False]]
    assert torch.allclose(moved.confidence, torch.tensor([[1.0, 1.0, 0.0]]))


def test_padding_is_never_valid() -> None:
    moved = transfer(shifted_identity(0)[None], ONE, torch.zeros(1, 2, 2), torch.tensor([[True, False]]))
    assert moved.valid.tolist() == [[True, False]]


def test_the_filter_prefers_a_mutual_match_to_a_popular_target() -> None:
    correlation = torch.zeros(3600, 3600)
    correlation[0, 10], correlation[1, 10] = 0.9, 1.5  # target 10 prefers source 1
    correlation[0, 20] = 0.89  # target 20 has no other
    assert correlation[0].argmax() == 10
    assert best_target_cells(correlation, torch.tensor([0, 1])).tolist() == [20, 10]
    filtered = mutual_filter(correlation[None])[0]
    assert filtered[0].argmax() == 20
    assert torch.isfinite(filtered).all()  # rows and columns of zeros


def test_flow_has_a_target_for_every_cell() -> None:
    flow = dense_flow(shifted_identity(2))
    assert flow.shape == (3600, 2)
    assert flow[0].tolist() == [8, 0]


def test_matches_are_mutual_and_the_best_come_first() -> None:
    correlation = torch.zeros(3600, 3600)
    correlation[5, 7], correlation[8, 7], correlation[100, 200] = 0.5, 0.9, 0.7
    found = mutual_matches(correlation, torch.tensor(2.0), 10)
    assert torch.allclose(found.confidence, torch.tensor([0.45, 0.35]))
    assert found.source_points[0].tolist() == [32, 0]
    assert found.target_points[0].tolist() == [28, 0]
    assert len(mutual_matches(correlation, torch.tensor(2.0), 1).confidence) == 1


def test_each_tile_gives_its_best_match_alone() -> None:
    correlation = torch.zeros(3600, 3600)
    correlation[0, 0], correlation[63, 63], correlation[4, 4] = 0.5, 0.9, 0.4  # cells 0 and 63 share a tile
    found = mutual_matches(correlation, torch.tensor(1.0), 10)
    assert found.source_points.tolist() == [[12, 4], [16, 0]]
    assert len(mutual_matches(torch.rand(3600, 3600), torch.tensor(1.0), 9999).confidence) <= 225
