"""Agreement of two readings of the same choices: of orders, and of styles beyond chance."""

from prefcore.methods.canonical_basis import agreement


def test_worked_kappa():
    """Agreement 3/4; by chance 1/2 x 3/4 + 1/2 x 1/4 = 1/2; (3/4 - 1/2) / (1 - 1/2) = 1/2."""
    assert agreement.kappa([0, 0, 1, 1], [0, 0, 0, 1]) == 0.5
    assert agreement.kappa([0, 1, 2], [0, 1, 2]) == 1.0
    assert agreement.kappa([0, 0], [0, 0]) is None


def test_orders_agree_where_they_name_a_category_in_common_and_styles_by_what_they_name_first():
    named = {("quality", "as shown"): [[0], [1], [2]], ("quality", "swapped"): [[0], [2], [2, 5]],
             ("reason", "as shown"): [[0], [1], []], ("reason", "swapped"): [[], [], []]}  # fmt: skip
    assert agreement.same_in_both_orders(named) == {"quality": 2 / 3, "reason": 0.0}
    assert agreement.of_styles(named) == {"quality, reason": agreement.kappa([0, 1, 2], [0, 1, -1])}
