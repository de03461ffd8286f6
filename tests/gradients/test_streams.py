"""Streams of random numbers beside that of training."""

import torch

from hardmax.gradients import forked_random


def test_a_stream_leaves_the_others_where_they_are_and_seeds_no_other_device(monkeypatch):
    seeded = []
    for device in (torch.cuda, torch.xpu, torch.mps):
        monkeypatch.setattr(device, "manual_seed_all" if device is not torch.mps else "manual_seed", seeded.append)
    torch.default_generator.manual_seed(3)
    expected = torch.rand(4)
    torch.default_generator.manual_seed(3)
    with forked_random(torch.device("cpu"), 1, 2):
        within = torch.rand(4)
    assert torch.equal(torch.rand(4), expected)
    with forked_random(torch.device("cpu"), 1, 2):
        assert torch.equal(torch.rand(4), within)
    with forked_random(torch.device("cpu"), 2, 1):
        assert not torch.equal(torch.rand(4), within)
    assert not seeded
