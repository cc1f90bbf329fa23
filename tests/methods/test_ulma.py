from math import exp, log, log1p

import pytest
import torch

from prefcore.methods import ulma

LABEL = torch.tensor([1.0, 0.0, 1.0, 0.0])
LENGTHS = torch.tensor([40.0, 25.0, 60.0, 30.0])
NAN = float("nan")


@pytest.fixture
def rows():
    """Log-probabilities per token; log-ratios [0.15, -0.1, 0.1, -0.3]."""
    logps = torch.tensor([[-1.05], [-2.0], [-0.9], [-1.6]], dtype=torch.float64, requires_grad=True)
    return logps, torch.tensor([[-1.2], [-1.9], [-1.0], [-1.3]], dtype=torch.float64)


def test_worked_mean_loss(rows, close):
    """Imitation: mean(1.05, 0.9) = 0.975. Negatives: log(1 + exp(0.1 x [-0.1, -0.3])), mean 0.68320968. Sum 1.65820968.

    From sums over 40, 25, 60 and 30 tokens; losses are 4/2 x the row's term.
    """
    logps, ref_logps = rows
    sums = logps * LENGTHS[:, None], ref_logps * LENGTHS[:, None]
    losses, rewards = ulma.mean_loss(*sums, LABEL, LENGTHS, beta=0.1)
    close(losses, [2 * 1.05, 2 * 0.68815968, 2 * 0.9, 2 * 0.67825968])
    close(losses.mean(), 1.65820968)
    close(rewards, [[0.015], [-0.01], [0.01], [-0.03]])


def test_worked_sum_loss(rows, close):
    """Log-ratios [6, -2.5, 6, -9]; imitation (42 + 54) / 2 = 48; negatives [0.57593942, 0.34115387], mean 0.45854665.

    Class means give 48.45854665; the plain mean of the four rows, 24.22927332, is half of it here.
    """
    logps, ref_logps = (x * LENGTHS[:, None] for x in rows)
    losses = ulma.loss(logps, ref_logps, LABEL, beta=0.1).losses
    close(losses[[1, 3]] / 2, [0.57593942, 0.34115387])
    close(losses.mean(), 48.45854665)
    close((losses / 2).mean(), 24.22927332)


def test_worked_pointwise_loss(rows, close):
    """Positives log(1 + exp(-0.1 x [0.15, 0.1])), mean 0.68691749; negatives as above, 0.68320968; sum 1.37012717."""
    losses = ulma.pointwise_loss(*rows, LABEL, beta=0.1).losses
    close(losses[[0, 2]] / 2, [0.68567531, 0.68815968])
    close(losses.mean(), 1.37012717)


def test_worked_constant(rows, close):
    """c = beta log Z = 0.2 is a reference lowered by c / beta = 2.

    Negatives 0.78720412, + imitation 0.975 = 1.76220412; pointwise positives 0.59253190.
    """
    logps, ref_logps = rows
    close(ulma.loss(logps, ref_logps - 0.2 / 0.1, LABEL, beta=0.1).losses.mean(), 1.76220412)
    pointwise = ulma.pointwise_loss(logps, ref_logps - 0.2 / 0.1, LABEL, beta=0.1).losses.mean()
    close(pointwise, 0.59253190 + 0.78720412)


def test_worked_continuous_loss(rows, close):
    """(0.3 + 0.01)^2 = 0.0961 and (0.6 + 0.03)^2 = 0.3969, mean 0.2465; + imitation 0.975 = 1.2215."""
    score = torch.tensor([1.0, 0.3, 1.0, 0.6], dtype=torch.float64)
    losses = ulma.continuous_loss(*rows, score, LABEL, beta=0.1).losses
    close(losses[[1, 3]] / 2, [0.0961, 0.3969])
    close(losses.mean(), 1.2215)


