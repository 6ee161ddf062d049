import pytest
import torch
from torch import nn

from dhpf.errors import InputError
from dhpf.model.gates import LayerGates, OpenGates, layer_weights, open_gates, sample_gates
from dhpf.model.global_batch import ALONE, TrainingPairs


def test_a_tie_is_closed() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    assert open_gates(logits).tolist() == [[0, 1, 0]]


def test_sampled_gates_are_hard_and_have_the_soft_gradient() -> None:
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    uniform = torch.tensor([[[0.5, 0.9], [0.9, 0.5]]])
    gates = sample_gates(logits, uniform)
    assert gates.tolist() == [[1.0, 0.0]]
    gates.sum().backward()
    assert logits.grad is not None
    noise = -torch.log(1e-10 - torch.log(uniform + 1e-10))
    soft = torch.softmax(noise, dim=-1)
    assert torch.allclose(logits.grad[..., 1], soft[..., 0] * soft[..., 1])


def test_gates_open_as_often_as_their_logits_say() -> None:
    logits = torch.tensor([0.0, 1.0]).expand(20000, 1, 2)
    share = sample_gates(logits, torch.rand(20000, 1, 2, generator=torch.Generator().manual_seed(0))).mean().item()
    assert share == pytest.approx(torch.softmax(logits[0, 0], 0)[1].item(), abs=0.02)


def test_layer_zero_answers_when_nothing_is_open() -> None:
    gates = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    assert layer_weights(gates).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]


def test_a_batch_of_one_is_refused_in_training() -> None:
    gates = LayerGates((4, 8)).train()
    activations = gates.activate([torch.rand(1, 4, 5, 5), torch.rand(1, 8, 5, 5)])
    with pytest.raises(InputError, match="at least 2 pairs"):
        gates.logits_of_step(2 * activations, torch.ones(1), ALONE)
    assert gates.eval()(activations, activations).shape == (1, 2, 2)


def test_the_linear_half_of_a_gate_belongs_to_an_image() -> None:
    gates = LayerGates((4,)).eval()
    source, target = torch.rand(3, 4, 5, 5), torch.rand(3, 4, 7, 7)
    split = gates.activate([source]) + gates.activate([target])
    whole = gates.gates[0][0](source.mean((2, 3), keepdim=True) + target.mean((2, 3), keepdim=True))
    assert torch.allclose(split[:, 0], whole.flatten(1), atol=1e-6)


def test_all_gates_at_once_are_each_gate_alone() -> None:
    torch.manual_seed(0)
    gates = LayerGates((4, 8, 6)).eval()
    for gate in gates.gates:
        norm = gate[1]
        for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            nn.init.uniform_(values, 0.5, 1.5)
    source, target = torch.rand(2, 5, 3, 32) * 4
    alone = [gate[1:]((source + target)[:, n, :, None, None]).flatten(1) for n, gate in enumerate(gates.gates)]
    assert torch.allclose(gates(source, target), torch.stack(alone, dim=1), atol=1e-6)


def test_gates_start_open_where_they_are_told_to() -> None:
    torch.manual_seed(0)
    gates = LayerGates((4, 8, 6)).train()
    gates.start_open((0, 2))
    pooled = gates.activate([torch.rand(400, width, 5, 5) for width in (4, 8, 6)])
    logits = gates.logits_of_step(pooled, torch.ones(400), ALONE)
    opened = sample_gates(logits, torch.rand(400, 3, 2, generator=torch.Generator().manual_seed(0))).mean(0)
    assert opened[[0, 2]].min() > 0.9 > 0.1 > opened[1]
    assert (open_gates(logits)[:, 0].mean() > 0.9) and (open_gates(logits)[:, 1].mean() < 0.1)
    with pytest.raises(InputError, match="has layers 0 to 2, not 3"):
        gates.start_open((0, 3))


def test_open_gates_let_every_pair_use_every_layer_and_learn_nothing() -> None:
    gates = OpenGates((4, 8))
    source, target = (gates.activate([torch.rand(3, width, 5, 5) for width in (4, 8)]) for _ in range(2))
    assert source.shape == (3, 2, 0) and not gates.state_dict()
    assert torch.equal(gates.decide(source, target), torch.ones(3, 2))
    step = gates.decide_step(source, target, TrainingPairs.aligned(3), torch.rand(3, 2, 2), ALONE)
    assert torch.equal(step, torch.ones(3, 2)) and not step.requires_grad
    with pytest.raises(InputError, match="have no gates"):
        gates.start_open((1,))
