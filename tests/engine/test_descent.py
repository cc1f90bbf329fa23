"""The small loop: AdamW as torch has it, a rate that rises and falls, and a history of every step."""

import pytest
import torch

from prefcore.engine.descent import descend


def linear(x):
    """A loss whose gradient is the same at every step, so that a step of AdamW is the rate itself."""
    return lambda batch: ((x * batch).sum(), {"size": len(batch)})


def test_a_step_of_a_constant_gradient_is_the_rate_which_rises_over_the_warmup_and_falls_to_zero():
    x, seen = torch.zeros(3, requires_grad=True), []

    def loss(batch):
        seen.append(x.detach().clone())
        return linear(x)(batch)

    descend([x], [torch.ones(3)] * 10, loss, learning_rate=0.1, label="", warmup=0.2, max_grad_norm=10.0)
    moved = [(a - b).mean().item() for a, b in zip(seen, [*seen[1:], x.detach()], strict=True)]
    assert moved == pytest.approx([0, 0.05, *(0.1 * (8 - k) / 8 for k in range(8))], abs=1e-6)


def test_another_course_of_the_rate_may_be_given_as_its_share_at_each_step():
    x = torch.zeros(3, requires_grad=True)
    how = {"learning_rate": 0.1, "label": "", "max_grad_norm": 10.0}
    descend([x], [torch.ones(3)] * 4, linear(x), pace=lambda step, steps: 0.5**step if step < steps / 2 else 0, **how)
    assert x.tolist() == pytest.approx([-0.15] * 3, abs=1e-6)


def test_the_history_has_a_row_a_step_with_the_loss_the_norm_before_clipping_and_what_the_loss_tells():
    x = torch.ones(4, requires_grad=True)
    rows = descend([x], [torch.full((4,), 2.0)] * 3, linear(x), learning_rate=0.1, label="", max_grad_norm=1e-3)
    assert list(rows.columns) == ["step", "loss", "grad_norm", "size"]
    assert rows["step"].tolist() == [1, 2, 3] and rows["size"].tolist() == [4.0] * 3
    assert rows["loss"][0] == pytest.approx(8.0) and rows["grad_norm"].tolist() == pytest.approx([4.0] * 3)


def test_it_improves_and_decays_weights_where_asked():
    target = torch.tensor([1.0, -2.0])

    def fitted(**how):
        x = torch.zeros(2, requires_grad=True)

        def loss(batch):
            return (x - target).square().sum(), {}

        return x.detach(), descend([x], range(200), loss, learning_rate=0.1, label="", max_grad_norm=100.0, **how)

    (free, rows), (held, _) = fitted(), fitted(weight_decay=1.0)
    assert rows["loss"].iloc[-1] < 1e-3 < rows["loss"][0]
    assert torch.allclose(free, target, atol=0.03) and (held.abs() < free.abs()).all()


def test_groups_of_parameters_have_a_rate_each_and_are_clipped_together():
    x, y = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    groups = [{"params": [x], "lr": 0.1}, {"params": [y], "lr": 0.01}]
    rows = descend(groups, [torch.ones(2)], lambda batch: (((x + y) * batch).sum(), {}), learning_rate=1.0, label="",
                   pace=lambda step, steps: 0.5)  # fmt: skip
    assert x.tolist() == pytest.approx([-0.05] * 2) and y.tolist() == pytest.approx([-0.005] * 2)
    assert rows["grad_norm"][0] == pytest.approx(2.0)
