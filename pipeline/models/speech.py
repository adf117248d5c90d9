"""Speech networks: Silero's voice activity detector, and HuBERT.

HuBERT runs on the device that is asked for: its numbers differ between devices, so what a machine happens to have must
not choose. Several sounds may share a pass, and each comes out as it would alone.
Silero's package imports torch at once; only its ONNX file is wanted, so it is run directly. HuBERT
is loaded through transformers, from local files only: nothing is downloaded behind the user's back.
transformers fills weights it does not find with random numbers and a warning; here that is an error.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float16, Float32

from pipeline.models.files.folders import local_folder
from pipeline.models.files.packaged import packaged_model
from pipeline.models.one_thread import one_thread
from pipeline.models.torch_device import check_torch_device
from schemas.errors import UsageError
from schemas.models import Device

VAD_STEP = 512  # samples at 16 kHz: 32 ms
_VAD_CONTEXT = 64
_RATE_HZ = 16000
_HUBERT_STRIDE = 320  # samples per hidden state: 50 Hz
# Only training reads it; checkpoints may leave it out.
_HUBERT_UNUSED = {"masked_spec_embed"}

Conversion = Literal["mean", "concat"]
Sound = Float32[np.ndarray, " A"]
States = Float32[np.ndarray, "L N C"]


class SileroVad:
    """Silero VAD 6 by ONNX Runtime, one thread; stateless between calls.

    Raises:
        UsageError: when the package that carries its file is missing.
    """

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = packaged_model("silero_vad").path
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def probabilities(self, samples: Float32[np.ndarray, " L"]) -> Float32[np.ndarray, " N"]:
        """Probability of speech per 32 ms step, N = ceil(L / 512); the last step is padded with silence."""
        num_steps = -(-len(samples) // VAD_STEP)
        padded = np.zeros(_VAD_CONTEXT + num_steps * VAD_STEP, np.float32)
        padded[_VAD_CONTEXT : _VAD_CONTEXT + len(samples)] = samples
        state = np.zeros((2, 1, 128), np.float32)
        rate = np.array(_RATE_HZ, np.int64)
        probabilities = np.zeros(num_steps, np.float32)
        for step in range(num_steps):
            window = padded[None, step * VAD_STEP : step * VAD_STEP + _VAD_CONTEXT + VAD_STEP]
            output, state = self._session.run(None, {"input": window, "state": state, "sr": rate})
            probabilities[step] = np.asarray(output).item()
        return probabilities


class Hubert:
    """Hidden states of a HuBERT model; it is loaded at once, and brought to its device at its first use.

    Args:
        name: a local folder as ``save_pretrained`` writes it (``config.json``, ``model.safetensors``,
            ``preprocessor_config.json``), or a hub name whose files are already in the local cache.
        layers: which hidden states to keep: 0 is the embedding's output, negative counts from the end.
        device: where it runs.
        half: compute in 16-bit floats, which only CUDA does well.

    Raises:
        UsageError: when the files are not on this machine, not in safetensors, or not those of a HuBERT model
            for 16 kHz sound with 50 hidden states per second, and for layers it does not have.
    """

    def __init__(self, name: str, layers: Sequence[int], device: Device = "cpu", *, half: bool = False) -> None:
        import torch
        from transformers import AutoConfig, AutoFeatureExtractor, HubertModel

        self._torch = torch
        try:
            folder = local_folder(name)
            kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
            if kind != "hubert":
                raise UsageError(f"speech.hubert: {name!r} holds a model of type {kind!r}, expected 'hubert'")
            loaded: Any = HubertModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            self._extractor: Any = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the HuBERT model {name!r} is not on this machine as safetensors with its preprocessor_config.json: "
                f"set speech.hubert to a folder that holds them (the build downloads no weights by itself)"
            ) from error
        self._model, report = loaded
        _check_weights(name, set(report["missing_keys"]) | set(report["mismatched_keys"]))
        _check_rates(name, self._extractor.sampling_rate, math.prod(self._model.config.conv_stride))
        num_states = self._model.config.num_hidden_layers + 1
        wrong = [layer for layer in layers if not -num_states <= layer < num_states]
        if wrong:
            raise UsageError(f"speech.hubert_layers: {wrong} do not exist, {name!r} has layers 0 to {num_states - 1}")
        self._layers = [layer % num_states for layer in layers]
        self._device: Device = device
        self._half = half
        self._model = self._model.eval()
        self._is_placed = False

    def tensors_sha256(self) -> str:
        """SHA-256 of all tensors by name, in float32: the digest of a folder whose files have them in another way."""
        digest = hashlib.sha256()
        for key, value in sorted(self._model.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def prepare(self) -> None:
        """Bring the model to its device.

        Raises:
            UsageError: when that is CUDA, and there is none.
        """
        if self._is_placed:
            return
        check_torch_device(self._torch, self._device, "speech.hubert_device")
        self._model = self._model.to(self._device)
        if self._half:
            self._model = self._model.half()
        self._is_placed = True

    def features(
        self, samples: Sound, num_frames: int, conversion: Conversion = "mean"
    ) -> Float16[np.ndarray, "L T C"]:
        """Hidden states at 25 Hz for exactly ``num_frames`` video frames.

        The whole clip goes through in one pass, because attention is global and chunks would differ.
        Two 50 Hz states make one frame, by their mean or side by side; the last state is repeated where
        the convolutions leave the end uncovered.

        Args:
            samples: 16 kHz mono, 640 per frame.
            num_frames: T.
            conversion: how two states become one.
        """
        return self.features_each([samples], [num_frames], conversion)[0]

    def features_each(
        self, sounds: Sequence[Sound], num_frames: Sequence[int], conversion: Conversion = "mean"
    ) -> list[Float16[np.ndarray, "L T C"]]:
        """:meth:`features` of several sounds, in as few passes as give each what it would get alone.

        Models that normalise each step by itself (large) take all sounds in one pass, padded and masked; those that
        normalise over the whole sound (base) would hear the padding, so only sounds of one length go together.

        Args:
            sounds: as many as may be in memory at once.
            num_frames: of each.
            conversion: how two states become one.
        """
        self.prepare()
        features: dict[int, Float16[np.ndarray, "L T C"]] = {}
        for together in self._passes([len(sound) for sound in sounds]):
            states = self._states([sounds[index] for index in together])
            for index, own in zip(together, states, strict=True):
                features[index] = pair_states(own, num_frames[index], conversion)
        return [features[index] for index in range(len(sounds))]

    def _passes(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which sounds may share a pass, by their numbers."""
        config = self._model.config
        # A batch norm before the positional convolution would turn padding into something that it hears, too.
        padding_is_silent = config.feat_extract_norm == "layer" and not getattr(config, "conv_pos_batch_norm", False)
        together: defaultdict[int, list[int]] = defaultdict(list)
        for index, length in enumerate(lengths):
            together[0 if padding_is_silent else length].append(index)
        return list(together.values())

    def _states(self, sounds: Sequence[Sound]) -> list[States]:
        """The chosen hidden states of sounds in one pass, without those of the padding."""
        torch = self._torch
        lengths = [len(sound) for sound in sounds]
        inputs = np.zeros((len(sounds), max(lengths)), np.float32)
        for row, sound in zip(inputs, sounds, strict=True):
            prepared = self._extractor(sound, sampling_rate=_RATE_HZ, return_tensors="np").input_values
            row[: len(sound)] = prepared[0]
        mask = None
        if len(set(lengths)) > 1:
            mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
            mask = mask.long().to(self._device)
        batch = torch.from_numpy(inputs).to(self._device, self._model.dtype)
        with torch.inference_mode(), one_thread(torch):
            states = self._model(batch, attention_mask=mask, output_hidden_states=True).hidden_states
        kept = torch.stack([states[layer] for layer in self._layers]).float().cpu().numpy()
        return [kept[:, row, : self._num_states(length)] for row, length in enumerate(lengths)]

    def _num_states(self, num_samples: int) -> int:
        """Steps that the convolutions make of a sound; they pad nothing."""
        config = self._model.config
        for width, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            num_samples = (num_samples - width) // stride + 1
        return num_samples


