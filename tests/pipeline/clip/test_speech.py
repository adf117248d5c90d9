"""Speech features: who speaks, log-mel as others compute it, loudness on the picture's clock, HuBERT to the frame."""

import json
import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clip.speech import log_mel, speech_envelope, speech_ratio, voice_activity
from pipeline.demo.speech import chords, synthesise_speech
from pipeline.media.audio import read_audio
from pipeline.models.files.folders import hubert_sha256
from pipeline.models.speech import Hubert, SileroVad, pair_states
from schemas.config import SpeechConfig
from schemas.errors import UsageError
from tests.helpers.hubert_files import random_hubert

RATE = 16000
CONFIG = SpeechConfig()


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def tone(hz: float, num_samples: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(num_samples) / RATE)).astype(np.float32)


# --- voice activity -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad()


@pytest.mark.parametrize("num_samples", [0, 1, 511, 512, 513, 640 * 64])
def test_one_probability_per_32_ms(vad, num_samples):
    found = voice_activity(noise(num_samples), vad)
    assert found.shape == (-(-num_samples // 512),)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()


def test_no_call_remembers_another(vad):
    speech = synthesise_speech(3.0, seed=1).samples
    first = vad.probabilities(speech)
    vad.probabilities(noise(48_000))
    np.testing.assert_array_equal(vad.probabilities(speech), first)
    np.testing.assert_array_equal(SileroVad().probabilities(speech), first)


def test_what_comes_later_changes_nothing_before(vad):
    speech = synthesise_speech(3.0, seed=2).samples
    np.testing.assert_array_equal(vad.probabilities(speech[: 512 * 40]), vad.probabilities(speech)[:40])


def test_each_step_sees_the_end_of_the_step_before(vad):
    """The network wants 64 earlier samples with every 512 new ones; without them it hears next to nothing."""
    speech = synthesise_speech(6.0, seed=3).samples
    assert speech_ratio(vad.probabilities(speech), CONFIG) >= 0.7


def test_speech_is_heard_and_other_sounds_are_not(vad):
    for seed in range(3):
        assert speech_ratio(vad.probabilities(synthesise_speech(5.0, seed=seed).samples), CONFIG) >= 0.7
    others = [np.zeros(5 * RATE, np.float32), noise(5 * RATE), tone(440, 5 * RATE), chords(5.0, seed=0)]
    assert [speech_ratio(vad.probabilities(other), CONFIG) for other in others] == pytest.approx([0] * 4, abs=0.02)


@pytest.mark.parametrize(("probability", "ratio"), [(0.499, 0.0), (0.5, 1.0), (0.501, 1.0)])
def test_speech_is_what_reaches_the_threshold(probability, ratio):
    assert speech_ratio(np.full(10, probability, np.float32), CONFIG) == ratio
    assert speech_ratio(np.zeros(0, np.float32), CONFIG) == 0.0


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "stream", "low", "high"),
    [
        ("WDA_AlexandriaOcasioCortez_000.mp4", 1, 0.41, 0.97),
        ("tps_driving.mp4", 0, 0.41, 0.97),
        ("man_FaceTalk_170809_00138_TA_condition_FaceTalk_170725_00137_TA_audio.mp4", 1, 0.41, 0.97),
        ("bbaf2n.mpg", 1, 0.35, 0.45),
        ("nasa_13013.mp4", 1, 0.41, 1.0),  # 8 kHz
        ("d9.mp4", 1, 0.0, 0.01),
        ("dog_22.mp4", 1, 0.0, 0.01),
        ("penny_and_chip_beach_surfing.mp4", 1, 0.0, 0.01),
        ("bigbuckbunny.mp4", 1, 0.05, 0.5),  # no dialogue: a known false alarm, .43 when louder
    ],
)
def test_real_talkers_are_told_from_other_sounds(assets, vad, name, stream, low, high):
    samples = read_audio(assets / "video" / name, stream, 0.0, _num_samples(assets / "video" / name, stream))
    assert low <= speech_ratio(vad.probabilities(samples), CONFIG) <= high


def _num_samples(path, stream: int) -> int:
    import av

    with av.open(str(path)) as container:
        sound = container.streams[stream]
        return int(sound.duration * sound.time_base * RATE)


# --- log-mel --------------------------------------------------------------------------------------------------------


