"""Draw what was measured on a clip over its frames, so that a person can see in seconds whether it is right.

Numbers hide the errors that matter most here: a landmarker that locked onto a collar scores well, a pose with a
flipped sign looks plausible in a table. Both are obvious once drawn. The pictures go into releases and are the
same bytes for the same clip.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import Bool, Float32
from matplotlib.axes import Axes

from pipeline.draw.overlay import AXES_RGB, SURE_RGB, UNSURE_RGB, overlaid
from pipeline.draw.page import FAINT, INK, LINE, RGB, Page, font, is_legible, shortened, text_width_px, wrapped
from schemas.clip import Clip, Scores
from schemas.errors import DecodeError
from schemas.release import ManifestRow
from schemas.scores import SyncScore

NUM_TILES = 12
NUM_COLUMNS = 6
TILE_PX = 256
MAX_OVERVIEW_ROWS = 24
OVERVIEW_FRAMES = 6
MAX_SHEET_CLIPS = 12
SHEET_FRAMES = 3

_MARGIN_PX = 20
_GAP_PX = 4
_HEADER_PX = 104
_PLOT_PX = 170
_PLOT_BELOW_PX = 58  # tick labels and the axis title
_OVERVIEW_TILE_PX = 176
_OVERVIEW_LABEL_PX = 300
_SHEET_COLUMNS = 2
_SHEET_TILE_PX = 198
_SHEET_LABEL_PX = 36
_SHEET_GAP_PX = 24

_MOUTH, _SOUND, _INVALID = "#d1495b", "#9fb8d8", "#f2d0a9"


@dataclass(frozen=True, slots=True)
class ShownClip:
    """A released clip: N of its frames with their own landmarks [N, 68, 3] and pose [N, 7] (None: not drawn)."""

    row: ManifestRow
    frames: Sequence[RGB]
    landmarks: Float32[np.ndarray, "N 68 3"] | None = None
    pose: Float32[np.ndarray, "N 7"] | None = None

    def tile(self, number: int, size_px: int) -> RGB:
        """One of the frames at that size, with what was measured on it."""
        landmarks = None if self.landmarks is None else self.landmarks[number]
        pose = None if self.pose is None else self.pose[number]
        return overlaid(self.frames[number], landmarks, pose, size_px)

    @property
    def name(self) -> str:
        """The source's title, or its id where the font cannot show the title."""
        return self.row.title if is_legible(self.row.title) else self.row.source_id


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
        with av.open(io.BytesIO(mp4), "r") as container:
            stream = container.streams.video[0]
            # Decoded elsewhere in parallel already; one thread also keeps the decoder from holding frames back.
            stream.codec_context.thread_count = 1
            packets = [packet for packet in container.demux(stream) if packet.size]
            times = sorted(packet.pts for packet in packets if packet.pts is not None)
            index_of: dict[int | None, int] = {pts: k for k, pts in enumerate(times)}
            if all(packet.is_keyframe for packet in packets):
                packets = [packet for packet in packets if index_of.get(packet.pts) in wanted]
            decoded = {}
            for packet in [*packets, None]:
                for frame in stream.codec_context.decode(packet):
                    if (k := index_of.get(frame.pts)) in wanted:
                        decoded[k] = frame.to_ndarray(format="rgb24")
    except (FFmpegError, IndexError) as error:
        raise DecodeError(f"the clip's mp4 ({len(mp4)} bytes) cannot be decoded: {error}") from error
    if missing := sorted(wanted - decoded.keys()):
        raise DecodeError(f"the clip's mp4 has {len(index_of)} frames and no frame {missing[0]}")
    return decoded