def test_worked_gradients(rows, close):
    """Each scaled by 4/2: imitation -2; negatives 2 beta sigmoid(r); squared error -4 beta (z - r).

    Pointwise positives -2 beta sigmoid(-r) = 2 beta sigmoid(r) - 2 beta.
    """
    logps, ref_logps = rows
    score = torch.tensor([1.0, 0.3, 1.0, 0.6], dtype=torch.float64)
    rewards = [0.015, -0.01, 0.01, -0.03]
    up = [0.2 / (1 + exp(-r)) for r in rewards]
    expected = {
        "binary": [-2.0, up[1], -2.0, up[3]],
        "continuous": [-2.0, -0.4 * 0.31, -2.0, -0.4 * 0.63],
        "pointwise": [up[0] - 0.2, up[1], up[2] - 0.2, up[3]],
    }
    losses = {
        "binary": ulma.loss(logps, ref_logps, LABEL, beta=0.1).losses,
        "continuous": ulma.continuous_loss(logps, ref_logps, score, LABEL, beta=0.1).losses,
        "pointwise": ulma.pointwise_loss(logps, ref_logps, LABEL, beta=0.1).losses,
    }
    for name, values in losses.items():
        (gradient,) = torch.autograd.grad(values.sum(), logps)
        close(gradient[:, 0], expected[name])


def losses_of(name, logps, ref_logps, label, beta=0.3):
    """Each loss on the same rows; the continuous one is asked for rewards of 0.4 where there is no demonstration."""
    match name:
        case "loss" | "pointwise_loss":
            return getattr(ulma, name)(logps, ref_logps, label, beta=beta).losses
        case "mean_loss":
            return ulma.mean_loss(logps, ref_logps, label, torch.full_like(label, 7.0), beta=beta).losses
        case "continuous_loss":
            return ulma.continuous_loss(logps, ref_logps, torch.full_like(label, 0.4), label, beta=beta).losses


ALL = pytest.mark.parametrize("name", ["loss", "mean_loss", "continuous_loss", "pointwise_loss"])


@ALL
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_right_at_any_scale_and_follow_the_label(name, random, scale):
    logps, ref_logps = random(4, 1, scale=scale).requires_grad_(), random(4, 1, scale=scale)
    assert torch.autograd.gradcheck(lambda x: losses_of(name, x, ref_logps, LABEL), logps)
    losses_of(name, logps, ref_logps, LABEL).sum().backward()
    gradient = logps.grad[:, 0]
    assert (gradient[LABEL == 1] < 0).all()
    if name == "continuous_loss":  # towards the wanted reward, from either side
        reward = 0.3 * (logps - ref_logps).detach()[:, 0]
        assert (gradient.sign() == (reward - 0.4).sign())[LABEL == 0].all()
    else:
        assert (gradient[LABEL == 0] > 0).all()


def test_plain_python_twin(random, close):
    logps, ref_logps = random(40, 1, scale=4.0) - 20, random(40, 1, scale=4.0) - 20
    label, score = (random(40) > 0.4).double(), random(40)
    lengths = (random(40, scale=10.0).abs() + 1).round()
    terms = {name: {0.0: [], 1.0: []} for name in ("loss", "mean", "continuous", "pointwise")}
    for (p,), (q,), up, z, n in zip(
            logps.tolist(), ref_logps.tolist(), label.tolist(), score.tolist(), lengths.tolist(), strict=True):
        reward, mean_reward = 0.2 * (p - q), 0.2 * (p / n - q / n)
        terms["loss"][up].append(-p if up else log1p(exp(reward)))
        terms["mean"][up].append(-p / n if up else log1p(exp(mean_reward)))
        terms["continuous"][up].append(-p if up else (z - reward) ** 2)
        terms["pointwise"][up].append(log1p(exp(-reward if up else reward)))
    assert 0 < len(terms["loss"][1.0]) < len(terms["loss"][0.0])
    expected = {name: sum(sum(side) / len(side) for side in sides.values()) for name, sides in terms.items()}
    close(ulma.loss(logps, ref_logps, label, beta=0.2).losses.mean(), expected["loss"])
    close(ulma.mean_loss(logps, ref_logps, label, lengths, beta=0.2).losses.mean(), expected["mean"])
    close(ulma.continuous_loss(logps, ref_logps, score, label, beta=0.2).losses.mean(), expected["continuous"])
    close(ulma.pointwise_loss(logps, ref_logps, label, beta=0.2).losses.mean(), expected["pointwise"])


