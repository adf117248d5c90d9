"""Small random HuBERT models in the layout of real ones; none of them was trained."""

from pathlib import Path
from typing import Any


def random_hubert(folder: Path, *, normalise: bool = True, **changes: Any) -> Path:
    """A random stand-in with the kinds of layers of hubert-large; ``changes`` go to its configuration.

    ``normalise`` is what its preprocessor says of the sound.
    """
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
    }
    HubertModel(HubertConfig(**small | changes)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True).save_pretrained(folder)
    return folder
