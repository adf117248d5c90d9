"""Remember of a clip what it takes to compare it with others, frame by frame on the way to the encoder.

A talking head before a still wall looks like itself all day long, so one picture hash cannot tell two
takes apart: the print of a clip is what its pictures look like, how they change, and how it sounds.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64, UInt8, UInt32

from pipeline.models.layouts import FACE_MESH_468, Layout
from schemas.base import FrameSpan
from schemas.face import XYXY
from schemas.prints import GRID, NUM_BANDS, NUM_HASHES, Prints

_THUMB_PX = 160  # side of the remembered frames, from which faces are cut once their landmarks are known
_PATCH_PX = 64
_PATCH_SPAN = 2.0  # side of the face patch in distances between the outer eye corners: brows to chin, ear to ear
_LEAST_FACE_PX = 8  # side of a face on the thumbnail, where only its box is known

_TAPS = np.array([1.0, 2.0, 2.0, 2.0, 1.0]) / 8  # of log-mel steps, centred on the frame: it spans 40 ms itself
# Haitsma and Kalker take 33 bands from 300 to 2000 Hz; of 80 on Slaney's scale these are 298 to 1655 Hz.
_CHORD_BANDS, _OF_BANDS = slice(7, 40), 80
_CHORD_WINDOW_S = 0.37
_LEAST_LOUDNESS = -9.0  # ln of a band's magnitude; the floor, where 16-bit dither lies, is -11.5

_HOG = cv2.HOGDescriptor((_PATCH_PX, _PATCH_PX), (16, 16), (16, 16), (8, 8), 9)


class PrintTap:
    """Feed every output frame of a clip in order, then finish with what the other stages found.

    Args:
        num_frames: of the clip, so that the frames to remember can be chosen.
        fps: of the clip.
    """

    def __init__(self, num_frames: int, fps: int) -> None:
        middles = (np.arange(NUM_HASHES) + 0.5) * num_frames / NUM_HASHES
        self._remembered = frozenset(int(middle) for middle in middles)
        self._fps = fps
        self._hashes: list[int] = []
        self._grid: list[Float32[np.ndarray, " G"]] = []
        self._thumbs: dict[int, tuple[UInt8[np.ndarray, "S S"], XYXY, float]] = {}

    def add(self, frame: UInt8[np.ndarray, "H W 3"], face: XYXY) -> None:
        """Remember one RGB frame; ``face`` is the face box on it."""
        index = len(self._grid)
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        cells = cv2.resize(gray.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
        self._grid.append(cells.ravel())
        if index in self._remembered:
            self._hashes.append(_picture_hash(gray))
            thumb = cv2.resize(gray, (_THUMB_PX, _THUMB_PX), interpolation=cv2.INTER_AREA)
            self._thumbs[index] = thumb, face, _THUMB_PX / frame.shape[0]

    def finish(
        self,
        points: Float32[np.ndarray, "T P 3"],
        confidence: Float32[np.ndarray, " T"],
        opening: Float32[np.ndarray, " T"],
        mel: Float32[np.ndarray, "Tm M"] | None,
        layout: Layout = FACE_MESH_468,
    ) -> Prints:
        """The clip's prints.

        Args:
            points: x, y, z in pixels of the frames.
            confidence: 0 where a frame has no face.
            opening: of the mouth, per frame.
            mel: log-mel of the sound; None for a clip without sound.
            layout: where the points lie on the face.
        """
        seen = confidence > 0
        num_frames = len(self._grid)
        bands, chords, heard = _heard(mel, num_frames, self._fps)
        return Prints(
            hashes=np.array(self._hashes, np.uint64),
            grid=np.array(self._grid, np.float16).reshape(num_frames, GRID * GRID),
            mouth=_mouth(points, seen, opening, layout),
            seen=seen,
            bands=bands,
            chords=chords,
            heard=heard,
            face=self._appearance(points, seen, layout),
        )

    def finish_part(self, whole: Prints, span: FrameSpan, mel: Float32[np.ndarray, "Tm M"] | None) -> Prints:
        """The prints of some frames of a clip, the only ones that were fed.

        Args:
            whole: the clip's. What was measured per frame is taken over, and so is the face: it is the same one.
            span: which frames were fed.
            mel: log-mel of their sound; None for a clip without sound.
        """
        bands, chords, heard = _heard(mel, len(span), self._fps)
        return Prints(
            hashes=np.array(self._hashes, np.uint64),
            grid=whole.grid[span.start : span.stop],
            mouth=whole.mouth[span.start : span.stop],
            seen=whole.seen[span.start : span.stop],
            bands=bands,
            chords=chords,
            heard=heard,
            face=whole.face,
        )

    def _appearance(
        self, points: Float32[np.ndarray, "T P 3"], seen: Bool[np.ndarray, " T"], layout: Layout
    ) -> Float16[np.ndarray, " D"]:
        """Mean histograms of gradients of the remembered faces (Dalal and Triggs, CVPR 2005), of unit length.

        Faces are put upright by their landmarks; where no landmarker covers the domain, the face box has to do.
        """
        patches = [
            _aligned(thumb, points[index] * scale, layout) if seen[index] else _boxed(thumb, box, scale)
            for index, (thumb, box, scale) in sorted(self._thumbs.items())
            if seen[index] or not seen.any()
        ]
        histograms = [np.asarray(_HOG.compute(patch)).ravel() for patch in patches if patch is not None]
        if not histograms:
            return np.zeros(0, np.float16)
        total = np.sum(np.array(histograms, np.float64), axis=0)
        return np.asarray(total / max(float(np.linalg.norm(total)), 1e-9), np.float16)


# ---- pictures ------------------------------------------------------------------------------------------------------


def _picture_hash(gray: UInt8[np.ndarray, "H W"]) -> int:
    """64 bits: which of the picture's lowest frequencies lie above their median (phash)."""
    from imagehash import phash
    from PIL import Image

    return int(str(phash(Image.fromarray(gray))), 16)


