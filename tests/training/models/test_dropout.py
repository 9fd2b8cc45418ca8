import pytest
import torch

from training.models.dropout import Dropout

P = 0.3


@pytest.mark.parametrize("shape", [(1001, 999), (4, 1000, 250), (1_000_001,)])
def test_a_fraction_of_the_units_is_left_out_and_the_others_make_up_for_it(shape):
    torch.manual_seed(1)
    found = Dropout(P)(torch.ones(shape))
    assert torch.unique(found).tolist() == pytest.approx([0, 1 / (1 - P)])
    deviation = (P * (1 - P) / found.numel()) ** 0.5
    assert float((found == 0).float().mean()) == pytest.approx(P, abs=4 * deviation)
    assert float(found.double().mean()) == pytest.approx(1, abs=4 * deviation / (1 - P))


def test_units_are_left_out_independently():
    torch.manual_seed(2)
    left_out = (Dropout(P)(torch.ones(400_000, 8)) == 0).float()
    correlation = torch.corrcoef(left_out.T)
    assert (correlation - torch.eye(8)).abs().max() < 5 / 400_000**0.5
    flat = left_out.flatten() - P
    for lag in (1, 2, 3, 4, 8):
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) / (P * (1 - P)) < 5 / len(flat) ** 0.5


def test_the_seed_tells_which_units_and_they_alone_have_a_gradient():
    layer, values = Dropout(P), torch.ones(1000, requires_grad=True)
    torch.manual_seed(3)
    first = layer(values)
    torch.manual_seed(3)
    assert torch.equal(first, layer(values)) and not torch.equal(first, layer(values))
    first.sum().backward()
    assert torch.equal(values.grad, first.detach())


def test_nothing_is_left_out_where_nothing_is_learned():
    values = torch.randn(100)
    assert torch.equal(Dropout(P).eval()(values), values) and torch.equal(Dropout(0.0)(values), values)
