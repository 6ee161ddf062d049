import pytest
import torch

from dhpf.config import ReadoutName
from dhpf.frame import cell_centres
from dhpf.model.engines.engine import BestCells, best_cells
from dhpf.model.joint import JointMatches
from dhpf.model.transfer import PairMatch, cells_of_points, mutual_filter, transfer


def found(correlation: torch.Tensor, wanted: torch.Tensor | None = None, best_score: float = 1.0) -> BestCells:
    """Best cells of one pair; unless `wanted` says otherwise, all cells are wanted."""
    scores = torch.full((1, 119, 119), best_score)
    return best_cells(correlation[None], scores, torch.ones(1, 3600, dtype=torch.bool) if wanted is None else wanted)


def shifted_identity(cells: int) -> torch.Tensor:
    """Target cells when every source cell matches the one `cells` to its right, where there is one."""
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
    flow = found(shifted_identity(2)).points[0]
    assert flow.shape == (3600, 2)
    assert flow[0].tolist() == [8, 0]


def test_matches_are_mutual_and_the_best_come_first() -> None:
    correlation = torch.zeros(3600, 3600)
    correlation[5, 7], correlation[8, 7], correlation[100, 200] = 0.5, 0.9, 0.7
    best = PairMatch.alone(found(correlation, best_score=2.0)).mutual.best(10)
    assert torch.allclose(best.confidence, torch.tensor([0.45, 0.35]))
    assert best.source_points[0].tolist() == [32, 0]
    assert best.target_points[0].tolist() == [28, 0]
    assert len(PairMatch.alone(found(correlation)).mutual.best(1)) == 1


def test_each_tile_gives_its_best_match_alone() -> None:
    correlation = torch.zeros(3600, 3600)
    correlation[0, 0], correlation[63, 63], correlation[4, 4] = 0.5, 0.9, 0.4  # cells 0 and 63 share a tile
    best = PairMatch.alone(found(correlation)).mutual.best(10)
    assert best.source_points.tolist() == [[12, 4], [16, 0]]
    assert len(PairMatch.alone(found(torch.rand(3600, 3600))).mutual) <= 225


def test_sources_that_share_a_maximum_give_one_match() -> None:
    correlation = torch.zeros(3600, 3600)
    correlation[50, 7], correlation[3000, 7] = 0.5, 0.5
    best = PairMatch.alone(found(correlation)).mutual.best(10)
    assert best.source_points.tolist() == [[200, 0]]


def test_a_pair_matched_alone_is_transferred_as_in_a_batch() -> None:
    torch.manual_seed(0)
    best = found(torch.rand(3600, 3600), best_score=1.5)
    points = torch.tensor([[100.0, 80.0], [60.0, 200.0], [300.0, 10.0]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    assert cells_of_points(points[None], valid).any()
    one, batch = PairMatch.alone(best).transfer(points), transfer(best, points[None], valid)
    assert torch.equal(one.points, batch.points) and torch.equal(one.valid, batch.valid)
    assert torch.equal(one.confidence, batch.confidence)
    assert torch.equal(PairMatch.alone(best).points, best.points[0])


def test_read_softly_a_joint_point_moves_with_cells_near_it_by_their_agreement() -> None:
    points, agreement = cell_centres() + torch.tensor([1.0, 2.0]), torch.full((3600,), 0.5)
    sure = 30 * 60 + 30  # at (120, 120)
    points[sure] += torch.tensor([6.0, 0.0])
    agreement[sure] = 1.0
    correlation = torch.zeros(3600, 3600)
    match = PairMatch.jointly(found(correlation), JointMatches(points, agreement), "soft")
    moved = match.transfer(torch.tensor([[120.0, 120.0], [300.0, 10.0]]))
    near = torch.exp(-(cell_centres() - 120).square().sum(dim=1) / 72)
    weights = near * agreement
    share = weights[sure] / weights.sum()
    assert torch.allclose(moved.points[0, 0], torch.tensor([121 + 6 * float(share), 122.0]), atol=1e-3)
    assert moved.confidence[0, 0] == pytest.approx(float(weights.sum() / near.sum()), abs=1e-4)
    assert moved.valid.tolist() == [[True, False]] and moved.points[0, 1].tolist() == [0, 0]


@pytest.mark.parametrize("readout", ["cell", "soft"])
def test_cells_that_are_not_usable_move_no_point(readout: ReadoutName) -> None:
    points = cell_centres() + torch.tensor([1.0, 2.0])
    usable = cell_centres()[:, 0] >= 100
    points[~usable] = 0
    match = PairMatch.jointly(found(torch.zeros(3600, 3600)), JointMatches(points, torch.ones(3600)), readout, usable)
    moved = match.transfer(torch.tensor([[100.0, 80.0], [90.0, 80.0]]))
    assert torch.allclose(moved.points[0, 0], torch.tensor([101.0, 82.0]), atol=1e-3)
    assert moved.valid.tolist() == [[True, False]] and moved.points[0, 1].tolist() == [0, 0]
    correlation = torch.eye(3600)
    correlation[1830, 1830] = 0  # at (120, 120): usable, but without any match
    alone = PairMatch.alone(found(correlation), usable)
    assert alone.matched is not None and alone.matched.sum() == usable.sum() - 1 and not alone.matched[1830]


def test_a_pair_matched_jointly_lies_where_the_paths_say_and_is_as_sure_as_they_agree() -> None:
    correlation = torch.zeros(3600, 3600)
    correlation[5, 7], correlation[100, 200] = 0.9, 0.7
    agreement = torch.zeros(3600)
    agreement[5], agreement[100] = 0.25, 0.75
    shifted = cell_centres() + torch.tensor([1.0, 2.0])
    match = PairMatch.jointly(found(correlation), JointMatches(shifted, agreement), "cell")
    assert torch.equal(match.points, shifted) and torch.equal(match.confidence, agreement)
    # Mutual are the cells that are each other's best alone; the paths say where they lie, and which is the surest.
    assert match.mutual.confidence.tolist() == [0.75, 0.25]
    assert torch.equal(match.mutual.source_points, cell_centres()[[100, 5]])
    assert torch.equal(match.mutual.target_points, shifted[[100, 5]])
    moved = match.transfer(torch.tensor([[120.0, 120.0]]))
    assert torch.allclose(moved.points[0, 0], torch.tensor([121.0, 122.0])) and moved.valid.all()
