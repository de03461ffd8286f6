"""Convolutional networks of images of every size, and the tasks that have them by one option."""

import pytest
import torch

from hardmax.estimators import Reinforce
from hardmax.harness.config import key_of, plain_config
from hardmax.harness.shared import with_new_settings
from hardmax.tasks.convolutions import features_of, to_features, to_pixels
from hardmax.tasks.data import Images
from hardmax.tasks.dvae import DiscreteVAE
from hardmax.tasks.structured import Structured
from hardmax.tasks.vq import VectorQuantised
from helpers.commands import composed, folders

SHAPES = [(8, 8, 1), (28, 28, 1), (7, 5, 3), (9, 2, 1), (1, 13, 1), (1, 1, 3)]
SMALL = {"variables": 2, "categories": 3, "network": "convolutional"}
MADE = {
    "dvae": lambda data: DiscreteVAE(**SMALL, encoder_widths=[5], decoder_widths=[], data=data),
    "structured": lambda data: Structured(**SMALL, layers=2, bound_samples=2, data=data),
    "vq": lambda data: VectorQuantised(**SMALL, encoder_widths=[], decoder_widths=[5], data=data),
}


def images_of(shape):
    grey = torch.rand(6, shape[0] * shape[1] * shape[2], generator=torch.Generator().manual_seed(0))
    return Images(grey, grey, grey, shape=shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_any_size_come_back_with_their_size(shape):
    there, back = (make(shape, "relu", "fan_in") for make in (to_features, to_pixels))
    x = torch.rand(2, 3, shape[0] * shape[1] * shape[2])
    features = there(x)
    assert features.shape == (2, 3, features_of(shape)) == (2, 3, -(-shape[0] // 4) * -(-shape[1] // 4) * 32)
    assert back(features).shape == x.shape


def test_a_feature_sees_the_pixels_around_its_place():
    """Rows, columns and channels are those of the image, on the way there and on the way back."""
    shape = 12, 20, 3
    there, back = (make(shape, 0.1, "glorot") for make in (to_features, to_pixels))
    x = torch.zeros(1, 720, requires_grad=True)
    (seen,) = torch.autograd.grad(there(x).view(3, 5, 32)[1, 2].sum(), x)
    rows, columns, _ = seen.view(shape).nonzero().T
    assert {*rows.tolist()} <= {*range(1, 8)}  # twice 1 twice, with one on each side twice: 4 - 3 to 4 + 3
    assert {*columns.tolist()} <= {*range(5, 12)}
    assert len(rows) > 100
    features = torch.zeros(1, 3 * 5 * 32, requires_grad=True)
    (from_,) = torch.autograd.grad(back(features).view(shape)[4, 8].sum(), features)
    rows, columns, _ = from_.view(3, 5, 32).nonzero().T
    assert {*rows.tolist()} <= {1, 2} >= {1}
    assert {*columns.tolist()} <= {2, 3} >= {2}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("task", MADE)
def test_tasks_take_images_of_any_size(task, shape):
    if task == "structured" and shape[0] == 1:
        with pytest.raises(ValueError, match="network=convolutional needs images of at least 2 rows, got 1"):
            MADE[task](images_of(shape))
        return
    model, estimator = MADE[task](images_of(shape)), Reinforce(2, "leave_one_out")
    model.nest(estimator)
    problem = model.problem(model.measurement_batch(4))
    cost = estimator(problem.logits, problem.objective, problem.context, problem.log_q) + problem.penalty
    cost.mean().backward()
    assert cost.shape == (4,)
    assert {name for name, p in model.named_parameters() if p.grad is None} == set()
    assert all(torch.tensor(value).isfinite() for value in model.evaluate("test").values())
    for picture in model.show().values():
        assert picture.shape[1] == 10 * (shape[1] + 2)


def test_halves_of_an_odd_image_are_rows():
    model = MADE["structured"](images_of((7, 5, 3)))
    assert model.upper_pixels == 3 * 5 * 3
    assert model.decoder(torch.zeros(2, 6)).shape == (2, 4 * 5 * 3)
    assert Structured(data=images_of((7, 5, 3))).upper_pixels == 3 * 5 * 3, "the same half for both networks"
    assert Structured(data=images_of((1, 5, 3))).upper_pixels == 7


@pytest.mark.parametrize("task", ["dvae", "structured"])
def test_the_option_leaves_the_names_of_earlier_runs_as_they_were(task):
    config = plain_config(composed(f"task={task}"))
    before = config | {"task": {k: v for k, v in config["task"].items() if k != "network"}}
    assert key_of(config) == key_of(before)
    assert with_new_settings(before) == config == with_new_settings(config)
    assert key_of(plain_config(composed(f"task={task}", "task.network=convolutional"))) != key_of(config)


@pytest.mark.parametrize("task", MADE)
def test_a_run_with_convolutions(command, tmp_path, task):
    short = ["task.variables=2", "task.categories=3", "steps=2", "batch_size=5", "measure.draws=2"]
    few = ["task.bound_samples=2"] if task != "vq" else []
    code, _, err = command(f"task={task}", "task.network=convolutional", *short, *few, "wandb.mode=disabled")
    assert code == 0, err
    assert len(folders(tmp_path)) == 1