def test_policy_equal_to_reference(random, close):
    """Pointwise: log 2 per class. Binary: imitation + log 2. Continuous: imitation + score^2."""
    logps = random(4, 1, scale=3.0) - 9
    imitation = -(logps[0, 0] + logps[2, 0]) / 2
    for name, expected in (("pointwise_loss", 2 * log(2)), ("loss", imitation + log(2)),
                           ("continuous_loss", imitation + 0.16)):
        close(losses_of(name, logps, logps.clone(), LABEL).mean(), expected)


def test_means_of_one_token_are_sums(rows, close):
    close(ulma.mean_loss(*rows, LABEL, torch.ones(4), beta=0.1).losses, ulma.loss(*rows, LABEL, beta=0.1).losses)


def test_mean_loss_does_not_depend_on_length(rows, close):
    """A completion said twice over has the same loss per token and twice the summed imitation term."""
    logps, ref_logps = (x * LENGTHS[:, None] for x in rows)
    once = ulma.mean_loss(logps, ref_logps, LABEL, LENGTHS, beta=0.1).losses
    close(ulma.mean_loss(2 * logps, 2 * ref_logps, LABEL, 2 * LENGTHS, beta=0.1).losses, once)
    sums = ulma.loss(logps, ref_logps, LABEL, beta=0.1).losses
    close(ulma.loss(2 * logps, 2 * ref_logps, LABEL, beta=0.1).losses[LABEL == 1], 2 * sums[LABEL == 1])


def test_the_reference_does_not_matter_to_demonstrations(rows, close):
    logps, ref_logps = rows
    moved = ref_logps + torch.tensor([[5.0], [0.0], [-7.0], [0.0]])
    close(ulma.loss(logps, moved, LABEL, beta=0.1).losses, ulma.loss(logps, ref_logps, LABEL, beta=0.1).losses)
    assert not torch.equal(ulma.pointwise_loss(logps, moved, LABEL, beta=0.1).losses,
                           ulma.pointwise_loss(logps, ref_logps, LABEL, beta=0.1).losses)


def test_a_demonstration_is_what_the_data_say_not_a_score_of_one(rows, close):
    """A rated answer with score 1.0 is regressed on, and a demonstration needs no score."""
    score = torch.tensor([NAN, 0.3, NAN, 1.0], dtype=torch.float64)
    losses = ulma.continuous_loss(*rows, score, LABEL, beta=0.1).losses
    close(losses / 2, [1.05, 0.0961, 0.9, 1.03**2])
    losses.mean().backward()
    assert rows[0].grad.isfinite().all()


def test_a_continuous_target_is_finite_and_stops_there(close):
    logps = torch.tensor([[4.0]], dtype=torch.float64, requires_grad=True)
    score, none = torch.tensor([0.4], dtype=torch.float64), torch.zeros(1)
    ulma.continuous_loss(logps, torch.zeros_like(logps), score, none, beta=0.1).losses.sum().backward()
    close(logps.grad, [[0.0]])


