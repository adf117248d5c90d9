"""L_exp's targets from shards: what the trainer's network says of a frame is what the builder's wrote down.

All weights here are random stand-ins.
"""

import io
from dataclasses import replace

import av
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.clip.expression import ExpressionTap
from pipeline.models.expression import ExpressionNetwork
from pipeline.models.resnet import ResNet50
from schemas.errors import UsageError
from schemas.expression import ExpressionInput
from tests.helpers.pair_shards import numbered_release, rewritten
from tests.helpers.release_items import SETUP, SIZE_PX, encode_npy, make_clip
from tests.helpers.training_runs import small_config
from training.data import PairsConfig, augment, pairs
from training.data.augment import mirror
from training.data.config import AugmentConfig
from training.data.decode import CONVERSION
from training.engine.feed import flat
from training.engine.run import RunRequest, train
from training.losses.config import ExpressionLossConfig
from training.losses.expression import ExpressionLoss, expression_loss
from training.networks.frozen import FrozenFile
from training.recipes.anytalk.learner import AnyTalkLearner

GIVEN = ExpressionInput(size_px=48, scale=1.1)
BUILT = replace(SETUP, expression=GIVEN)


pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random-stand-in.safetensors"
    save_file(ResNet50(8).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def shards(weights, tmp_path_factory):
    """Shards whose logits the builder's network found in the very frames."""
    network, folder = ExpressionNetwork(weights, GIVEN), tmp_path_factory.mktemp("shards")

    def looked_at(key, members):
        meter = ExpressionTap(network, make_clip(key).plan, SIZE_PX)
        with av.open(io.BytesIO(members["mp4"])) as container:
            for frame in container.decode(video=0):
                exact = frame.reformat(format="rgb24", **CONVERSION)
                meter.add(exact.to_ndarray(), (0.0, 0.0, 1.0, 1.0))
        members["emotion.npy"] = encode_npy(meter.finish()[0])

    release = numbered_release(folder / "release", {"real": 2}, setup=BUILT, real={"emotion": True})
    return rewritten(release, folder / "looked-at", looked_at)


def config(weights, **changes):
    return ExpressionLossConfig(
        **{"file": FrozenFile(path=str(weights)), "input": GIVEN, "target": "shards", **changes}
    )


def test_a_frames_logits_are_the_shards(weights, shards):
    batch = next(iter(pairs(shards, PairsConfig(batch_size=6, shuffle_pairs=4))))
    loss = expression_loss(config(weights))
    assert loss is not None
    table = flat(augment(batch, AugmentConfig(flip=0, brightness=0, contrast=0, saturation=0, hue=0)))
    with torch.no_grad():
        logits = loss.logits(table["driving"], table["driving_face"])
        elsewhere = loss.logits(table["driving"])
    off, off_elsewhere = ((values - table["driving_emotion"]).abs().max() for values in (logits, elsewhere))
    assert off < 1e-3
    assert off_elsewhere > 10 * off
    assert table["has_emotion"].all()


def test_a_mirrored_picture_is_looked_at_where_its_face_is(shards):
    batch = next(iter(pairs(shards, PairsConfig(batch_size=4, shuffle_pairs=4))))
    batch = replace(batch, face=torch.tensor([0.25, 0.125, 0.5, 0.75]).expand(4, 4))
    turned = mirror(batch, torch.tensor([True, False, True, False]))
    assert turned.face[::2].tolist() == [[0.5, 0.125, 0.75, 0.75]] * 2
    assert torch.equal(turned.face[1::2], batch.face[1::2])
    seen, seen_too = (side.driving.frames[0, :, 8:48, left : left + 16] for side, left in ((batch, 16), (turned, 32)))
    assert torch.equal(seen.flip(-1), seen_too)
    assert torch.equal(mirror(turned, torch.tensor([True, False, True, False])).face, batch.face)


class _Colours(nn.Module):
    """Eight numbers that are 0 for a black picture."""

    def forward(self, faces):
        return faces.mean(dim=(1, 2, 3))[:, None].expand(-1, 8), faces


def test_clips_without_logits_have_no_target():
    recipe = AnyTalkLearner(small_config(1, 2))
    own = ExpressionLossConfig(weight=1, target="shards", input=ExpressionInput(mean=(0, 0, 0), spread=(1, 1, 1)))
    recipe.config = recipe.config.model_copy(
        update={"losses": recipe.config.losses.model_copy(update={"expression": own})}
    )

    loss = ExpressionLoss(_Colours(), own.input)
    batch = {
        "driving_face": torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2),
        "driving_emotion": torch.zeros(2, 8),
        "driving_valid": torch.ones(2, dtype=torch.bool),
        "has_emotion": torch.tensor([True, False]),
    }
    rendered = torch.full((2, 3, 32, 32), 0.5, requires_grad=True)
    value = recipe._same_expression(loss, rendered, batch)
    value.backward()
    assert value.item() == pytest.approx(0.5 * 8**0.5 / 2)
    assert rendered.grad is not None
    assert (rendered.grad[0] != 0).any()
    assert not rendered.grad[1].any()


@pytest.mark.parametrize(
    ("emotion", "changes", "sentence"),
    [
        (False, {}, "the domain 'real' has no emotion logits: build it with an expression model"),
        (True, {"input": ExpressionInput()}, 'were made with .*"size_px":48.*: set losses.expression.input to it'),
    ],
)
def test_targets_that_are_not_there_are_said_before_the_first_step(weights, emotion, changes, sentence, tmp_path):
    release = numbered_release(tmp_path / "release", {"real": 2}, setup=BUILT, real={"emotion": emotion})
    plain = small_config(1, 2)
    losses = plain.losses.model_copy(update={"expression": config(weights, **changes)})
    with pytest.raises(UsageError, match=sentence):
        train(RunRequest((str(release),), tmp_path / "run", plain.model_copy(update={"losses": losses})), print)
    assert not (tmp_path / "run").exists()


def test_a_run_learns_from_the_shards_targets(weights, tmp_path):
    release = numbered_release(tmp_path / "release", {"real": 2}, setup=BUILT, real={"emotion": True})
    plain = small_config(1, 2)
    losses = plain.losses.model_copy(update={"expression": config(weights)})
    data = PairsConfig(batch_size=2, shuffle_pairs=4)
    asked = plain.model_copy(update={"losses": losses, "data": data, "num_validation_pairs": 0})
    outcome, _ = train(RunRequest((str(release),), tmp_path / "run", asked, accelerator="cpu"), print)
    assert outcome == "finished"