def draw_clip(
    clip: Clip,
    frames: Iterable[RGB],
    arrays: Mapping[str, np.ndarray],
    envelope: Float32[np.ndarray, " T"] | None = None,
    vad: Bool[np.ndarray, " T"] | None = None,
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
    if clip.landmark_scheme != "none":
        _write_key(page, _HEADER_PX + grid_px + 23)
    axes = page.plot(_MARGIN_PX + 40, plot_y, width_px - 2 * _MARGIN_PX - 40, _PLOT_PX)
    _plot_speech(axes, clip, arrays, envelope, vad, shown)
    return page.png()


def draw_overview(clips: Sequence[ShownClip], *, num_more: int = 0) -> bytes:
    """Draw one row of frames per clip, with landmarks and a label: a release at a glance.

    ``num_more`` clips that are not drawn are counted at the bottom: decoding them would be for nothing, so
    the caller leaves out what goes beyond ``MAX_OVERVIEW_ROWS``. Returns PNG.
    """
    step = _OVERVIEW_TILE_PX + _GAP_PX
    width_px = 2 * _MARGIN_PX + _OVERVIEW_LABEL_PX + OVERVIEW_FRAMES * step - _GAP_PX
    footer_px = 32 if num_more or not clips else 0
    page = Page(width_px, 2 * _MARGIN_PX + len(clips) * step + footer_px)
    for position, shown in enumerate(clips):
        y = _MARGIN_PX + position * step
        _write_label(page, shown, y)
        for column in range(min(len(shown.frames), OVERVIEW_FRAMES)):
            x = _MARGIN_PX + _OVERVIEW_LABEL_PX + column * step
            page.image(x, y, shown.tile(column, _OVERVIEW_TILE_PX))
    if footer_px:
        more = f"+{num_more} more" if clips else "no clips"
        page.text(_MARGIN_PX, page.height_px - _MARGIN_PX - 8, more, color=FAINT)
    return page.png()


def draw_sheet(clips: Sequence[ShownClip]) -> bytes:
    """Draw the contact sheet of one domain: two columns of clips, a few frames of each, as JPEG.

    JPEG, since the sheets of all domains are part of one page that people open over a network.
    """
    step = _SHEET_TILE_PX + _GAP_PX
    cell_px, row_px = SHEET_FRAMES * step - _GAP_PX, _SHEET_TILE_PX + _SHEET_LABEL_PX
    num_columns = min(_SHEET_COLUMNS, max(1, len(clips)))
    width_px = num_columns * (cell_px + _SHEET_GAP_PX) - _SHEET_GAP_PX
    page = Page(width_px, max(1, -(-len(clips) // num_columns)) * row_px)
    for position, shown in enumerate(clips):
        row, column = divmod(position, num_columns)
        x, y = column * (cell_px + _SHEET_GAP_PX), row * row_px
        for number in range(min(len(shown.frames), SHEET_FRAMES)):
            page.image(x + number * step, y, shown.tile(number, _SHEET_TILE_PX))
        label_y = y + _SHEET_TILE_PX + 14
        facts = f"{shown.row.duration_s:.1f} s, {_heard(shown.row)}"
        facts_px = round(text_width_px(facts, 13))
        page.text(x, label_y, shortened(shown.name, cell_px - facts_px - 16, 14, bold=True), bold=True)
        page.text(x + cell_px, label_y, facts, size_px=13, color=FAINT, align="right")
    return page.jpeg()


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
        *_describe_optional(scores),
    ]
    for y, facts in ((58, where), (80, measured)):
        page.text(_MARGIN_PX, y, wrapped("  ·  ".join(facts), page.width_px - 2 * _MARGIN_PX, 14, 1)[0])


def _write_key(page: Page, y: float) -> None:
    """Say what the colours on the tiles mean, in those colours."""
    colors = {"points: sure": SURE_RGB, "unsure": UNSURE_RGB, **{f"{name} axis": rgb for name, rgb in AXES_RGB.items()}}
    x = _MARGIN_PX
    for label, rgb in colors.items():
        page.fill(x, round(y) - 5, 11, 11, rgb)
        page.text(x + 17, y, label, size_px=13)
        x += round(text_width_px(label, 13)) + 36


def describe_sync(sync: SyncScore) -> str:
    """The score in words: its numbers, or why there are none."""
    if sync.status == "unknown":
        return f"sync unknown: {sync.why or 'no reason given'}"
    return f"sync z {_figure(sync.z, '.1f')}, p {_figure(sync.p, '.3f')}, lag {_figure(sync.lag_frames, '+d')} fr"


def _describe_optional(scores: Scores) -> list[str]:
    """What was only measured where it was asked for."""
    facts = []
    if scores.stability is not None and scores.overlay is not None:
        facts.append(f"stability {scores.stability:.2f}, overlay {scores.overlay:.0f}")
    if scores.router is not None:
        facts.append(f"looks {scores.router.proposed} {scores.router.probability:.2f}")
    return facts


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _write_label(page: Page, shown: ShownClip, y: float) -> None:
    row, width_px = shown.row, _OVERVIEW_LABEL_PX - 24
    for line in wrapped(shown.name, width_px, 16, 2, bold=True):
        y += 22
        page.text(_MARGIN_PX, y, line, size_px=16, bold=True)
    size = f"{row.duration_s:.1f} s, cut from {row.scores.native_crop_px:.0f} px"
    for fact in (row.domain, size, _heard(row)):
        y += 21
        page.text(_MARGIN_PX, y, fact, color=INK if fact == row.domain else FAINT)
    (name,) = wrapped(row.clip_id, width_px, 11, 1)
    page.text(_MARGIN_PX, y + 21, name, size_px=11, color=FAINT)


def _heard(row: ManifestRow) -> str:
    sync = row.scores.sync
    known = f"sync z {_figure(sync.z, '.1f')}" if sync.status == "known" else "sync unknown"
    return f"speech {_figure(row.scores.speech_ratio, '.2f')}, {known}"


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
        why = "nothing reads this domain's mouths" if clip.landmark_scheme != "ibug68" else "no frame is sure enough"
        axes.plot([], [], " ", label=f"no mouth curve: {why}")
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