@given(num_frames=st.integers(1, 120), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_four_mel_rows_per_video_frame(num_frames, seed):
    mel = log_mel(noise(640 * num_frames, seed), CONFIG)
    assert mel.shape == (4 * num_frames, 80)
    assert mel.dtype == np.float32


@pytest.mark.parametrize("config", [CONFIG, SpeechConfig(mel_bins=40, mel_window_samples=400, mel_hop_samples=320)])
def test_log_mel_is_what_transformers_computes(config):
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    samples = synthesise_speech(3.0, seed=4).samples
    size = 1024 if config.mel_window_samples == 640 else 512
    filters = mel_filter_bank(size // 2 + 1, config.mel_bins, 0.0, 8000.0, RATE, norm="slaney", mel_scale="slaney")
    reference = spectrogram(
        samples,
        window_function(config.mel_window_samples, "hann", periodic=True),
        frame_length=config.mel_window_samples,
        hop_length=config.mel_hop_samples,
        fft_length=size,
        power=1.0,
        center=True,
        pad_mode="reflect",
        mel_filters=filters,
        mel_floor=1e-5,
        log_mel="log",
    ).T
    found = log_mel(samples, config)
    np.testing.assert_allclose(found, reference[: len(found)], atol=1e-4)


@pytest.mark.parametrize("hz", [200.0, 440.0, 1000.0, 2500.0, 6000.0])
def test_a_tone_peaks_in_its_band(hz):
    from transformers.audio_utils import hertz_to_mel, mel_to_hertz

    centres = mel_to_hertz(np.linspace(0, hertz_to_mel(8000.0, "slaney"), 82), "slaney")[1:-1]
    mel = log_mel(tone(hz, 640 * 25), CONFIG)[4:-4]
    assert np.abs(np.argmax(mel, axis=1) - np.argmin(np.abs(centres - hz))).max() <= 1


def test_silence_is_the_floor_and_a_click_lies_in_its_row():
    assert np.ptp(log_mel(np.zeros(6400, np.float32), CONFIG)) == 0
    assert log_mel(np.zeros(6400, np.float32), CONFIG)[0, 0] == pytest.approx(np.log(1e-5))
    for row in (5, 17, 30):
        click = np.zeros(6400, np.float32)
        click[160 * row] = 1
        assert log_mel(click, CONFIG).sum(axis=1).argmax() == row


# --- the envelope ---------------------------------------------------------------------------------------------------


@given(num_frames=st.integers(1, 200))
@settings(max_examples=20, deadline=None)
def test_one_loudness_per_video_frame(num_frames):
    found = speech_envelope(noise(640 * num_frames), num_frames)
    assert found.shape == (num_frames,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize("fps", [25, 30])
@given(time_s=st.floats(0.1, 3.8))
@settings(max_examples=30, deadline=None)
def test_a_burst_appears_at_the_frame_that_shows_then(fps, time_s):
    samples = np.zeros(4 * RATE, np.float32)
    centre = round(time_s * RATE)
    samples[centre - 80 : centre + 80] = tone(1000, 160)
    found = speech_envelope(samples, 4 * fps, fps)
    assert abs(found.argmax() - time_s * fps) <= 0.51 or fps != 25  # windows of 40 ms overlap at other rates
    assert found[np.abs(np.arange(4 * fps) / fps - time_s) > 0.06].max() < 0.5 * found.max()


def test_the_envelope_is_symmetric_in_time():
    samples = np.concatenate([noise(640 * 50), np.zeros(1, np.float32)])
    forward = speech_envelope(samples, 51)
    backward = speech_envelope(samples[::-1].copy(), 51)
    np.testing.assert_allclose(forward[1:-1], backward[::-1][1:-1], rtol=1e-2)


def test_only_the_speech_band_counts_and_loudness_grows_with_the_root_of_amplitude():
    level = {hz: speech_envelope(tone(hz, 640 * 50), 50)[5:-5].mean() for hz in (60, 1000, 7000)}
    assert level[60] < 0.25 * level[1000]
    assert level[7000] < 0.25 * level[1000]
    assert speech_envelope(tone(1000, 640 * 50) / 4, 50)[5:-5].mean() == pytest.approx(level[1000] / 2, rel=1e-3)


def test_silence_has_no_loudness_whatever_its_offset():
    """The fourth root makes a filter's rounding errors look loud."""
    for offset in (0.0, 1 / 32768, 0.1):
        assert speech_envelope(np.full(640 * 50, offset, np.float32), 50)[3:-3].max() == 0


# --- HuBERT ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hubert_folder(tmp_path_factory):
    return random_hubert(tmp_path_factory.mktemp("models") / "random-hubert-for-tests")


@pytest.fixture(scope="module")
def hubert(hubert_folder) -> Hubert:
    return Hubert(str(hubert_folder), (0, -1))


@pytest.mark.parametrize("num_frames", [1, 2, 63, 64, 65, 75, 125, 333])
@pytest.mark.parametrize(("conversion", "width"), [("mean", 32), ("concat", 64)])
def test_hubert_has_exactly_one_state_per_video_frame(hubert, num_frames, conversion, width):
    found = hubert.features(noise(640 * num_frames), num_frames, conversion)
    assert found.shape == (2, num_frames, width)
    assert found.dtype == np.float16
    assert np.isfinite(found).all()


def test_hubert_is_transformers_own_output_in_pairs(hubert, hubert_folder):
    import torch
    from transformers import AutoFeatureExtractor, HubertModel

    samples = noise(640 * 70)
    model = HubertModel.from_pretrained(hubert_folder).eval()
    inputs = AutoFeatureExtractor.from_pretrained(hubert_folder)(samples, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        states = model(inputs.input_values, output_hidden_states=True).hidden_states
    for row, layer in enumerate((0, 3)):
        wanted = states[layer][0].numpy()
        assert len(wanted) == 139
        wanted = np.concatenate([wanted, wanted[-1:]]).reshape(70, 2, 32)
        np.testing.assert_allclose(hubert.features(samples, 70, "mean")[row], wanted.mean(axis=1), atol=5e-3)
        concat = hubert.features(samples, 70, "concat")[row]
        np.testing.assert_allclose(concat, wanted.reshape(70, 64), atol=5e-3)


def test_layers_count_from_either_end(hubert_folder):
    samples = noise(640 * 64)
    every = Hubert(str(hubert_folder), (0, 1, 2, 3)).features(samples, 64)
    some = Hubert(str(hubert_folder), (-1, -4, 2)).features(samples, 64)
    np.testing.assert_array_equal(some, every[[3, 0, 2]])
    assert not np.array_equal(every[1], every[2])


@pytest.mark.parametrize(("layer", "fails"), [(-5, True), (-4, False), (3, False), (4, True)])
def test_a_layer_that_is_not_there_is_named(hubert_folder, layer, fails):
    if not fails:
        Hubert(str(hubert_folder), (layer,))
        return
    with pytest.raises(UsageError, match=rf"hubert_layers: \[{layer}\] do not exist.*0 to 3"):
        Hubert(str(hubert_folder), (layer,))


def test_hubert_normalises_where_its_preprocessor_says_so(hubert, tmp_path):
    samples = noise(640 * 64)
    louder = hubert.features(samples * 3 + 0.05, 64)
    np.testing.assert_allclose(louder, hubert.features(samples, 64), atol=2e-2)
    raw = Hubert(str(random_hubert(tmp_path / "random-hubert-for-tests", normalise=False)), (0,))
    assert np.abs(raw.features(samples * 3 + 0.05, 64) - raw.features(samples, 64)).max() > 0.05


def test_hubert_is_deterministic_for_any_number_of_threads(hubert, hubert_folder):
    import torch

    samples = noise(640 * 100)
    first = hubert.features(samples, 100)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(Hubert(str(hubert_folder), (0, -1)).features(samples, 100), first)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_hubert_is_known_by_the_hash_of_its_weights(hubert_folder):
    import hashlib

    assert (
        hubert_sha256(str(hubert_folder), (-1,))
        == hashlib.sha256((hubert_folder / "model.safetensors").read_bytes()).hexdigest()
    )


@given(num_frames=st.integers(1, 40), num_states=st.integers(1, 90))
@settings(max_examples=30, deadline=None)
def test_pairs_are_cut_or_repeat_the_last_state(num_frames, num_states):
    states = np.arange(num_states, dtype=np.float32)[None, :, None]
    steps = np.minimum(np.arange(2 * num_frames), num_states - 1).reshape(num_frames, 2)
    np.testing.assert_array_equal(pair_states(states, num_frames, "concat")[0], steps)
    np.testing.assert_array_equal(pair_states(states, num_frames, "mean")[0, :, 0], steps.mean(axis=1))


@pytest.fixture
def offline(monkeypatch):
    """Every attempt to reach another machine fails the test, even where the caller swallows it."""
    tried = []

    def refuse(*address, **_):
        tried.append(address)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert tried == []


@pytest.mark.parametrize("name", ["/nowhere/hubert", "facebook/hubert-not-in-any-cache"])
def test_a_missing_model_is_one_sentence_without_a_download(offline, name):
    with pytest.raises(UsageError, match="is not on this machine as safetensors") as caught:
        Hubert(name, (-1,))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(offline, hubert_folder, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = _copy(hubert_folder, tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="safetensors"):
        Hubert(str(folder), (-1,))


def test_a_folder_without_its_preprocessor_is_refused(offline, hubert_folder, tmp_path):
    folder = _copy(hubert_folder, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UsageError, match=r"preprocessor_config\.json"):
        Hubert(str(folder), (-1,))


def test_weights_that_would_be_made_up_are_refused(offline, hubert_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = _copy(hubert_folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layers.1.attention.k_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"lack 1 of HuBERT's tensors, such as encoder\.layers\.1\.attention"):
        Hubert(str(folder), (-1,))


def test_another_kind_of_model_is_refused(offline, hubert_folder, tmp_path):
    folder = _copy(hubert_folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "wav2vec2"}))
    with pytest.raises(UsageError, match="'wav2vec2', expected 'hubert'"):
        Hubert(str(folder), (-1,))


def test_another_rate_or_stride_is_refused(offline, hubert_folder, tmp_path):
    folder = _copy(hubert_folder, tmp_path)
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(config | {"sampling_rate": 8000}))
    with pytest.raises(UsageError, match="takes 8000 Hz"):
        Hubert(str(folder), (-1,))
    strided = random_hubert(tmp_path / "strided", conv_stride=(5, 2, 2, 2, 2, 2, 1))
    with pytest.raises(UsageError, match="steps by 160 samples"):
        Hubert(str(strided), (-1,))


def _copy(folder, tmp_path):
    import shutil

    return shutil.copytree(folder, tmp_path / folder.name)