def pair_states(states: States, num_frames: int, conversion: Conversion) -> Float16[np.ndarray, "L T D"]:
    """Two 50 Hz states per video frame, edge-padded to exactly ``num_frames``; D is C (mean) or 2 C (concat)."""
    wanted = 2 * num_frames
    missing = wanted - states.shape[1]
    if missing > 0:
        states = np.pad(states, ((0, 0), (0, missing), (0, 0)), mode="edge")
    layers, _, width = states.shape
    pairs = states[:, :wanted].reshape(layers, num_frames, 2, width)
    joined = pairs.mean(axis=2) if conversion == "mean" else pairs.reshape(layers, num_frames, 2 * width)
    return joined.astype(np.float16)


def _check_weights(name: str, missing: set[str]) -> None:
    absent = sorted(missing - _HUBERT_UNUSED)
    if absent:
        raise UsageError(
            f"speech.hubert: the weights of {name!r} lack {len(absent)} of HuBERT's tensors, such as {absent[0]}: "
            f"fetch or convert them again"
        )


def _check_rates(name: str, rate_hz: int, stride: int) -> None:
    if rate_hz != _RATE_HZ or stride != _HUBERT_STRIDE:
        raise UsageError(
            f"speech.hubert: {name!r} takes {rate_hz} Hz and steps by {stride} samples, "
            f"expected {_RATE_HZ} Hz and {_HUBERT_STRIDE}"
        )
