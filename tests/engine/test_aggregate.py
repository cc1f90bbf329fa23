import pytest
import torch

from prefcore.engine.aggregate import find_positives, scale_to_class_means


def test_mean_of_scaled_losses_is_the_sum_of_class_means():
    """Positives 1, 3 -> mean 2; negatives 5, 7, 12 -> mean 8; sum 10. Scaled: 1 x 5/2, 5 x 5/3, ..."""
    losses = torch.tensor([1.0, 5.0, 3.0, 7.0, 12.0], dtype=torch.float64)
    positive = torch.tensor([True, False, True, False, False])
    scaled = scale_to_class_means(losses, positive)
    torch.testing.assert_close(scaled, losses * 5 / torch.tensor([2, 3, 2, 3, 3]), rtol=0, atol=1e-12)
    assert scaled.mean().item() == pytest.approx(10.0, abs=1e-12)


@pytest.mark.parametrize("side", [True, False])
def test_a_missing_class_contributes_nothing(side):
    losses = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    scaled = scale_to_class_means(losses, torch.tensor([side] * 3))
    assert scaled.mean().item() == pytest.approx(3.0)
    scaled.mean().backward()
    torch.testing.assert_close(losses.grad, torch.full((3,), 1 / 3))


def test_a_nan_stays_visible():
    losses = torch.tensor([float("nan"), 1.0])
    assert scale_to_class_means(losses, torch.tensor([True, False])).mean().isnan()


def test_shape_trap():
    with pytest.raises(ValueError, match=r"\[3, 1\]"):
        scale_to_class_means(torch.zeros(3), torch.zeros(3, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[3, 1\]"):
        find_positives(torch.zeros(3, 1))


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32, torch.float64])
def test_labels_of_any_kind(kind):
    assert find_positives(torch.tensor([1, 0, 1]).to(kind)).tolist() == [True, False, True]


@pytest.mark.parametrize("strange", [0.5, -1.0, 2.0, float("nan")])
def test_a_label_that_is_neither_raises_with_its_value(strange):
    with pytest.raises(ValueError, match=str(strange)):
        find_positives(torch.tensor([1.0, strange]))
