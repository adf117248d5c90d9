"""CLIP asked in words which domain a picture belongs to (Radford et al., arXiv 2103.00020, section 3.1).

Loaded through transformers from a local folder only: nothing is downloaded behind the user's back. transformers fills
weights it does not find with random numbers and a warning; here that is an error.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pipeline.models.files.folders import WEIGHTS_FILE
from pipeline.models.one_thread import one_thread
from schemas.errors import UsageError

_FILES = ("config.json", WEIGHTS_FILE, "preprocessor_config.json")


class ZeroShot:
    """A CLIPModel and the texts of every domain, which are read once.

    Args:
        folder: as ``save_pretrained`` writes it: ``config.json``, ``model.safetensors``, the tokenizer's files and
            ``preprocessor_config.json``.
        prompts: texts that describe each domain, at least one for each.

    Raises:
        UsageError: when the folder lacks a file, or holds another kind of model or other weights.
    """

    def __init__(self, folder: str, prompts: Mapping[str, Sequence[str]]) -> None:
        import torch
        from transformers import AutoConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        self._torch = torch
        if missing := [name for name in _FILES if not (Path(folder) / name).is_file()]:
            raise UsageError(
                f"router.clip: {folder!r} lacks {', '.join(missing)}: name a local folder of a CLIPModel with its "
                "tokenizer and processor (the build downloads no weights by itself)"
            )
        try:
            kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
            if kind != "clip":
                raise UsageError(f"router.clip: {folder!r} holds a model of type {kind!r}, expected 'clip'")
            loaded: Any = CLIPModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
            # The one on PIL by name: the other one needs torchvision, and gives other pixels.
            self._processor: Any = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UsageError(f"router.clip: {folder!r} cannot be read as a CLIP model: {error}") from error
        self._model, report = loaded
        if absent := sorted(set(report["missing_keys"]) | set(report["mismatched_keys"])):
            raise UsageError(
                f"router.clip: the weights of {folder!r} lack {len(absent)} of CLIP's tensors, such as {absent[0]}: "
                "fetch or convert them again"
            )
        self._model.eval()
        self._domains = sorted(prompts)
        self._texts = torch.stack([self._read(tokenizer, prompts[domain]) for domain in self._domains])

    def chances(self, pictures: Sequence[UInt8[np.ndarray, "S S 3"]]) -> dict[str, float]:
        """Probability of every domain, over the mean of some RGB pictures of one clip; at least one picture."""
        torch = self._torch
        pixels = self._processor(images=list(pictures), return_tensors="pt").pixel_values
        with torch.inference_mode(), one_thread(torch):
            seen = _unit(_tensor(self._model.get_image_features(pixel_values=pixels))).mean(dim=0)
            logits = self._model.logit_scale.exp() * (self._texts @ seen)
            chances = logits.double().softmax(dim=0).tolist()
        return dict(zip(self._domains, chances, strict=True))

    def _read(self, tokenizer: Any, texts: Sequence[str]) -> Any:
        """One direction per domain: the mean of its texts' (the ensemble of section 3.1.4)."""
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        with self._torch.inference_mode(), one_thread(self._torch):
            return _unit(_unit(_tensor(self._model.get_text_features(**tokens))).mean(dim=0))


def _tensor(output: Any) -> Any:
    """The tensor itself: transformers 5 wraps what version 4 gave."""
    return getattr(output, "pooler_output", output)


def _unit(vectors: Any) -> Any:
    return vectors / vectors.norm(dim=-1, keepdim=True)
