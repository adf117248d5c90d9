"""One path makes a clip whatever reads its points: the mesh, 68 points, points that nobody named, or nothing."""

import io

import numpy as np
import pytest

from flows.settings import checked
from pipeline.bench.models import asset_models
from pipeline.clip.make import make_clip
from pipeline.clip.meters import model_files
from pipeline.clip.prints_file import from_bytes
from pipeline.fetch.probe import probe
from pipeline.models.files.weights import WeightsStore
from pipeline.models.registry import ModelSet
from schemas.base import Box, TimeSpan
from schemas.clip import Clip, ClipPlan
from schemas.config import ProbeConfig, WeightsConfig
from schemas.face import FacePath
from schemas.prints import PRINTS_FILE
from schemas.sample import fields_of
from tests.helpers import onnx_files
from tests.helpers.media import write_video

NUM_FRAMES = 8
SIZE_PX = 128


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    from pipeline.demo.head import HeadPose, render_head
    from pipeline.demo.solids import Character

    drawn = [
        render_head(
            np.full((320, 320, 3), 110, np.uint8),
            Character(),
            HeadPose(3 * k, 0, 0, centre_px=(160.0, 150.0), scale_px=9.0),
            mouth_open=k % 3 / 3,
        )
        for k in range(NUM_FRAMES)
    ]
    path = tmp_path_factory.mktemp("film") / "head.mp4"
    write_video(path, [image for image, _ in drawn])
    return path, probe(path, "film", "ab" * 32, ProbeConfig()), [truth.box for _, truth in drawn]


def clip_with(film, store: WeightsStore | None = None, **domain: object) -> tuple[Clip, dict[str, np.ndarray]]:
    path, video, boxes = film
    config = checked({"domains": {"mesh": domain}, "crop": {"size_px": SIZE_PX}}, "config.yaml")
    x0, y0, x1, y1 = np.median(boxes, axis=0)
    side = 1.6 * (y1 - y0)
    corner = ((x0 + x1 - side) / 2, (y0 + y1 - side) / 2)
    plan = ClipPlan(
        clip_id="film-1",
        source_id="film",
        shot_index=0,
        track_index=0,
        span=TimeSpan(start_s=0.0, stop_s=NUM_FRAMES / 25),
        num_frames=NUM_FRAMES,
        fps=25,
        square=Box(x0=corner[0], y0=corner[1], x1=corner[0] + side, y1=corner[1] + side),
        face=Box(x0=x0, y0=y0, x1=x1, y1=y1),
        padding=0.0,
        native_crop_px=side,
        face_ratio=1.0,
        num_neighbours=0,
    )
    times = tuple(k / 25 for k in range(NUM_FRAMES))
    face = FacePath(times_s=times, boxes=tuple(boxes), detector="blazeface_short", purity=1.0)
    models = ModelSet(model_files(config, store))
    clip, files = make_clip(path, video, plan, face, "mesh", models, "test")
    arrays = {name: np.load(io.BytesIO(data)) for name, data in files.items() if name.endswith(".npy")}
    assert files.keys() - {PRINTS_FILE} >= {
        name for name, field in fields_of("visual").items() if not field.optional
    } - {"json"}
    from_bytes(files[PRINTS_FILE])
    return clip, arrays


def test_points_that_nobody_named_are_kept_and_nothing_is_read_from_them(film, tmp_path):
    diamond = np.array([[0, -1], [1, 0], [0, 1], [-1, 0], [0, 0]]) / 2.4
    path = onnx_files.centre_finder(tmp_path / "own.onnx", diamond)
    own = {"path": str(path), "input_px": 32, "num_points": 5}
    clip, arrays = clip_with(film, landmarker=own)
    assert clip.landmark_scheme == "points5"
    assert arrays["landmarks.npy"].shape == arrays["landmarks_smooth.npy"].shape == (NUM_FRAMES, 5, 3)
    assert clip.scores.landmark_ratio == 1.0
    assert arrays["valid.npy"].all()
    assert arrays["landmarks.npy"][..., 2].min() > 0.5
    assert not arrays["pose.npy"].any()
    assert not arrays["motion.npy"].any()
    assert clip.scores.yaw_abs_median_deg is None
    assert clip.scores.sync.status == "unknown"
    assert any(name.startswith("own-") for name in clip.provenance.models)


def test_a_domain_without_landmarker_has_the_shapes_of_one_with(film):
    clip, arrays = clip_with(film, landmarker="none")
    assert clip.landmark_scheme == "none"
    for name, shape in (("landmarks.npy", (68, 3)), ("pose.npy", (7,)), ("motion.npy", (6,))):
        assert arrays[name].shape == (NUM_FRAMES, *shape)
        assert not arrays[name].any()


def test_the_head_turns_alike_whichever_points_and_angles_are_chosen(film):
    _, by_mesh = clip_with(film)
    _, by_pnp = clip_with(film, pose="pnp")
    np.testing.assert_array_equal(by_mesh["landmarks.npy"], by_pnp["landmarks.npy"])
    np.testing.assert_array_equal(by_mesh["pose.npy"][:, 3:], by_pnp["pose.npy"][:, 3:])
    assert not np.array_equal(by_mesh["pose.npy"][:, :3], by_pnp["pose.npy"][:, :3])
    for arrays in (by_mesh, by_pnp):
        yaw = arrays["pose.npy"][:, 0]
        assert np.corrcoef(yaw, 3 * np.arange(NUM_FRAMES))[0, 1] > 0.95


@pytest.mark.assets
def test_pfld_and_fsanet_make_a_clip_like_the_meshs(film, assets):
    _, by_mesh = clip_with(film)
    clip, arrays = clip_with(film, asset_models(assets).files.store, landmarker="pfld", pose="fsanet")
    assert clip.landmark_scheme == "ibug68"
    assert {"pfld", "fsanet_1x1", "fsanet_var"} <= clip.provenance.models.keys()
    assert "face_landmark" in clip.provenance.models, "the presence gate still needs it"
    eyes = np.linalg.norm(by_mesh["landmarks.npy"][:, 36, :2] - by_mesh["landmarks.npy"][:, 45, :2], axis=1).mean()
    apart = np.linalg.norm(arrays["landmarks.npy"][..., :2] - by_mesh["landmarks.npy"][..., :2], axis=-1).mean()
    assert apart < 0.08 * eyes
    np.testing.assert_allclose(arrays["pose.npy"][:, :3], by_mesh["pose.npy"][:, :3], atol=9)
    np.testing.assert_allclose(arrays["pose.npy"][:, 3:5], by_mesh["pose.npy"][:, 3:5], atol=0.03)
    assert np.corrcoef(arrays["pose.npy"][:, 0], 3 * np.arange(NUM_FRAMES))[0, 1] > 0.95
    assert (arrays["motion.npy"][:, -1] > 0.5).all()


def test_where_no_weights_lie_the_missing_ones_are_named(tmp_path):
    from schemas.errors import UsageError

    for change, name in (
        ({"landmarker": "pfld"}, "pfld"),
        ({"pose": "fsanet"}, "fsanet_1x1"),
        ({"landmarker": "fan3d"}, "fan3d"),
    ):
        store = WeightsStore(WeightsConfig(dir=str(tmp_path)))
        models = ModelSet(model_files(checked({"domains": {"real": change}}, "config.yaml"), store))
        with pytest.raises(UsageError, match=rf"missing from the weights folder.*\n  {name}: "):
            models.check()
