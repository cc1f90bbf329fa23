"""What an arm minimises: its rules by hand, the numbers it leaves behind, and the arms at their ends."""

from functools import partial

import pytest
import torch

from prefcore.methods import dpo
from prefcore.methods.napo import losses, objectives
from prefcore.methods.napo.margins import Margins

EQUAL = partial(objectives.constant, weights=[1.0, 1.0, 1.0])


@pytest.fixture
def batch():
    """Log-ratios of four answers of two examples: h_l [6, 1], h_lb [3.5, 2], h_vb [12, 6]; four tokens an answer."""
    logps = torch.tensor([[4.0, -2.0, 0.5, -8.0], [2.0, 1.0, 0.0, -4.0]])
    columns = {"language": torch.ones(2), "vision": torch.ones(2), "lengths": torch.full((2, 4), 4.0)}
    return logps, torch.zeros(2, 4), columns


def run(batch, **settings):
    """(losses, what the state holds afterwards) of one step at beta 0.1."""
    state = {name: torch.zeros(()) for name in objectives.STATE}
    out = objectives.loss(*batch, state, beta=0.1, **settings)
    return out.losses, {name: float(value) for name, value in state.items()}


def test_worked_step_at_a_fixed_q(batch, close):
    """DPO 0.4375 and 0.6444; language 0.4682 and 0.5170, vision 0.2467 and 0.3929, by 2 (1 - sqrt(sigmoid(z)))."""
    found, state = run(batch, rule=partial(objectives.fixed, q=0.5), weigh=EQUAL)
    close(found, [1.15235776, 1.55432599])
    assert state["q_language"] == state["q_vision"] == 0.5 and state["weight_clean"] == 1.0
    assert [state[f"margin_{pair}"] for pair in objectives.PAIRS] == pytest.approx([0.35, 0.275, 0.9])
    assert [state[f"mean_{pair}"] for pair in objectives.PAIRS] == pytest.approx([0.0875, 0.06875, 0.225])


def test_worked_q_and_weights_of_the_paper(batch, close):
    """Language: sigmoid(-0.5 x 0.06875) per token; vision: sigmoid(-0.01 x 0.9) summed; gamma = psi / 1.525."""
    found, state = run(batch, rule=partial(objectives.paper, alphas=[0.5, 0.01]), weigh=objectives.dynamic)
    assert (state["q_language"], state["q_vision"]) == pytest.approx((0.49140709, 0.49775002))
    weights = [state[f"weight_{pair}"] for pair in objectives.PAIRS]
    assert weights == pytest.approx([0.22950820, 0.18032787, 0.59016393])
    logps, ref_logps, _ = batch
    pairs = [partial(losses.napo_losses, q=torch.tensor(q)) for q in (0.49140709, 0.49775002)]
    close(found, losses.loss(logps, ref_logps, torch.ones(2, 2), torch.tensor(weights), *pairs, beta=0.1).losses)


def test_the_released_rule_is_twice_the_papers_and_starts_at_one(batch):
    alphas = [0.5, 0.01]
    _, paper = run(batch, rule=partial(objectives.paper, alphas=alphas), weigh=EQUAL)
    _, released = run(batch, rule=partial(objectives.released, alphas=alphas), weigh=EQUAL)
    assert released["q_language"] == pytest.approx(2 * paper["q_language"])
    assert released["q_vision"] == pytest.approx(2 * paper["q_vision"])
    start = Margins(torch.zeros(3), torch.zeros(3))
    assert objectives.released(start, beta=0.1, alphas=alphas)[1].tolist() == [1.0, 1.0]
    assert objectives.paper(start, beta=0.1, alphas=alphas)[1].tolist() == [0.5, 0.5]


def test_the_clean_pair_alone_is_dpo_whatever_the_rule(batch, close):
    logps, ref_logps, _ = batch
    plain = dpo.loss(logps[:, :2], ref_logps[:, :2], beta=0.1).losses
    clean = partial(objectives.constant, weights=[1.0, 0.0, 0.0])
    for rule in (partial(objectives.fixed, q=0.0), partial(objectives.smoothed, label_smoothing=0.2)):
        close(run(batch, rule=rule, weigh=clean)[0], plain)


def test_q_zero_is_dpo_on_all_three_pairs_and_smoothing_mixes_both_directions(batch, close):
    logps, ref_logps, _ = batch

    def total(biased):
        z = 0.1 * (logps[:, :1] - logps[:, 1:])
        return losses.dpo_losses(z[:, 0]) + biased(z[:, 1]) + biased(z[:, 2])

    close(run(batch, rule=partial(objectives.fixed, q=0.0), weigh=EQUAL)[0], total(losses.dpo_losses))
    close(run(batch, rule=partial(objectives.fixed, q=1.0), weigh=EQUAL)[0], total(losses.mae_losses))
    smooth = partial(objectives.smoothed, label_smoothing=0.2)
    close(run(batch, rule=smooth, weigh=EQUAL)[0], total(partial(losses.cdpo_losses, label_smoothing=0.2)))


def test_a_flipped_pair_and_one_that_is_not_there_reach_the_loss_and_the_margins(batch, close):
    logps, ref_logps, columns = batch
    flipped = columns | {"language": torch.tensor([-1.0, 1.0]), "vision": torch.tensor([0.0, 1.0])}
    _, state = run((logps, ref_logps, flipped), rule=partial(objectives.fixed, q=0.5), weigh=EQUAL)
    assert state["margin_language"] == pytest.approx(0.1 * (-3.5 + 2) / 2)
    assert state["margin_vision"] == pytest.approx(0.1 * 6)


def test_the_positive_control_is_taught_the_right_answer_and_nothing_else(batch, close):
    logps, ref_logps, columns = batch
    out = objectives.imitation(logps.requires_grad_(), ref_logps, columns, {})
    out.losses.sum().backward()
    close(logps.grad, [[-1.0, 0.0, 0.0, 0.0]] * 2)
    close(out.rewards, logps.detach())
