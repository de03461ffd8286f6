"""Estimators in another precision, on another device: the processor in float32 stands in for one."""

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import GumbelSoftmax, Reinforce


class Off(Reinforce):
    """Right in float64, and by a thousandth too large in float32."""

    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        return cost * (1.001 if logits.dtype == torch.float32 else 1.0)


class OffWithNoise(GumbelSoftmax):
    """Right in float64, and by a tenth too large in float32."""

    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        return cost * (1.1 if logits.dtype == torch.float32 else 1.0)


def test_an_estimator_that_is_another_one_elsewhere_is_noticed():
    assert c.check_on_device(Reinforce(), c.SMALL, "cpu").exact
    assert not c.check_on_device(GumbelSoftmax(), c.SMALL, "cpu").exact
    with pytest.raises(c.Failed, match=r"in float32 on cpu: .* is off by 1.0e-03 of its largest coordinate"):
        c.check_on_device(Off(), c.SMALL, "cpu")
    with pytest.raises(c.Failed, match=r"in float32 on cpu: .* standard errors"):
        c.check_on_device(OffWithNoise(), c.SMALL, "cpu")
