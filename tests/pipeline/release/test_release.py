"""What a release says of itself, and what it does not look at."""

from pipeline.release.make import hubert_setup
from schemas.config import BuildConfig, SpeechConfig


def test_no_folder_of_this_machine_leaves_with_a_release():
    speech = SpeechConfig(hubert="/home/somebody/weights/hubert-large", hubert_layers=(6, -1))
    setup = hubert_setup(BuildConfig(speech=speech))
    assert setup == {"model": "hubert-large", "layers": "6 -1", "rate_conversion": "mean"}
    assert hubert_setup(BuildConfig()) == {}
