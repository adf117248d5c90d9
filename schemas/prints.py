"""What is remembered of a clip so that it can be compared with others: about 50 KB for twenty seconds.

The stages that look at the whole collection read this instead of pictures and spectra, which are twenty times
as large. It lies beside the clip in the workspace, is made from the clip alone, and never leaves with a release.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from jaxtyping import Bool, Float16, Float32, UInt32, UInt64

PRINTS_FILE = "prints.npz"
EMBEDDING_FILE = "identity.npy"  # beside it where the build asked whose face it is
NUM_HASHES = 8
GRID = 4  # cells of the motion print along each side of the crop
NUM_BANDS = 20
MOUTH_FIELDS = ("opening", "width", "jaw_drop")


@dataclass(frozen=True, slots=True)
class Prints:
    """One clip's prints; T frames. Where a frame has no face, or a clip no sound, the arrays are 0.

    hashes: perceptual hashes (phash) of evenly spaced frames. grid: mean luma (0 to 255) of the cells of the
    picture, row by row. mouth: ``MOUTH_FIELDS`` over the size of the face. seen: a face was read in the frame.
    bands: mean log-mel of neighbouring bands around the frame's time. chords: sign bits of the sound's spectrum
    (Haitsma and Kalker). heard: loud enough for these bits to mean anything. face: appearance, a unit vector;
    empty where the face could not be looked at.
    """

    hashes: UInt64[np.ndarray, " H"]
    grid: Float16[np.ndarray, "T G"]
    mouth: Float32[np.ndarray, "T 3"]
    seen: Bool[np.ndarray, " T"]
    bands: Float16[np.ndarray, "T B"]
    chords: UInt32[np.ndarray, " T"]
    heard: Bool[np.ndarray, " T"]
    face: Float16[np.ndarray, " D"]

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in ("grid", "mouth", "seen", "bands", "chords", "heard")}
        if len(lengths) != 1 or not len(self.hashes):
            raise ValueError(f"prints need one length for all series and at least one hash, found {sorted(lengths)}")

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Prints from arrays by name.

        Raises:
            ValueError: unless the names are exactly the fields.
        """
        if arrays.keys() != {field.name for field in fields(cls)}:
            raise ValueError(f"prints hold {sorted(arrays)}")
        return cls(**arrays)
