import torch

from dhpf.frame import interpolation_matrix
from dhpf.model.engines.engine import MatchProblem
from dhpf.model.engines.triton_operands import coarse_plan, in_single_precision, operands, padded
from dhpf.model.hough import HoughVoting

CPU = torch.device("cpu")


def problem() -> MatchProblem:
    """Two pairs of three images: layers of 5 and 40 channels at the grid's side 8, one of 3 at side 4."""
    maps = tuple(torch.rand(3, channels, side, side) for channels, side in ((5, 8), (40, 8), (3, 4)))
    selected = torch.tensor([[False, True, True], [True, False, False]])
    lengths, votes, wanted = torch.ones(2, 64), torch.empty(2, 0), torch.zeros(2, 64, dtype=torch.bool)
    of_cells, hough = (lengths, lengths, votes, votes), HoughVoting("current")
    return MatchProblem(maps, maps, [(0, 2), (1, 0)], selected, *of_cells, 2, hough, wanted, "cell")


def test_a_pair_compares_the_chunks_of_its_layers_alone() -> None:
    given = problem()
    made = operands(given, 8)
    fine = made.fine
    assert fine is not None
    assert fine.chunks[:, 3].tolist() == [5, 16, 16, 8]
    assert fine.schedule[0, :4].tolist() == [3, 1, 2, 3]
    assert fine.schedule[1, :2].tolist() == [1, 0]
    assert made.coarse_channels[4].schedule.tolist() == [[1, 0], [0, 0]]
    assert fine.pairs.tolist() == [[0, 2], [1, 0]]


def test_a_chunk_lies_where_its_first_channel_does() -> None:
    given = problem()
    fine = operands(given, 8).fine
    assert fine is not None
    address, _, stride, _ = fine.chunks[2].tolist()
    layer = given.source_maps[1]
    assert address == layer[0, 16].data_ptr()
    assert address + stride * layer.element_size() == layer[1, 16].data_ptr()


def test_half_precision_features_are_read_as_single() -> None:
    given = problem()
    half = MatchProblem(**(given.__dict__ | {"source_maps": tuple(m.half() for m in given.source_maps)}))
    made = operands(in_single_precision(half), 8)
    assert all(m.dtype == torch.float32 for m in made.maps)
    assert made.fine is not None and made.fine.chunks[0, 0] == made.maps[0].data_ptr()


def test_coarse_cells_stand_side_after_side() -> None:
    plan = coarse_plan((4, 5), 8, CPU)
    assert plan.cells == 16 + 25
    assert plan.first.tolist() == [0, 16] and plan.side.tolist() == [4, 5]


def test_rows_of_the_grid_lie_between_rows_of_a_map() -> None:
    plan = coarse_plan((4, 5), 8, CPU)
    lower, weight = plan.lower[1].long(), plan.upper_weight[1]
    rows = torch.arange(5.0)
    between = rows[lower] + weight * (rows[lower + 1] - rows[lower])
    assert torch.allclose(between, interpolation_matrix(5, torch.empty(0), 8) @ rows)


def test_without_a_layer_of_the_grids_side_there_is_no_fine_product() -> None:
    given = problem()
    coarse = MatchProblem(
        **(given.__dict__ | {"source_maps": given.source_maps[2:], "target_maps": given.target_maps[2:]}),
    )
    made = operands(MatchProblem(**(coarse.__dict__ | {"selected": given.selected[:, 2:]})), 8)
    assert made.fine is None and list(made.coarse_channels) == [4]


def test_tiles_hold_a_row_of_the_grid() -> None:
    assert [padded(n) for n in (1, 16, 17, 60)] == [16, 16, 32, 64]
