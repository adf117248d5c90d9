"""Augmentation: what is done to a picture and to its labels is the same, and is done to both frames of a pair."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clip.headpose import estimate_poses, rotation_from_angles
from pipeline.clip.motion import estimate_motion
from pipeline.models.canonical import canonical_face, mirror_pairs
from pipeline.models.layouts import to_ibug68
from schemas.face import POSE_FIELDS
from training.data import AugmentConfig, Batch, Side, as_float, augment
from training.data.augment import IBUG68_MIRROR, mirror, recolour, swap

SIZE_PX = 48
TX, CONFIDENCE = POSE_FIELDS.index("tx"), POSE_FIELDS.index("confidence")


def make_side(numbers: np.random.Generator, count: int, *, size_px=SIZE_PX, num_points=68) -> Side:
    frames = torch.from_numpy(numbers.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8))

    def floats(*shape: int) -> torch.Tensor:
        return torch.from_numpy(numbers.random((count, *shape), np.float32))

    landmarks, pose = floats(num_points, 3), floats(7)
    landmarks[..., :2] *= size_px - 1
    landmarks[..., 2] += 0.01
    pose[:, :3] *= 40.0
    pose[:, CONFIDENCE] += 0.01
    valid = torch.ones(count, dtype=torch.bool)
    return Side(frames.permute(0, 3, 1, 2), pose, landmarks, floats(6), valid, floats(8))


def make_batch(seed: int = 0, count: int = 6, **more) -> Batch:
    numbers = np.random.default_rng(seed)
    return Batch(
        source=make_side(numbers, count, **more),
        driving=make_side(numbers, count, **more),
        domain=torch.zeros(count, dtype=torch.int64),
        group=torch.zeros(count, dtype=torch.int64),
        face=torch.tensor([0.1, 0.2, 0.6, 0.9]).expand(count, 4),
        has_emotion=torch.ones(count, dtype=torch.bool),
        flippable=torch.ones(count, dtype=torch.bool),
        frame=torch.from_numpy(numbers.integers(0, 99, (count, 2))),
        clip_ids=tuple(f"c{k}" for k in range(count)),
        seed=seed,
    )


def tensors(batch: Batch) -> list[torch.Tensor]:
    leaves: list[torch.Tensor] = []
    batch.map(lambda tensor: leaves.append(tensor) or tensor)
    return leaves


def equal(first: Batch, second: Batch, *, close: float = 0.0) -> bool:
    if close == 0.0:
        return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))
    return all(
        torch.allclose(a.double(), b.double(), atol=close) for a, b in zip(tensors(first), tensors(second), strict=True)
    )


EVERY = torch.ones(6, dtype=torch.bool)

# --- mirroring ---


@given(st.integers(0, 999), st.lists(st.booleans(), min_size=6, max_size=6))
def test_mirrored_twice_is_as_before_and_other_rows_are_left_alone(seed, chosen):
    batch, rows = make_batch(seed), torch.tensor(chosen)
    once = mirror(batch, rows)
    assert torch.equal(once.source.frames[~rows], batch.source.frames[~rows])
    assert torch.equal(once.driving.pose[~rows], batch.driving.pose[~rows])
    twice = mirror(once, rows)
    assert torch.equal(twice.source.frames, batch.source.frames)
    assert equal(twice, batch, close=1e-4)


def test_a_point_lies_on_the_same_pixel_of_the_mirrored_picture():
    batch = make_batch()
    numbers = np.random.default_rng(1)
    places = torch.from_numpy(numbers.integers(0, SIZE_PX, (6, 68, 2))).float()
    batch.source.landmarks[..., :2] = places
    mirrored = mirror(batch, EVERY).source

    def under(side: Side) -> torch.Tensor:
        x, y = side.landmarks[..., 0].long(), side.landmarks[..., 1].long()
        return torch.stack([side.frames[row, :, y[row], x[row]] for row in range(6)])

    assert torch.equal(under(mirrored), under(batch.source)[..., list(IBUG68_MIRROR)])


def test_the_mirror_of_the_68_points_is_the_one_of_the_average_face():
    face = canonical_face()
    points = to_ibug68(face)
    np.testing.assert_allclose(points[list(IBUG68_MIRROR)], points * [-1, 1], atol=0.02)
    assert sorted(IBUG68_MIRROR) == list(range(68))
    assert [IBUG68_MIRROR[partner] for partner in IBUG68_MIRROR] == list(range(68))


def talking_head(num_frames: int = 12) -> np.ndarray:
    """[T, 468, 3] in pixels: a head that turns and nods, off the middle, with one eye closing and the mouth opening."""
    face = canonical_face()
    heads = []
    for time in np.linspace(0.0, 1.0, num_frames):
        points = face.copy()
        for upper, lower in ((386, 374), (385, 380), (387, 373)):  # the lids of the eye at image right
            points[[upper, lower]] = points[[upper, lower]].mean(0) + (
                points[[upper, lower]] - points[[upper, lower]].mean(0)
            ) * (1.0 - 0.8 * time)
        points[[14, 87, 317, 178, 402], 1] += 0.2 * time
        turned = points @ rotation_from_angles(25.0 * time, 12.0 - 20.0 * time, 15.0 * time).T + [0.4, -0.2, 6.0]
        xy = 2 * SIZE_PX * turned[:, :2] / turned[:, 2:] + (SIZE_PX - 1) / 2
        heads.append(np.concatenate([xy, (turned[:, 2:] - 6.0) * 2 * SIZE_PX / 6.0], axis=1))
    return np.stack(heads).astype(np.float32)


def read_labels(meshes: np.ndarray) -> dict[str, torch.Tensor]:
    """Landmarks, pose and motion as the builder reads them from a clip's meshes."""
    sure = np.ones(len(meshes), np.float32)
    points = np.stack([np.concatenate([to_ibug68(mesh), np.ones((68, 1))], axis=1) for mesh in meshes])
    pose = estimate_poses(meshes, sure, SIZE_PX, SIZE_PX)
    motion = estimate_motion(meshes, sure).channels
    return {
        "landmarks": torch.from_numpy(points).float(),
        "pose": torch.from_numpy(pose),
        "motion": torch.from_numpy(motion),
    }


