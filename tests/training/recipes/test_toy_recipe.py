"""A second recipe, unlike AnyTalk in all that matters, through the same engine: nothing in it knows of either."""

import json

import pytest
import torch
from safetensors.torch import load_file

from schemas.errors import CheckpointError, UsageError
from tests.helpers.pair_shards import numbered_release
from tests.helpers.toy_recipe import GROUPS, Reenactor, ToyConfig, ToySizes
from training.data.config import PairsConfig
from training.engine.animator import AnimateConfig, Animator
from training.engine.checkpoint import Store
from training.engine.encode import EncodeRequest, encode
from training.engine.events import FinishedEvent, SavedEvent, StartedEvent, StepEvent, ValidatedEvent, read_events
from training.engine.run import RunRequest, train
from training.engine.settings import read_settings
from training.engine.trained import find_checkpoint, load_driver
from training.evaluation.metrics.config import EvaluationConfig
from training.evaluation.run import EvaluationRequest, evaluate
from training.recipes import registry
from training.recipes.base import Driving

CPU = torch.device("cpu")
pytestmark = [pytest.mark.usefixtures("one_thread_in_torch"), pytest.mark.usefixtures("toy")]


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(registry.RECIPES, "toy", "tests.helpers.toy_recipe:RECIPE")


@pytest.fixture(scope="module")
def module_toy():
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(registry.RECIPES, "toy", "tests.helpers.toy_recipe:RECIPE")
        yield


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return numbered_release(tmp_path_factory.mktemp("release"), {"mesh": 4, "real": 4}, test={"mesh": 1, "real": 2})


def config(stage, **changes):
    given = {
        "stage": stage,
        "data": PairsConfig(batch_size=4, shuffle_pairs=4, pairs_per_clip=2),
        "num_validation_pairs": 4,
        "log_every": 1,
        "images_every": 1,
        "validate_every": 1,
        "save_every": 1,
    }
    return ToyConfig(**(given | changes))


def trained(release, folder, settings, **more):
    lines = []
    request = RunRequest((str(release),), folder, settings, recipe="toy", accelerator="cpu", **more)
    assert train(request, lines.append)[0] == "finished"
    return lines


