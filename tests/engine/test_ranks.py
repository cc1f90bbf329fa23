"""Batch statistics over several processes are those of one process with all the rows."""

import pytest
import torch
import torch.distributed

from prefcore.engine import ranks

ROWS = torch.tensor([1.0, 2.0, 3.0, 10.0, -4.0])
ALL, NONE = slice(0, 5), slice(5, 5)
SHARES = {"unequal": (slice(0, 1), slice(1, 5)), "one is empty": (ALL, NONE), "both are empty": (NONE, NONE)}


def reduce(rank, folder, share, queue):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    values = ROWS[SHARES[share][rank]]
    counts = torch.tensor([values.sum(), float(len(values))])
    queue.put((rank, ranks.mean_over_ranks(values).item(), ranks.sum_over_ranks(counts).tolist()))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("share", SHARES)
def test_two_processes_find_the_mean_of_all_rows(processes, tmp_path, share):
    queue = processes.Queue()
    both = [processes.Process(target=reduce, args=(rank, str(tmp_path), share, queue)) for rank in range(2)]
    for process in both:
        process.start()
    found = sorted(queue.get(timeout=120) for _ in both)
    for process in both:
        process.join(60)
    rows = torch.cat([ROWS[part] for part in SHARES[share]])
    expected = rows.mean().item() if len(rows) else 0.0
    total = pytest.approx([rows.sum().item(), len(rows)])
    assert found == [(rank, pytest.approx(expected), total) for rank in range(2)]


def test_one_process_alone_has_its_own_statistics():
    values = ROWS.clone().requires_grad_()
    mean = ranks.mean_over_ranks(values)
    assert mean.item() == pytest.approx(2.4) and mean.dim() == 0 and not mean.requires_grad
    assert ranks.mean_over_ranks(ROWS[:0]).item() == 0
    assert ranks.sum_over_ranks(values).tolist() == ROWS.tolist()