def test_mirrored_labels_are_those_that_the_builder_reads_from_the_mirrored_face():
    meshes = talking_head(6)
    mirrored = meshes[:, mirror_pairs(canonical_face())]
    mirrored[..., 0] = SIZE_PX - 1 - mirrored[..., 0]
    read, read_mirrored = read_labels(meshes), read_labels(mirrored)
    batch = make_batch()
    batch = replace(batch, source=replace(batch.source, **read))
    flipped = mirror(batch, EVERY).source
    assert read["motion"][-1, 2] > 0.5 > read["motion"][-1, 3], "one eye closes, the other does not"
    assert read["pose"][-1, 0] > 15
    for name, tolerance in (("landmarks", 0.05), ("pose", 0.15), ("motion", 0.02)):
        torch.testing.assert_close(getattr(flipped, name), read_mirrored[name], atol=tolerance, rtol=0.0)
    torch.testing.assert_close(flipped.pose[:, TX], read_mirrored["pose"][:, TX], atol=1e-3, rtol=0.0)


@given(st.tuples(*[st.floats(-60, 60)] * 3))
def test_a_mirrored_pose_is_the_mirrored_rotation(angles):
    batch = make_batch()
    batch.source.pose[:, :3] = torch.tensor(angles)
    flip = np.diag([-1.0, 1.0, 1.0])
    turned_angles = mirror(batch, EVERY).source.pose[0, :3].double().numpy()
    given_ = np.float32(angles).astype(np.float64)
    np.testing.assert_allclose(
        rotation_from_angles(*turned_angles), flip @ rotation_from_angles(*given_) @ flip, atol=1e-6
    )


def test_what_was_not_seen_stays_zero():
    batch = make_batch()
    for side in (batch.source, batch.driving):
        side.pose.zero_(), side.landmarks.zero_(), side.motion.zero_()
    mirrored = mirror(batch, EVERY).source
    assert not mirrored.pose.any()
    assert not mirrored.landmarks.any()


def test_points_without_a_known_order_are_never_mirrored():
    batch = replace(make_batch(num_points=98), flippable=torch.zeros(6, dtype=torch.bool))
    config = AugmentConfig(flip=1.0, time_flip=0.0, brightness=0, contrast=0, saturation=0, hue=0)
    assert equal(augment(batch, config), as_float(batch), close=1e-5)


# --- time ---


@given(st.integers(0, 999), st.lists(st.booleans(), min_size=6, max_size=6))
def test_swapped_pairs_are_the_same_pairs_the_other_way_round(seed, chosen):
    batch, rows = make_batch(seed), torch.tensor(chosen)
    once = swap(batch, rows)
    for swapped, original in ((once.source, batch.driving), (once.driving, batch.source)):
        for name in ("frames", "pose", "landmarks", "motion", "valid", "emotion"):
            assert torch.equal(getattr(swapped, name)[rows], getattr(original, name)[rows])
    assert torch.equal(once.frame[rows], batch.frame[rows].flip(1))
    assert equal(swap(once, rows), batch)
    assert equal(swap(batch, torch.zeros(6, dtype=torch.bool)), batch)


