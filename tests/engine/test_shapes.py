import pytest
import torch

from prefcore.engine.shapes import check_shapes, check_shares


def test_letters_bind_and_numbers_are_exact():
    check_shapes("logps [B,2], offset [B], kl []", torch.zeros(3, 2), torch.zeros(3), torch.tensor(0.0))
    check_shapes("table [N, N]", torch.zeros(4, 4))


@pytest.mark.parametrize("shapes", [
    ((3, 2), (4,), ()),  # another batch size
    ((3, 2), (3, 1), ()),  # the broadcasting trap
    ((3, 1), (3,), ()),  # another number of completions
    ((3, 2), (3,), (1,)),  # one element is not a 0-d tensor
])
def test_other_shapes_raise_and_are_named(shapes):
    with pytest.raises(ValueError) as error:
        check_shapes("logps [B,2], offset [B], kl []", *(torch.zeros(shape) for shape in shapes))
    message = str(error.value)
    assert "logps [B,2], offset [B], kl []" in message
    assert ", ".join(str(list(shape)) for shape in shapes) in message


def test_a_letter_is_one_size():
    with pytest.raises(ValueError, match=r"\[4, 3\]"):
        check_shapes("table [N,N]", torch.zeros(4, 3))


def test_the_number_of_tensors_must_agree_too():
    with pytest.raises(ValueError):
        check_shapes("a [B], b [B]", torch.zeros(2))


def test_a_number_outside_of_0_to_1_is_named_with_its_value():
    check_shares(share=torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match=r"vote must be in \[0, 1\]; got \[-0.5, nan\]"):
        check_shares(share=torch.tensor([0.5]), vote=torch.tensor([-0.5, 1.0, float("nan")]))
