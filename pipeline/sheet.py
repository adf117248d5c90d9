"""Draw what was measured on a clip over its frames, so that a person can see in seconds whether it is right.

Numbers hide the errors that matter most here: a landmarker that locked onto a collar scores well, a pose with a
flipped sign looks plausible in a table. Both are obvious once drawn. The pictures go into releases and are the
same bytes for the same clip.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import av
import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64
from matplotlib.axes import Axes

from pipeline.errors import DecodeError
from pipeline.page import FAINT, INK, LINE, RGB, Page, font, wrapped
from schemas.clip import Clip
from schemas.scores import SyncScore

NUM_TILES = 12
NUM_COLUMNS = 6
TILE_PX = 256
MAX_OVERVIEW_ROWS = 24
OVERVIEW_FRAMES = 6

_MARGIN_PX = 20
_GAP_PX = 4
_HEADER_PX = 104
_PLOT_PX = 170
_PLOT_BELOW_PX = 58  # tick labels and the axis title
_OVERVIEW_TILE_PX = 176
_OVERVIEW_LABEL_PX = 300
_OVERSAMPLED = 2  # overlays are drawn larger and averaged down: smooth lines at sub-pixel places

# The outlines of the 68 points as annotated in 300-W (Sagonas et al., 2013): first, last, closed.
_OUTLINES = (
    (0, 16, False),
    (17, 21, False),
    (22, 26, False),
    (27, 30, False),
    (31, 35, False),
    (36, 41, True),
    (42, 47, True),
    (48, 59, True),
    (60, 67, True),
)
BONES = tuple(
    (a, b)
    for first, last, closed in _OUTLINES
    for a, b in [(k, k + 1) for k in range(first, last)] + ([(last, first)] if closed else [])
)

_UNSURE, _SURE = np.array([255, 106, 61.0]), np.array([64, 240, 200.0])
# Columns: the head's right-hand side of the image, its crown and its nose, in camera axes (x right, y down, z away).
_HEAD_AXES = np.diag([1.0, -1.0, -1.0])
_AXIS_COLORS = ((235, 60, 60), (70, 200, 80), (70, 120, 255))
_MOUTH, _SOUND, _INVALID = "#d1495b", "#9fb8d8", "#f2d0a9"


@dataclass(frozen=True, slots=True)
class OverviewRow:
    """One clip of an overview: N frames with their own landmarks [N, 68, 3] and pose [N, 7] (None: not drawn)."""

    clip: Clip
    title: str
    frames: Sequence[RGB]
    landmarks: Float32[np.ndarray, "N 68 3"] | None = None
    pose: Float32[np.ndarray, "N 7"] | None = None


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """At most ``count`` different frames from the first to the last, where foreign frames would show."""
    return sorted({round(float(k)) for k in np.linspace(0, num_frames - 1, min(count, num_frames))})


def frames_of(mp4: bytes, indices: Iterable[int]) -> dict[int, RGB]:
    """Decode some frames of a clip; in a release every frame is a key frame, so only those are decoded.

    Args:
        mp4: a clip's file.
        indices: frame numbers in order of presentation, from 0.

    Raises:
        DecodeError: when the file cannot be read or has no such frame.
    """
    wanted = set(indices)
    try:
        with av.open(io.BytesIO(mp4)) as container:
            stream = container.streams.video[0]
            # Decoded elsewhere in parallel already; one thread also keeps the decoder from holding frames back.
            stream.codec_context.thread_count = 1
            packets = sorted((p for p in container.demux(stream) if p.size), key=lambda p: p.dts)
            index_of = {pts: k for k, pts in enumerate(sorted(p.pts for p in packets))}
            if all(packet.is_keyframe for packet in packets):
                packets = [packet for packet in packets if index_of[packet.pts] in wanted]
            found = {}
            for packet in [*packets, None]:
                for frame in stream.codec_context.decode(packet):
                    if index_of[frame.pts] in wanted:
                        found[index_of[frame.pts]] = frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise DecodeError(f"the clip's mp4 ({len(mp4)} bytes) cannot be decoded: {error}") from error
    if missing := sorted(wanted - found.keys()):
        raise DecodeError(f"the clip's mp4 has {len(index_of)} frames and no frame {missing[0]}")
    return found


def draw_clip(
    clip: Clip,
    frames: Iterable[RGB],
    arrays: Mapping[str, np.ndarray],
    envelope: Float32[np.ndarray, "T"] | None = None,
    vad: Bool[np.ndarray, "T"] | None = None,
) -> bytes:
    """Draw a contact sheet: who the clip is, twelve of its frames with overlays, and mouth against sound.

    Args:
        clip: the record; its numbers make the header.
        frames: all T frames in order, RGB; read once, only the shown ones are kept.
        arrays: ``landmarks`` [T, 68, 3] (px, px, 0-1), ``pose`` [T, 7] (see ``schemas.face.POSE_FIELDS``),
            ``motion`` [T, M] (mouth opening first, confidence last) and ``valid`` [T].
        envelope: loudness of speech per frame in any unit; None leaves it out.
        vad: whether there is speech, per frame.

    Returns:
        PNG.

    Raises:
        ValueError: when ``frames`` or an array does not have the clip's length.
    """
    num_frames = clip.plan.num_frames
    for name, array in {**arrays, "envelope": envelope, "vad": vad}.items():
        if array is not None and len(array) != num_frames:
            raise ValueError(f"clip {clip.clip_id} has {num_frames} frames, but {name} has {len(array)}")
    shown = evenly_spaced(num_frames, NUM_TILES)
    tiles = _tiles(clip, frames, arrays, shown)
    num_rows = -(-len(tiles) // NUM_COLUMNS)
    grid_px = num_rows * (TILE_PX + _GAP_PX) - _GAP_PX
    width_px = 2 * _MARGIN_PX + NUM_COLUMNS * (TILE_PX + _GAP_PX) - _GAP_PX
    plot_y = _HEADER_PX + grid_px + 44
    page = Page(width_px, plot_y + _PLOT_PX + _PLOT_BELOW_PX)
    _write_header(page, clip)
    for position, (frame, tile) in enumerate(zip(shown, tiles, strict=True)):
        row, column = divmod(position, NUM_COLUMNS)
        x, y = _MARGIN_PX + column * (TILE_PX + _GAP_PX), _HEADER_PX + row * (TILE_PX + _GAP_PX)
        page.image(x, y, tile)
        label = f"{frame / clip.plan.fps:.2f} s" + ("" if arrays["valid"][frame] else "  no face")
        page.text(x + 8, y + TILE_PX - 14, label, size_px=13, bold=True, color="white")
    axes = page.plot(_MARGIN_PX + 40, plot_y, width_px - 2 * _MARGIN_PX - 40, _PLOT_PX)
    _plot_speech(axes, clip, arrays, envelope, vad, shown)
    return page.png()


def draw_overview(rows: Sequence[OverviewRow], *, max_rows: int = MAX_OVERVIEW_ROWS) -> bytes:
    """Draw one row of frames per clip, with landmarks and a label: a release at a glance.

    Rows beyond ``max_rows`` are counted at the bottom, not drawn. Returns PNG.
    """
    drawn = rows[:max_rows]
    step = _OVERVIEW_TILE_PX + _GAP_PX
    width_px = 2 * _MARGIN_PX + _OVERVIEW_LABEL_PX + OVERVIEW_FRAMES * step - _GAP_PX
    footer_px = 32 if len(rows) > len(drawn) or not rows else 0
    page = Page(width_px, 2 * _MARGIN_PX + len(drawn) * step + footer_px)
    for position, row in enumerate(drawn):
        y = _MARGIN_PX + position * step
        _write_label(page, row, y)
        for column, frame in enumerate(row.frames[:OVERVIEW_FRAMES]):
            landmarks = None if row.landmarks is None else row.landmarks[column]
            pose = None if row.pose is None else row.pose[column]
            tile = overlaid(frame, landmarks, pose, _OVERVIEW_TILE_PX)
            page.image(_MARGIN_PX + _OVERVIEW_LABEL_PX + column * step, y, tile)
    if footer_px:
        more = f"+{len(rows) - len(drawn)} more" if rows else "no clips"
        page.text(_MARGIN_PX, page.height_px - _MARGIN_PX - 8, more, color=FAINT)
    return page.png()


def overlaid(
    frame: RGB,
    landmarks: Float32[np.ndarray, "68 3"] | None,
    pose: Float32[np.ndarray, "7"] | None,
    size_px: int,
) -> RGB:
    """A square frame at ``size_px`` with its points and pose axes on it.

    Points and their lines go from orange (confidence 0) to mint (1); points of confidence 0 are left out.
    """
    side = size_px * _OVERSAMPLED
    shrinks = frame.shape[0] > side
    tile = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if landmarks is not None:
        _draw_points(tile, landmarks * np.array([side / frame.shape[1], side / frame.shape[0], 1.0]))
    if pose is not None:
        _draw_axes(tile, pose)
    return cv2.resize(tile, (size_px, size_px), interpolation=cv2.INTER_AREA)


def head_axes(pose: Float32[np.ndarray, "7"]) -> np.ndarray:
    """Where the head's own axes point on the image: [3 axes (right, up, nose), 2 (x right, y down)], length 0 to 1.

    Orthographic; the rotation is ``schemas.face.POSE_CONVENTION``: R = Rz(roll) Ry(yaw) Rx(-pitch).
    """
    yaw, pitch, roll = np.radians(pose[:3].astype(np.float64))
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return (about_z @ about_y @ about_x @ _HEAD_AXES)[:2].T


def _tiles(clip: Clip, frames: Iterable[RGB], arrays: Mapping[str, np.ndarray], shown: list[int]) -> list[RGB]:
    wanted, tiles, num_read = set(shown), [], 0
    for k, frame in enumerate(frames):
        if k in wanted:
            tiles.append(overlaid(frame, arrays["landmarks"][k], arrays["pose"][k], TILE_PX))
        num_read += 1
    if num_read != clip.plan.num_frames:
        raise ValueError(f"clip {clip.clip_id} has {clip.plan.num_frames} frames, but {num_read} were given")
    for tile in tiles:
        _darken_foot(tile)
    return tiles


def _darken_foot(tile: RGB) -> None:
    """Shade the bottom edge so that white figures can be read on any picture."""
    fade = np.linspace(1.0, 0.35, 36)[:, None, None]
    tile[-36:] = (tile[-36:] * fade).astype(np.uint8)


def _draw_points(tile: RGB, points: np.ndarray) -> None:
    there = np.isfinite(points).all(axis=1) & (points[:, 2] > 0)
    sure = np.clip(np.where(there, points[:, 2], 0), 0, 1)[:, None]
    colors = (_UNSURE + (_SURE - _UNSURE) * sure).tolist()
    places = _fixed_point(np.where(there[:, None], points[:, :2], 0.0))
    for a, b in BONES:
        if there[a] and there[b]:
            color = colors[a] if sure[a] < sure[b] else colors[b]
            cv2.line(tile, places[a], places[b], color, 2, cv2.LINE_AA, _SHIFT)
    for k in np.flatnonzero(there):
        cv2.circle(tile, places[k], 3 << _SHIFT, colors[k], cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_axes(tile: RGB, pose: np.ndarray) -> None:
    if not np.isfinite(pose).all() or pose[6] <= 0:
        return
    side = tile.shape[0]
    centre = pose[3:5] * side
    tips = centre + head_axes(pose) * side * 0.22
    (start,) = _fixed_point(centre[None])
    for tip, color in zip(_fixed_point(tips), _AXIS_COLORS, strict=True):
        cv2.arrowedLine(tile, start, tip, (20, 20, 20), 7, cv2.LINE_AA, _SHIFT, 0.16)
        cv2.arrowedLine(tile, start, tip, color, 4, cv2.LINE_AA, _SHIFT, 0.16)


_SHIFT = 3  # OpenCV takes coordinates in eighths of a pixel


def _fixed_point(points: np.ndarray) -> list[tuple[int, int]]:
    # A wild estimate must not overflow OpenCV's integers; off the tile is off the tile.
    eighths: Int64[np.ndarray, "N 2"] = np.clip(points * (1 << _SHIFT), -(2**20), 2**20).round().astype(np.int64)
    return [(int(x), int(y)) for x, y in eighths]


def _write_header(page: Page, clip: Clip) -> None:
    plan, scores = clip.plan, clip.scores
    page.text(_MARGIN_PX, 30, clip.clip_id, size_px=22, bold=True)
    page.text(page.width_px - _MARGIN_PX, 30, clip.domain, size_px=18, bold=True, color=FAINT, align="right")
    where = [
        f"source {plan.source_id}, {plan.span.start_s:.2f}–{plan.span.stop_s:.2f} s",
        f"{clip.duration_s:.2f} s, {plan.num_frames} frames at {plan.fps} fps",
        f"cut from {scores.native_crop_px:.0f} px, padding {scores.padding:.0%}",
        f"landmarks {clip.landmark_scheme}, detector {clip.provenance.detector}",
        *(["flags " + ", ".join(clip.flags)] if clip.flags else []),
    ]
    measured = [
        f"speech {_figure(scores.speech_ratio, '.2f')}",
        describe_sync(scores.sync),
        f"|yaw| median {_figure(scores.yaw_abs_median_deg, '.0f')}°, range {_figure(scores.yaw_range_deg, '.0f')}°",
        f"face in {scores.face_ratio:.0%} of frames",
        f"sharpness {scores.sharpness:.0f}, exposure {scores.exposure:.2f}, motion {scores.motion:.3f}",
    ]
    for y, facts in ((58, where), (80, measured)):
        page.text(_MARGIN_PX, y, wrapped("  ·  ".join(facts), page.width_px - 2 * _MARGIN_PX, 14, 1)[0])


def describe_sync(sync: SyncScore) -> str:
    """The score in words: its numbers, or why there are none."""
    if sync.status == "unknown":
        return f"sync unknown: {sync.why or 'no reason given'}"
    lag = "?" if sync.lag_frames is None else f"{sync.lag_frames:+d}"
    return f"sync z {_figure(sync.z, '.1f')}, p {_figure(sync.p, '.3f')}, lag {lag} frames"


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _write_label(page: Page, row: OverviewRow, y: float) -> None:
    clip, width_px = row.clip, _OVERVIEW_LABEL_PX - 24
    lines = wrapped(row.title or clip.plan.source_id, width_px, 16, 2, bold=True)
    for line in lines:
        y += 22
        page.text(_MARGIN_PX, y, line, size_px=16, bold=True)
    sync = clip.scores.sync
    facts = (
        clip.domain,
        f"{clip.duration_s:.1f} s, cut from {clip.scores.native_crop_px:.0f} px",
        f"speech {_figure(clip.scores.speech_ratio, '.2f')}, "
        + (f"sync z {_figure(sync.z, '.1f')}" if sync.status == "known" else "sync unknown"),
    )
    for fact in facts:
        y += 21
        page.text(_MARGIN_PX, y, fact, color=INK if fact == clip.domain else FAINT)
    (name,) = wrapped(clip.clip_id, width_px, 11, 1)
    page.text(_MARGIN_PX, y + 21, name, size_px=11, color=FAINT)


def _plot_speech(
    axes: Axes,
    clip: Clip,
    arrays: Mapping[str, np.ndarray],
    envelope: np.ndarray | None,
    vad: np.ndarray | None,
    shown: list[int],
) -> None:
    fps, num_frames = clip.plan.fps, clip.plan.num_frames
    times = (np.arange(num_frames) + 0.5) / fps
    axes.set(xlim=(0, num_frames / fps), ylim=(-0.1, 1.08))
    _shade(axes, ~arrays["valid"].astype(bool), fps, (-0.1, 1.08), _INVALID, "no face")
    if envelope is not None:
        peak = max(float(np.nanmax(envelope)), 1e-12)
        axes.fill_between(times, 0, np.nan_to_num(envelope) / peak, color=_SOUND, lw=0, label="speech envelope")
    if vad is not None:
        _shade(axes, vad.astype(bool), fps, (-0.07, -0.03), "#3d6fb4", "voice")
    motion = arrays["motion"]
    mouth = np.where(motion[:, -1] > 0, motion[:, 0], np.nan)
    if np.isfinite(mouth).any():
        axes.plot(times, mouth, color=_MOUTH, lw=1.8, label="mouth opening", solid_joinstyle="round")
    else:
        axes.plot([], [], " ", label="no mouth curve: nothing reads this domain's mouths")
    axes.plot((np.array(shown) + 0.5) / fps, np.full(len(shown), 1.05), "v", ms=5, color=FAINT, label="frames above")
    _label_axes(axes, num_frames / fps)


def _label_axes(axes: Axes, duration_s: float) -> None:
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10, 30, 60, 600, 3600) if duration_s / s <= 21)
    ticks = np.arange(0, duration_s + 1e-9, step)
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks], fontproperties=font(12), color=FAINT)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"], fontproperties=font(12), color=FAINT)
    axes.tick_params(color=LINE)
    axes.set_xlabel("seconds", fontproperties=font(12), color=FAINT)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=6, frameon=False, prop=font(13), labelcolor=INK)


def _shade(axes: Axes, flags: np.ndarray, fps: int, band: tuple[float, float], color: str, label: str) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))) / fps
    spans = [(start, stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    if spans:
        axes.broken_barh(spans, (band[0], band[1] - band[0]), color=color, lw=0, label=label)