# --- colour ---


def test_no_change_of_colour_is_none():
    batch = as_float(make_batch())
    assert equal(recolour(batch, torch.zeros(6, 4)), batch, close=1e-6)


@given(st.integers(0, 99))
def test_a_colour_becomes_the_same_colour_in_both_frames(seed):
    batch = as_float(make_batch(seed))
    batch = replace(batch, driving=replace(batch.driving, frames=batch.source.frames.flip(2)))
    changes = torch.rand(6, 4, generator=torch.Generator().manual_seed(seed)) * 0.2 - 0.1
    changed = recolour(batch, changes)
    torch.testing.assert_close(changed.driving.frames, changed.source.frames.flip(2), atol=1e-6, rtol=0.0)
    assert not torch.allclose(changed.source.frames, batch.source.frames, atol=1e-2)
    assert changed.source.frames.min() >= 0.0
    assert changed.source.frames.max() <= 1.0
    assert changed.source.frames.is_contiguous(memory_format=torch.channels_last)


def muted(batch: Batch) -> Batch:
    """Colours far enough from black and white that nothing is clipped."""
    return batch.map(lambda tensor: tensor * 0.2 + 0.4 if tensor.dim() == 4 else tensor)


@pytest.mark.parametrize("amount", [-0.1, 0.1])
def test_each_change_does_what_its_name_says(amount):
    batch = muted(as_float(make_batch()))
    before = batch.source.frames
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)

    def changed(column: int, by: float = amount) -> torch.Tensor:
        changes = torch.zeros(6, 4)
        changes[:, column] = by
        return recolour(batch, changes).source.frames

    def grey(frames: torch.Tensor) -> torch.Tensor:
        return (frames * luma).sum(1)

    torch.testing.assert_close(changed(0), before * (1 + amount), atol=1e-5, rtol=0.0)
    contrast = changed(1)
    torch.testing.assert_close(contrast.std((2, 3)), before.std((2, 3)) * (1 + amount), atol=1e-5, rtol=1e-4)
    both = (grey(before).mean((1, 2)) + grey(batch.driving.frames).mean((1, 2))) / 2
    shift = grey(contrast).mean((1, 2)) - grey(before).mean((1, 2))
    torch.testing.assert_close(shift, amount * (grey(before).mean((1, 2)) - both), atol=1e-5, rtol=0.0)
    for column in (2, 3):
        torch.testing.assert_close(grey(changed(column)), grey(before), atol=2e-3, rtol=0.0)
    torch.testing.assert_close(changed(2, -1.0), grey(before)[:, None].expand(-1, 3, -1, -1), atol=2e-3, rtol=0.0)
    torch.testing.assert_close(changed(3, 1.0), before, atol=1e-5, rtol=0.0)  # a whole turn


# --- all of it ---


def test_a_batch_is_always_changed_alike_and_another_one_otherwise():
    batch, config = make_batch(), AugmentConfig()
    assert equal(augment(batch, config), augment(batch, config))
    assert not equal(augment(batch, config), augment(replace(batch, seed=7), config))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    augment(batch, config)
    assert torch.equal(torch.get_rng_state(), state), "the training's own random numbers are left alone"


def test_shares_are_as_asked_for():
    colourless = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    config = AugmentConfig(flip=0.25, time_flip=0.75, **colourless)
    batches = [replace(make_batch(0, 200, size_px=4), seed=seed) for seed in range(5)]
    swapped = [(augment(batch, config).frame != batch.frame).any(1) for batch in batches]
    assert abs(torch.cat(swapped).float().mean() - 0.75) < 0.05
    turned = [
        augment(batch, AugmentConfig(flip=0.25, time_flip=0.0, **colourless)).source.pose[:, 0] for batch in batches
    ]
    assert abs((torch.cat(turned) < 0).float().mean() - 0.25) < 0.05


def test_without_augmentation_frames_only_become_floats():
    batch = make_batch()
    config = AugmentConfig(flip=0.0, time_flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    plain = as_float(batch)
    assert plain.source.frames.dtype == torch.float32
    assert torch.equal((plain.source.frames * 255).round().to(torch.uint8), batch.source.frames)
    assert equal(augment(batch, config), plain, close=1e-6)
