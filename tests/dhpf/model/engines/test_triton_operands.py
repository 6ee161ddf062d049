import torch

from dhpf.model.engines.problem import MatchProblem
from dhpf.model.engines.triton_operands import coarse_plan, operands, padded
from dhpf.model.geometry import interpolation_matrix
from dhpf.model.hough import HoughVoting


def problem() -> MatchProblem:
    """Two pairs of three images: layers of 5 and 40 channels at the grid's side 8, one of 3 at side 4."""
    maps = tuple(torch.rand(3, channels, side, side) for channels, side in ((5, 8), (40, 8), (3, 4)))
    selected = torch.tensor([[False, True, True], [True, False, False]])
    lengths, wanted = torch.ones(2, 64), torch.zeros(2, 64, dtype=torch.bool)
    return MatchProblem(maps, maps, [(0, 2), (1, 0)], selected, lengths, lengths, 2, HoughVoting("current"), wanted)


def test_a_pair_compares_the_chunks_of_its_layers_alone() -> None:
    given = problem()
    made = operands(given, 8)
    assert made.fine.chunks[:, 3].tolist() == [5, 16, 16, 8]
    assert made.fine.schedule[0, :4].tolist() == [3, 1, 2, 3]
    assert made.fine.schedule[1, :2].tolist() == [1, 0]
    assert made.coarse_channels[4].schedule.tolist() == [[1, 0], [0, 0]]
    assert made.fine.pairs.tolist() == [[0, 2], [1, 0]]


def test_a_chunk_lies_where_its_first_channel_does() -> None:
    given = problem()
    address, _, stride, _ = operands(given, 8).fine.chunks[2].tolist()
    layer = given.source_maps[1]
    assert address == layer[0, 16].data_ptr()
    assert address + stride * layer.element_size() == layer[1, 16].data_ptr()


def test_half_precision_features_are_read_as_single() -> None:
    given = problem()
    half = MatchProblem(**(given.__dict__ | {"source_maps": tuple(m.half() for m in given.source_maps)}))
    made = operands(half, 8)
    assert all(m.dtype == torch.float32 for m in made.maps)
    assert made.fine.chunks[0, 0] == made.maps[0].data_ptr()


def test_coarse_columns_stand_side_after_side() -> None:
    plan = coarse_plan((4, 5), 8)
    assert plan.size == (4**3 + 5**3) * 8
    assert plan.side.tolist() == [4] * 4 + [5] * 5 + [0] * 7
    assert plan.first.tolist()[:6] == [0, 4 * 8, 8 * 8, 12 * 8, 4**3 * 8, 4**3 * 8 + 5 * 8]
    assert torch.equal(plan.spread[:8, 4:9], interpolation_matrix(5, torch.empty(0), 8))
    assert plan.spread[8:].abs().max() == plan.spread[:, 9:].abs().max() == 0


def test_rows_of_the_grid_lie_between_rows_of_a_map() -> None:
    plan = coarse_plan((4, 5), 8)
    lower, weight = plan.lower[:, 4].long(), plan.upper_weight[:, 4]
    rows = torch.arange(5.0)
    between = rows[lower] + weight * (rows[lower + 1] - rows[lower])
    assert torch.allclose(between, interpolation_matrix(5, torch.empty(0), 8) @ rows)


def test_tiles_hold_a_row_of_the_grid() -> None:
    assert [padded(n) for n in (1, 16, 17, 60)] == [16, 16, 32, 64]