def _aligned(
    thumb: UInt8[np.ndarray, "S S"], points: Float32[np.ndarray, "P 3"], layout: Layout
) -> UInt8[np.ndarray, "Q Q"]:
    """The face turned and scaled in the picture so that its bones lie where the average face has them."""
    wanted = (layout.average()[layout.rigid, :2] / _PATCH_SPAN + 0.5) * _PATCH_PX
    # A similarity of the plane is w = a z + b in complex numbers; a and b by least squares.
    z, w = points[layout.rigid, 0] + 1j * points[layout.rigid, 1], wanted[:, 0] + 1j * wanted[:, 1]
    centred = z - z.mean()
    a = np.vdot(centred, w - w.mean()) / max(float(np.vdot(centred, centred).real), 1e-9)
    b = w.mean() - a * z.mean()
    matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    return cv2.warpAffine(thumb, matrix, (_PATCH_PX, _PATCH_PX), borderMode=cv2.BORDER_REPLICATE)


def _boxed(thumb: UInt8[np.ndarray, "S S"], box: XYXY, scale: float) -> UInt8[np.ndarray, "Q Q"] | None:
    """The face box as a square patch; None where too little of it lies on the picture."""
    x0, y0, x1, y1 = (round(min(max(value * scale, 0), _THUMB_PX)) for value in box)
    if min(x1 - x0, y1 - y0) < _LEAST_FACE_PX:
        return None
    return cv2.resize(thumb[y0:y1, x0:x1], (_PATCH_PX, _PATCH_PX), interpolation=cv2.INTER_AREA)


# ---- mouth and sound -----------------------------------------------------------------------------------------------


def _mouth(
    points: Float32[np.ndarray, "T P 3"],
    seen: Bool[np.ndarray, " T"],
    opening: Float32[np.ndarray, " T"],
    layout: Layout,
) -> Float32[np.ndarray, "T 3"]:
    """``MOUTH_FIELDS``: the opening as it is, width and jaw drop in distances between the outer eye corners."""
    series = np.zeros((len(opening), 3), np.float32)
    if not seen.any():
        return series
    xy = points[seen, :, :2].astype(np.float64)

    def gap(a: int, b: int) -> Float64[np.ndarray, " N"]:
        return np.linalg.norm(xy[:, a] - xy[:, b], axis=1)

    size = np.maximum(gap(*layout.outer_eyes), 1e-6)
    width, drop = gap(*layout.mouth_corners), gap(layout.nose_base, layout.chin)
    series[seen] = np.stack([opening[seen], width / size, drop / size], axis=1)
    return series


def _heard(
    mel: Float32[np.ndarray, "Tm M"] | None, num_frames: int, fps: int
) -> tuple[Float16[np.ndarray, "T B"], UInt32[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
    """Bands, chords and where there is any sound; all 0 without one."""
    if mel is None:
        silence = np.zeros((num_frames, NUM_BANDS), np.float16)
        return silence, np.zeros(num_frames, np.uint32), np.zeros(num_frames, bool)
    return (_bands(mel, num_frames), *_chords(mel, num_frames, fps))


def _frames_of(mel: Float32[np.ndarray, "Tm M"], num_frames: int) -> np.ndarray:
    """Which step of the log-mel lies at the time of each frame."""
    return np.minimum(np.round(np.arange(num_frames) * len(mel) / num_frames).astype(int), len(mel) - 1)


def _bands(mel: Float32[np.ndarray, "Tm M"], num_frames: int) -> Float16[np.ndarray, "T B"]:
    """Means of neighbouring bands around each frame's time."""
    pooled = np.stack([part.mean(axis=1) for part in np.array_split(mel, NUM_BANDS, axis=1)], axis=1)
    half = len(_TAPS) // 2
    padded = np.pad(pooled, ((half, half), (0, 0)), mode="edge")
    smooth = sum(tap * padded[step : step + len(mel)] for step, tap in enumerate(_TAPS))
    return np.asarray(smooth)[_frames_of(mel, num_frames)].astype(np.float16)


def _chords(
    mel: Float32[np.ndarray, "Tm M"], num_frames: int, fps: int
) -> tuple[UInt32[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
    """Per frame, 32 signs of how the energy's step from band to band changes, and whether there was any to speak of.

    Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002, equation 1, but once per
    video frame instead of every 11.6 ms: copies are compared at whole frames, and the window is ten times as long.
    """
    band_positions = np.linspace(0, _OF_BANDS - 1, mel.shape[1])
    wanted = np.arange(_OF_BANDS)[_CHORD_BANDS]
    energy = np.stack([np.exp(2.0 * np.interp(wanted, band_positions, row)) for row in mel.astype(np.float64)])
    half = max(1, round(_CHORD_WINDOW_S * fps * len(mel) / num_frames / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(energy, ((half, half), (0, 0)), mode="edge")
    spread = np.stack([np.convolve(band, window / window.sum(), mode="valid") for band in padded.T], axis=1)
    spread = spread[_frames_of(mel, num_frames)]
    steps = spread[:, :-1] - spread[:, 1:]
    bits = np.diff(steps, axis=0, prepend=steps[:1]) > 0
    chords = (bits.astype(np.uint32) << np.arange(bits.shape[1], dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    return chords, 0.5 * np.log(np.maximum(spread.max(axis=1), 1e-30)) > _LEAST_LOUDNESS
