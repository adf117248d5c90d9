"""HuBERT: a sound gets the same numbers in any company, and the device is the one that was asked for.

All weights are random stand-ins in the real files' layouts. The tests on CUDA run where there is one.
"""

import numpy as np
import pytest
from pydantic import ValidationError

from flows.cli import application as cli
from pipeline.models.speech import Hubert
from pipeline.release.make import hubert_setup
from schemas.config import BuildConfig, SpeechConfig
from schemas.errors import UsageError
from tests.helpers.films import write_manifest
from tests.helpers.hubert_files import random_hubert

torch = pytest.importorskip("torch")
HAS_CUDA = torch.cuda.is_available()


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


@pytest.fixture(scope="module")
def hubert_folder(tmp_path_factory):
    return random_hubert(tmp_path_factory.mktemp("models") / "random-hubert-for-tests")


@pytest.fixture(scope="module", params=["layer", "group", "batch"])
def batching(request, tmp_path_factory):
    """Random stand-ins: normalised per step (as large is), over the whole sound (as base is), before the positions."""
    folder = tmp_path_factory.mktemp("models") / f"random-{request.param}-hubert-for-tests"
    kinds = {"layer": {}, "group": {"feat_extract_norm": "group"}, "batch": {"conv_pos_batch_norm": True}}
    more = kinds[request.param] | ({"do_stable_layer_norm": False} if request.param == "group" else {})
    return request.param, Hubert(str(random_hubert(folder, **more)), (0, 1, -1))


@pytest.mark.parametrize("lengths", [[75, 75, 75], [125, 64, 333, 64], [1, 2, 90], [70]])
def test_every_sound_of_a_batch_gets_what_it_gets_alone(batching, lengths):
    kind, network = batching
    sounds = [noise(640 * length, seed) for seed, length in enumerate(lengths)]
    for conversion in ("mean", "concat"):
        together = network.features_each(sounds, lengths, conversion)
        for sound, length, features in zip(sounds, lengths, together, strict=True):
            alone = network.features(sound, length, conversion)
            assert features.shape == alone.shape
            np.testing.assert_allclose(features, alone, atol=1e-3, rtol=1e-3)
            if kind != "layer" and lengths.count(length) == 1:
                np.testing.assert_array_equal(features, alone, "a pass of its own")


def test_only_models_that_do_not_hear_padding_take_sounds_of_several_lengths(batching):
    kind, network = batching
    passes = network._passes([640, 1280, 640])
    assert passes == ([[0, 1, 2]] if kind == "layer" else [[0, 2], [1]])


@pytest.mark.parametrize("num_samples", [400, 640, 719, 720, 721, 16000, 213120])
def test_the_number_of_states_is_the_models_own(batching, num_samples):
    _, network = batching
    [states] = network._states([noise(num_samples)])
    assert states.shape[1] == network._num_states(num_samples) == (num_samples - 400) // 320 + 1


@pytest.mark.skipif(HAS_CUDA, reason="has CUDA")
def test_cuda_that_is_not_there_is_said_before_any_work(hubert_folder, tmp_path, capsys):
    network = Hubert(str(hubert_folder), (-1,), "cuda", half=True)
    with pytest.raises(UsageError, match=r"speech.hubert_device is cuda, and torch finds no CUDA .* to cpu"):
        network.features(noise(640), 1)
    manifest = write_manifest(tmp_path / "manifest.yaml", [{"id": "a", "uri": str(tmp_path / "a.mp4")}])
    arguments = ["build", str(manifest), "-w", str(tmp_path / "ws"), "--inline"]
    assert cli.run([*arguments, "--set", f"speech.hubert={hubert_folder}", "--set", "speech.hubert_device=cuda"]) == 2
    assert "torch finds no CUDA" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "ws").exists()


@pytest.mark.skipif(not HAS_CUDA, reason="needs CUDA")
def test_cuda_in_half_precision_says_nearly_what_the_cpu_says(hubert_folder):
    cpu, cuda = Hubert(str(hubert_folder), (0, -1)), Hubert(str(hubert_folder), (0, -1), "cuda", half=True)
    sounds, lengths = [noise(640 * 64), noise(640 * 100, 1)], [64, 100]
    for on_cpu, on_cuda in zip(cpu.features_each(sounds, lengths), cuda.features_each(sounds, lengths), strict=True):
        np.testing.assert_allclose(on_cpu, on_cuda, atol=3e-2)


def test_half_precision_needs_cuda_and_both_are_left_out_while_they_are_off():
    settings = SpeechConfig().model_dump(mode="json")
    assert not {"hubert_device", "hubert_half"} & settings.keys()
    asked = SpeechConfig(hubert_device="cuda", hubert_half=True)
    assert SpeechConfig.model_validate_json(asked.model_dump_json()) == asked
    said = hubert_setup(BuildConfig(speech=asked.model_copy(update={"hubert": "/models/large"})))
    assert said == {"model": "large", "layers": "-1", "rate_conversion": "mean", "computed_in": "float16"}
    with pytest.raises(ValidationError, match="hubert_half computes on CUDA only"):
        SpeechConfig(hubert_half=True)
