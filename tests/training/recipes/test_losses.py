"""Losses: signs, reductions and masks, each against a number worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.models.expression import prepare
from pipeline.models.resnet import ResNet50
from schemas.errors import UsageError
from schemas.expression import EMOTIONS, ExpressionInput
from training.losses.adversarial import accuracy, discriminator_loss, feature_matching_loss, generator_loss
from training.losses.config import ExpressionLossConfig, PerceptualConfig
from training.losses.expression import ExpressionLoss, expression_loss, seen
from training.losses.perceptual import PerceptualLoss, perceptual_loss
from training.networks.backbones import ExpressionResNet, Vgg19
from training.networks.discriminator import Judgement
from training.networks.frozen import FrozenFile, fill
from training.recipes.anytalk.deformation import Deformation
from training.recipes.anytalk.losses import (
    deformation_prior_loss,
    equivariance_loss,
    head_pose_loss,
    keypoint_prior_loss,
    label_weight,
)

SQUEEZENET = "weights/squeezenet1_1_imagenet_fp16.safetensors"


def judged(score, *features):
    return [Judgement(torch.tensor([[[[float(score)]]]]), tuple(torch.tensor([float(value)]) for value in features))]


# ---- the game --------------------------------------------------------------------------------------------------------


def test_the_generator_wants_high_scores_for_what_it_made():
    assert generator_loss(judged(2)).item() == -2
    assert generator_loss(judged(3)) < generator_loss(judged(2))


@pytest.mark.parametrize(
    ("real", "fake", "loss"), [(1, -1, 0), (5, -5, 0), (0, 0, 2), (-1, 0.5, 2 + 1.5), (0.25, -0.75, 0.75 + 0.25)]
)
def test_the_discriminators_loss_is_the_hinge(real, fake, loss):
    assert discriminator_loss(judged(real), judged(fake)).item() == pytest.approx(loss)


def test_scales_add_up():
    assert discriminator_loss(judged(0) * 2, judged(0) * 2).item() == 4
    assert generator_loss(judged(2) + judged(1)).item() == -3


def test_feature_matching_sums_maps_and_leaves_the_real_ones_alone():
    fake, real = judged(0, 1, 5), judged(0, 4, 3)
    for feature in (*fake[0].features, *real[0].features):
        feature.requires_grad_()
    loss = feature_matching_loss(fake, real)
    loss.backward()
    assert loss.item() == 5
    assert [feature.grad.item() for feature in fake[0].features] == [-1, 1]
    assert [feature.grad for feature in real[0].features] == [None, None]


def test_accuracy_counts_patches_on_the_right_side():
    assert accuracy(judged(1), judged(-1)).item() == 1
    assert accuracy(judged(1), judged(1)).item() == 0.5
    assert accuracy(judged(-1), judged(1)).item() == 0


# ---- keypoints -------------------------------------------------------------------------------------------------------


def test_points_spread_wide_enough_at_the_right_depth_cost_nothing():
    points = torch.tensor([[[0, 0, 0.33], [0.4, 0, 0.33], [0, 0.4, 0.33]]])
    assert keypoint_prior_loss(points).item() == pytest.approx(0, abs=1e-7)


def test_crowded_points_cost_both_ways_and_a_point_never_crowds_itself():
    points = torch.tensor([[[0, 0, 0.33], [0.1, 0, 0.33], [1, 1, 0.33]]])
    assert keypoint_prior_loss(points).item() == pytest.approx(2 * (0.1 - 0.01), abs=1e-6)
    assert keypoint_prior_loss(torch.zeros(1, 3, 3)).item() == pytest.approx(6 * 0.1 + 0.33, abs=1e-6)
    assert keypoint_prior_loss(torch.tensor([[[0, 0, 0.5], [1, 0, 0.1]]])).item() == pytest.approx(0.03, abs=1e-6)


def test_equivariance_is_zero_for_points_that_went_along_and_a_mean_otherwise():
    deformation = Deformation(torch.tensor([[[1.0, 0, 0.2], [0, 1.0, 0]]]), torch.zeros(1, 25))
    points = torch.tensor([[[0.3, 0.1, 9.0], [0.5, 0.5, 9.0]]])
    along = points - torch.tensor([0.2, 0.0, 5.0])  # depth does not matter
    assert equivariance_loss(points, along, deformation).item() == pytest.approx(0, abs=1e-7)
    assert equivariance_loss(points, points, deformation).item() == pytest.approx(0.2 / 2, abs=1e-7)


def test_pose_is_summed_over_angles_in_degrees_and_weighed_by_confidence():
    angles, labels = torch.tensor([[10.0, 0, 0], [0, 0, 0]]), torch.tensor([[7.0, 2, 0], [0, 0, 4]])
    assert head_pose_loss(angles, labels, torch.tensor([1.0, 0.5])).item() == pytest.approx((5 + 4 * 0.5) / 2)


def test_labels_without_confidence_or_face_count_nothing_even_when_they_are_no_numbers():
    weight = label_weight(torch.tensor([0.49, 0.5, 0.51, 1.0]), torch.tensor([True, True, True, False]))
    assert weight.tolist() == pytest.approx([0, 0.5, 0.51, 0])
    angles = torch.zeros(4, 3, requires_grad=True)
    labels = torch.tensor([[math.nan] * 3, [1.0, 0, 0], [0, 0, 0], [math.nan] * 3])
    loss = head_pose_loss(angles, labels, weight)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 / 4)
    assert angles.grad.isfinite().all()


def test_deformation_is_summed_over_points_and_axes():
    delta = torch.zeros(2, 15, 3)
    delta[0, 3] = torch.tensor([0.1, -0.2, 0.3])
    assert deformation_prior_loss(delta).item() == pytest.approx(0.6 / 2)


# ---- perceptual ------------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    """Two 'layers': the picture, and its double."""

    def forward(self, pictures):
        return [pictures, 2 * pictures]


def test_layers_and_sizes_add_up():
    rendered, real = torch.full((2, 3, 16, 16), 0.75), torch.full((2, 3, 16, 16), 0.5)
    assert PerceptualLoss(Twice(), 3)(rendered, real).item() == pytest.approx(3 * (0.25 + 0.5))


@pytest.mark.assets
def test_a_real_backbone_tells_small_changes_from_large_ones(assets: Path):
    config = PerceptualConfig(backbone="squeezenet1_1", num_scales=2, file=FrozenFile(path=str(assets / SQUEEZENET)))
    loss = perceptual_loss(config, 64)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    losses = [loss(picture, (picture + change).clamp(0, 1)).item() for change in (0, 0.05, 0.3)]
    assert losses[0] == 0
    assert 0 < losses[1] < losses[2]
    moving = picture.clone().requires_grad_()
    loss(moving, picture * 0.5).backward()
    assert moving.grad.abs().sum() > 0
    assert all(not parameter.requires_grad for parameter in loss.parameters())
    with pytest.raises(UsageError, match="end at 8 px, and squeezenet1_1 needs 17"):
        perceptual_loss(config.model_copy(update={"num_scales": 4}), 64)


def test_vgg19_has_the_size_and_the_taps_it_should():
    network = Vgg19()
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(12.9, abs=0.05)
    taps = network(torch.rand(1, 3, 32, 32))
    assert [tuple(tap.shape[1:]) for tap in taps] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]
    assert all(tap.min() == 0 for tap in taps)  # after a ReLU


def test_a_weight_of_zero_needs_no_file_and_any_other_names_the_setting():
    assert perceptual_loss(PerceptualConfig(weight=0), 256) is None
    assert expression_loss(ExpressionLossConfig(weight=0)) is None
    with pytest.raises(UsageError, match=r"losses\.perceptual\.file\.path is not set"):
        perceptual_loss(PerceptualConfig(), 256)
    gone = FrozenFile(path="/nowhere/e.safetensors")
    with pytest.raises(UsageError, match=r"losses\.expression\.file\.path: /nowhere/e\.safetensors is not there"):
        expression_loss(ExpressionLossConfig(file=gone))


# ---- expression ------------------------------------------------------------------------------------------------------


class Colours(nn.Module):
    """Eight 'logits': the mean of every channel in turn."""

    def forward(self, faces):
        means = faces.mean(dim=(2, 3))
        return means.repeat(1, 3)[:, :8], means


PLAIN = ExpressionInput(size_px=32, mean=(0, 0, 0), spread=(1, 1, 1))


def test_expression_is_a_distance_per_picture_and_a_mean_over_those_that_count():
    loss = ExpressionLoss(Colours(), PLAIN)
    rendered = torch.zeros(2, 3, 16, 16)
    wanted = torch.zeros(2, 8)
    wanted[0, :2] = torch.tensor([3.0, 4.0])
    wanted[1, 5] = 1.0
    assert loss(rendered, wanted, torch.ones(2)).item() == pytest.approx((5 + 1) / 2)
    assert loss(rendered, wanted, torch.tensor([0.0, 1.0])).item() == pytest.approx(1 / 2)


def test_logits_are_put_into_affectnets_order():
    classes = tuple(reversed(EMOTIONS))
    loss = ExpressionLoss(Colours(), PLAIN.model_copy(update={"classes": classes}))
    picture = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert torch.allclose(loss.logits(picture), Colours()(picture)[0].flip(-1))


@pytest.mark.parametrize("size", [48, 128])
def test_the_network_sees_exactly_what_the_builder_showed_it(size):
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    face = np.array([20.3, 11.0, 70.1, 80.0])
    given = ExpressionInput(size_px=size, scale=1.2)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    cut = seen(tensor, given, torch.tensor(face / 96, dtype=torch.float32)[None])
    assert np.abs(cut[0].numpy() - prepare(picture, tuple(face), given)).max() < 1e-3
    whole = seen(tensor, given.model_copy(update={"scale": 1.0}), None)
    assert (
        np.abs(whole[0].numpy() - prepare(picture, (0, 0, 96, 96), given.model_copy(update={"scale": 1.0}))).max()
        < 1e-3
    )


def test_the_trainers_resnet_gives_the_builders_logits():
    torch.manual_seed(0)
    builders = ResNet50(8).eval()  # random stand-in
    mine = fill(ExpressionResNet(), builders.state_dict(), name="expression_resnet50", key="k")
    faces = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for logits, expected in zip(mine(faces), builders(faces), strict=True):
            assert torch.allclose(logits, expected, atol=1e-5)
