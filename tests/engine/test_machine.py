"""What the processor multiplies fastest is used only where it is exact, and refused where it is not there."""

import pytest
import torch

from prefcore.engine import machine
from prefcore.engine.machine import EXACT, SIZE, check_precision, rounding, use_best_float32
from prefcore.engine.models import choose_device

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def the_setting_of_the_process_comes_back():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def error(a, b):
    return ((a @ b).double() - a.double() @ b.double()).abs().max().item()


@pytest.mark.parametrize("shape", [(SIZE, SIZE, SIZE), (1, SIZE, 97), (33, 2 * SIZE, 250)], ids=str)
def test_float32_products_stay_exact_and_those_of_the_usual_library(shape):
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    fast = use_best_float32()
    assert torch.get_float32_matmul_precision() == ("medium" if fast else "highest")
    found, off = a @ b, error(a, b)
    torch.set_float32_matmul_precision("highest")
    assert off < EXACT == 1e-3
    torch.testing.assert_close(found, a @ b, rtol=0, atol=2e-4 * inner / SIZE)
    rounded = (a.bfloat16() @ b.bfloat16()).double() - a.double() @ b.double()
    assert rounded.abs().max() > 10 * EXACT  # what the probe would see


def test_a_library_that_rounds_is_not_used(monkeypatch):
    """As with AMX tiles, where the setting that chooses oneDNN lets it multiply in bfloat16."""
    product = torch.Tensor.__matmul__

    def rounds(a, b):
        if a.dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium":
            return product(a.bfloat16(), b.bfloat16()).float()
        return product(a, b)

    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: True)
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounds)
    assert not use_best_float32() and torch.get_float32_matmul_precision() == "highest"


def test_a_processor_without_avx_512_keeps_the_default(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: False)
    torch.set_float32_matmul_precision("medium")
    assert not use_best_float32() and torch.get_float32_matmul_precision() == "highest"


def test_choosing_a_device_chooses_the_products_and_draws_no_random_number(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: True)
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert choose_device("cpu", 1) == CPU
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_float32_matmul_precision() == ("medium" if use_best_float32() else "highest")


@pytest.mark.parametrize("precision", ["float16", "bf16", "", "highest", None])
def test_a_precision_of_another_name_is_refused_with_the_names_that_there_are(precision):
    with pytest.raises(ValueError, match=rf"precision is {precision!r}: choose one of float32, bfloat16"):
        check_precision(precision, CPU)


def test_bfloat16_is_refused_where_the_processor_would_emulate_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    for ask in (check_precision, rounding):
        with pytest.raises(ValueError, match="no bfloat16 products.*use float32"):
            ask("bfloat16", CPU)
        ask("float32", CPU)
    check_precision("bfloat16", torch.device("cuda"))  # which has its own
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    check_precision("bfloat16", CPU)


def test_rounding_changes_products_inside_it_and_nothing_after_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    a, b = torch.randn(2, 8, 8)
    with machine.rounding("bfloat16", CPU):
        assert (a @ b).dtype == torch.bfloat16 and (a + b).dtype == torch.float32
    with machine.rounding("float32", CPU):
        assert (a @ b).dtype == torch.float32
    assert (a @ b).dtype == torch.float32
