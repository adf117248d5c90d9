"""How much sound HuBERT takes per second, a clip alone and several in one pass, and how far the two answers differ.

    python benchmarks/hubert.py [--device cuda --half] [--model FOLDER] [--batches 1,4,16] [--clips 32]

Without a folder a random stand-in of hubert-large's shape is timed, since time does not depend on what weights say.
Builds give HuBERT one clip per pass, because a clip is a job of its own: the first row is what a job gets, and several
jobs share a GPU by ``engine.gpus_per_job``.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.models.speech import Hubert

SAMPLES_PER_FRAME, FPS = 640, 25
SHORTEST_S, LONGEST_S = 3.0, 20.0  # of clips


def main() -> None:
    """Print a row per size of a pass."""
    parser = argparse.ArgumentParser(description="Time HuBERT on clips of 3 to 20 s.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--half", action="store_true", help="compute in 16-bit floats (CUDA)")
    parser.add_argument("--model", type=Path, help="a folder as save_pretrained writes it")
    parser.add_argument("--batches", default="1,4,16", help="clips per pass")
    parser.add_argument("--clips", type=int, default=32)
    asked = parser.parse_args()
    if asked.half and asked.device != "cuda":
        parser.error("--half computes on CUDA only")
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model or random_large(Path(folder))
        network = Hubert(str(model), (-1,), asked.device, half=asked.half)
    frames = np.random.default_rng(0).uniform(SHORTEST_S, LONGEST_S, asked.clips) * FPS
    clips = [noise(int(num), seed) for seed, num in enumerate(frames)]
    total_s = sum(len(clip) for clip in clips) / SAMPLES_PER_FRAME / FPS
    print(
        f"{device_name(asked.device)}{', half precision' if asked.half else ''}; "
        f"{len(clips)} clips, {total_s:.0f} s of sound"
    )
    print("| clips per pass | seconds of sound per second | largest difference to a clip alone |\n| --- | --- | --- |")
    alone, _ = run(network, clips, 1)
    for size in (int(text) for text in asked.batches.split(",")):
        features, took_s = run(network, clips, size)
        apart = max(float(np.abs(a.astype(np.float32) - b).max()) for a, b in zip(alone, features, strict=True))
        print(f"| {size} | {total_s / took_s:.1f} | {apart:.4f} |")


def run(network: Hubert, clips: list[np.ndarray], size: int) -> tuple[list[np.ndarray], float]:
    """All features, and the seconds that they took; the first pass, which sets the device up, is not counted."""
    network.features_each(clips[:size], [len(clip) // SAMPLES_PER_FRAME for clip in clips[:size]])
    began, features = time.perf_counter(), []
    for start in range(0, len(clips), size):
        together = clips[start : start + size]
        features += network.features_each(together, [len(clip) // SAMPLES_PER_FRAME for clip in together])
    return features, time.perf_counter() - began


def noise(num_frames: int, seed: int) -> np.ndarray:
    """As loud as speech; no time depends on what is heard."""
    loud = 0.1 * np.random.default_rng(seed).standard_normal(SAMPLES_PER_FRAME * num_frames)
    return loud.astype(np.float32)


def random_large(folder: Path) -> Path:
    """A random stand-in of facebook/hubert-large-ll60k's shape (Hsu et al., arXiv 2106.07447, table 1)."""
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    shape = HubertConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    HubertModel(shape).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder


def device_name(device: str) -> str:
    """What it ran on."""
    import torch

    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{platform.processor() or platform.machine()}, one thread"


if __name__ == "__main__":
    main()