@pytest.fixture(scope="module")
def reenact(release, module_toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reenact")
    trained(release, folder, config("reenact"))
    return folder


@pytest.fixture(scope="module")
def latents(release, reenact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    encode(EncodeRequest(reenact, str(release), folder, batch_size=3), CPU)
    return folder


@pytest.fixture(scope="module")
def speak(release, reenact, latents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("speak")
    trained(release, folder, config("speak", latents=str(latents)), init=encoding_checkpoint(reenact))
    return folder


def encoding_checkpoint(run):
    """The one that ``encode`` took."""
    return find_checkpoint(run).path


def state(path):
    return json.loads((path / "state.json").read_text())


# ---- two domains at once ---------------------------------------------------------------------------------------------


def test_three_updates_a_step_train_both_domains_networks(release, reenact, tmp_path):
    events = tmp_path / "events.jsonl"
    lines = trained(release, tmp_path / "run", config("reenact"), events=events)
    assert lines[0].startswith("Toy, reenact: two encoders")
    newest = Store(tmp_path / "run" / "checkpoints").latest()
    trained_modules = {"model", "real_critic", "drawn_critic"}
    kept = {"average", "rank-0", *trained_modules, *(f"{name}_adam" for name in trained_modules)}
    assert {path.stem for path in newest.glob("*.safetensors")} == kept
    torch.manual_seed(0)
    fresh = Reenactor(ToySizes()).state_dict()
    after = load_file(newest / "model.safetensors")
    for group in GROUPS:
        moved = [name for name, value in after.items() if group in name and not torch.equal(value, fresh[name])]
        assert len(moved) > 3, group
    recorded, _ = read_events(events)
    assert [type(event) for event in (recorded[0], recorded[-1])] == [StartedEvent, FinishedEvent]
    steps = [event for event in recorded if isinstance(event, StepEvent)]
    assert [(event.samples, event.total_samples) for event in steps] == [(4, 8), (8, 8)]
    assert all(event.figures["real"] == 0.5 for event in steps)  # the quota
    assert {"model_gradient", "real_critic_gradient", "drawn_critic_loss"} <= steps[0].figures.keys()
    assert sum(isinstance(event, SavedEvent) for event in recorded) == 2
    assert sum(isinstance(event, ValidatedEvent) for event in recorded) == 2


def test_a_run_that_was_ended_goes_on_bit_by_bit(release, reenact, tmp_path):
    trained(release, tmp_path / "run", config("reenact"))
    newest = Store(tmp_path / "run" / "checkpoints").latest()
    newest.rename(tmp_path / "later")
    trained(release, tmp_path / "run", config("reenact"), resume=True)
    ended, resumed = (load_file(folder / "model.safetensors") for folder in (newest, tmp_path / "later"))
    assert all(torch.equal(value, resumed[name]) for name, value in ended.items())


def test_it_is_evaluated_as_any_other(release, reenact, tmp_path):
    request = EvaluationRequest(
        checkpoint=reenact,
        release=str(release),
        protocol="cross-domain",
        output=tmp_path / "out",
        config=EvaluationConfig(num_pairs=1, num_frames=2),
        metrics=("cpbd",),
    )
    with pytest.raises(UsageError, match="pictures of 64 px and more, and the model makes 16"):
        evaluate(request, CPU)
    same = EvaluationRequest(
        checkpoint=reenact,
        release=str(release),
        protocol="same-identity",
        output=tmp_path / "same",
        config=EvaluationConfig(num_pairs=1, num_frames=2),
        metrics=("l1", "psnr"),
        recipe="toy",
    )
    results = evaluate(same, CPU)
    assert {group.driving_domain for group in results.groups} == {"mesh", "real"}
    assert results.measured.checkpoint_sha256 == find_checkpoint(reenact).sha256
    with pytest.raises(UsageError, match="is of the recipe toy, not of anytalk"):
        evaluate(
            EvaluationRequest(reenact, str(release), "same-identity", tmp_path, same.config, recipe="anytalk"), CPU
        )


def test_it_is_animated_as_any_other(reenact):
    driver = load_driver(reenact, CPU)
    source, *film = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    animators = {domain: Animator(driver, source, driving_domain=domain) for domain in ("real", "mesh")}
    rendered = {domain: list(animator.frames(film)) for domain, animator in animators.items()}
    assert [picture.shape for picture in rendered["real"]] == [(3, 16, 16)] * 3
    of_real = driver.follow(Driving(pictures=film[0][None] / 255), "real")
    of_mesh = driver.follow(Driving(pictures=film[0][None] / 255), "mesh")
    assert not torch.equal(of_real, of_mesh)  # each domain has its own network


# ---- a stage upon a stage --------------------------------------------------------------------------------------------


def test_a_stage_learns_from_what_its_checkpoint_encoded(release, reenact, latents, speak):
    made_by = find_checkpoint(reenact).sha256
    assert json.loads((latents / "sidecar.json").read_text())["checkpoint_sha256"] == made_by
    newest = state(Store(speak / "checkpoints").latest())
    assert (newest["recipe"], newest["made_from"]) == ("toy", {"checkpoint": made_by})
    assert newest["progress"]["stage"] == "speak"
    kept = load_file(Store(speak / "checkpoints").latest() / "renderer.safetensors")
    first = load_file(encoding_checkpoint(reenact) / "average.safetensors")
    assert all(torch.equal(value, first[name]) for name, value in kept.items())


def test_the_best_checkpoint_has_the_lowest_error(speak):
    store = Store(speak / "checkpoints")
    scores = {path: state(path)["progress"]["score"] for path in store.folder.iterdir()}
    assert len(set(scores.values())) == 2
    assert store.best() == min(scores, key=scores.get)


def test_a_stage_upon_a_stage_goes_on_without_being_told_again(release, reenact, latents, speak, tmp_path):
    settings = config("speak", latents=str(latents), log_every=3)
    trained(release, speak, settings, resume=True)
    other = tmp_path / "other"
    trained(release, other, config("reenact", seed=5))
    with pytest.raises(UsageError, match="is not the checkpoint that the run in"):
        trained(release, speak, settings, resume=True, init=other)


def test_latents_of_another_checkpoint_are_refused(release, latents, tmp_path):
    other = tmp_path / "other"
    trained(release, other, config("reenact", seed=5))
    with pytest.raises(UsageError, match="was made by the checkpoint"):
        trained(release, tmp_path / "run", config("speak", latents=str(latents)), init=other)
    with pytest.raises(UsageError, match="speak builds on the stage reenact: name a checkpoint of it by --init"):
        trained(release, tmp_path / "run", config("speak", latents=str(latents)))
    assert not (tmp_path / "run").exists()


def test_what_is_moved_by_speech_is_not_evaluated_by_pictures(release, speak, tmp_path):
    request = EvaluationRequest(speak, str(release), "same-identity", tmp_path / "out", EvaluationConfig())
    with pytest.raises(UsageError, match="this model is moved by features: only models moved by pictures"):
        evaluate(request, CPU)


def test_speech_moves_a_picture(speak):
    driver = load_driver(speak, CPU)
    source = torch.randint(256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    animator = Animator(driver, source)
    mel = torch.randn(1, 4 * 5, 80, generator=torch.Generator().manual_seed(1))
    rendered = list(animator.driven([Driving(features={"mel.npy": mel})]))
    assert [picture.shape for picture in rendered] == [(3, 16, 16)] * 5
    with pytest.raises(UsageError, match="moved by features, which a film's pictures do not give"):
        next(animator.frames([source]))


# ---- batches without pictures ----------------------------------------------------------------------------------------


def test_windows_with_another_clip_of_the_same_person_train_and_move(release, tmp_path):
    trained(release, tmp_path / "run", config("style"))
    newest = Store(tmp_path / "run" / "checkpoints").latest()
    assert state(newest)["progress"]["score"] is not None
    driver = load_driver(tmp_path / "run", CPU)
    source = torch.full((3, 16, 16), 200, dtype=torch.uint8)
    landmarks = torch.stack([torch.full((68, 3), 4.0), torch.full((68, 3), 8.0)])
    low, high = Animator(driver, source, AnimateConfig()).driven([Driving(landmarks=landmarks)])
    assert (int(low.max()), int(high.max())) == (50, 100)
    with pytest.raises(UsageError, match="the stage style encodes nothing"):
        encode(EncodeRequest(tmp_path / "run", str(release), tmp_path / "latents"), CPU)


# ---- recipes apart ---------------------------------------------------------------------------------------------------


def test_runs_of_two_recipes_do_not_mix(release, reenact, tmp_path):
    anytalk = read_settings(None, ["model.preset=tiny64", "losses.perceptual.weight=0", "losses.expression.weight=0"])
    with pytest.raises(UsageError, match="is of the recipe toy, and this run is of anytalk"):
        train(RunRequest((str(release),), tmp_path / "run", anytalk, init=reenact, accelerator="cpu"), print)
    with pytest.raises(UsageError, match="holds a run of the recipe toy, and this one is of anytalk"):
        train(RunRequest((str(release),), reenact, anytalk, resume=True, accelerator="cpu"), print)
    with pytest.raises(UsageError, match="there is no recipe 'opera': choose from anytalk, toy"):
        registry.find_recipe("opera")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint of this trainer"):
        load_driver(damaged, CPU)