@ALL
@pytest.mark.parametrize("side", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_of_one_class_or_one_row_is_finite(name, side, size, random):
    logps = random(size, 1).requires_grad_()
    losses = losses_of(name, logps, random(size, 1), torch.full((size,), side, dtype=torch.float64))
    losses.mean().backward()
    assert losses.isfinite().all() and (logps.grad != 0).all()


@ALL
@pytest.mark.parametrize("row", [0, 1])
def test_a_nan_is_not_hidden(name, row, rows):
    logps, ref_logps = rows[0].detach().clone(), rows[1]
    logps[row] = NAN
    assert losses_of(name, logps, ref_logps, LABEL).mean().isnan()


@ALL
def test_class_counts_do_not_matter(name, random, close):
    """Each negative row three times over leaves the mean of the losses as it was."""
    logps, ref_logps = random(4, 1), random(4, 1)
    more = torch.tensor([0, 1, 2, 3, 1, 3, 1, 3])
    label = LABEL.double()
    close(losses_of(name, logps[more], ref_logps[more], label[more]).mean(),
          losses_of(name, logps, ref_logps, label).mean())


def test_huge_rewards_stay_finite():
    logps = torch.tensor([[-1e5], [-1e5], [1e5], [1e5]], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([1.0, 0.0, 1.0, 0.0])
    for form in (ulma.loss, ulma.pointwise_loss):
        losses = form(logps, torch.zeros_like(logps), label, beta=1.0).losses
        (gradient,) = torch.autograd.grad(losses.sum(), logps)
        assert losses.isfinite().all() and gradient.isfinite().all()


def test_rewards_and_scores_carry_no_gradient(rows):
    score = torch.full((4,), 0.5, dtype=torch.float64, requires_grad=True)
    output = ulma.continuous_loss(*rows, score, LABEL, beta=0.1)
    output.losses.sum().backward()
    assert score.grad is None and not output.rewards.requires_grad
    for form in (ulma.loss, ulma.pointwise_loss):
        assert not form(*rows, LABEL, beta=0.1).rewards.requires_grad


def test_shapes_that_do_not_agree_raise(rows):
    logps, ref_logps = rows
    column = LABEL[:, None]
    for call in (
        lambda: ulma.loss(logps, ref_logps, column, beta=0.1),
        lambda: ulma.loss(logps, ref_logps[:, 0], LABEL, beta=0.1),
        lambda: ulma.mean_loss(logps, ref_logps, LABEL, LENGTHS[:, None], beta=0.1),
        lambda: ulma.continuous_loss(logps, ref_logps, column, LABEL, beta=0.1),
        lambda: ulma.continuous_loss(logps, ref_logps, LABEL, column, beta=0.1),
        lambda: ulma.pointwise_loss(logps[:3], ref_logps, LABEL, beta=0.1),
        lambda: ulma.per_token(logps, ref_logps, LENGTHS[:3]),
    ):
        with pytest.raises(ValueError, match=r"expected logps \[B,1\]"):
            call()


def test_a_completion_without_tokens_raises(rows):
    with pytest.raises(ValueError, match=r"\[0\.0\]"):
        ulma.mean_loss(*rows, LABEL, torch.tensor([3.0, 0.0, 2.0, 1.0]), beta=0.1)


def test_a_label_that_is_neither_raises(rows):
    strange = torch.tensor([1.0, 0.0, 0.25, 0.0])
    for form in (ulma.loss, ulma.pointwise_loss):
        with pytest.raises(ValueError, match="0.25"):
            form(*rows, strange, beta=0.1)
    with pytest.raises(ValueError, match="0.25"):
        ulma.continuous_loss(*rows, LABEL, strange, beta=0.1)


@ALL
def test_it_separates_held_out_answers(name, toy):
    def compute():
        logps, ref_logps, label = toy.rows()
        if name == "continuous_loss":  # bad answers should have reward -1
            return ulma.continuous_loss(logps, ref_logps, torch.full_like(label, -1.0), label, beta=0.3).losses.mean()
        return losses_of(name, logps, ref_logps, label).mean()

    values = toy.fit(compute)
    assert values[-1] < values[0]
    assert toy.auc() > 0.9
    good, _ = toy.logratios().T
    if name != "pointwise_loss":  # imitation makes held-out good answers likelier, not merely likelier than bad ones
        assert good.mean() > 1.0
