"""How well shot boundaries are found, beside PySceneDetect's detectors as they come.

Truth comes from hand-labelled films, on one of which our settings were chosen, and from the demo's films, which know
where they were joined. A fade out that a fade in follows is one transition, as in
TRECVID's shot boundary task (Smeaton et al., Computer Vision and Image Understanding 114, 2010): whoever names the
black between them once has named it.
"""

import csv
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
from scenedetect import SceneManager, open_video
from scenedetect.detector import SceneDetector
from scenedetect.detectors import AdaptiveDetector, ContentDetector, HistogramDetector, ThresholdDetector

from pipeline.analyse.shots import ShotDetector
from pipeline.demo.sources import ShotTruth
from pipeline.fetch.probe import probe
from pipeline.media.decode import fit_within, iter_frames
from schemas.accuracy import ShotRow
from schemas.config import ProbeConfig, ShotConfig
from schemas.errors import UsageError

OURS = "anitalk"
# At their defaults, the least length of a shot (15 frames) included.
BASELINES: tuple[type[SceneDetector], ...] = (AdaptiveDetector, ContentDetector, HistogramDetector, ThresholdDetector)
# Frames beside a transition in which a boundary still meets it.
CUT_SLACK, GRADUAL_SLACK = 1, 8
_DOUBT = "AMBIGUOUS"
_NO_TRANSITION = "not_a_cut"


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a boundary should lie: frames ``first`` to ``last``, both included; equal at a cut.

    ``doubtful`` ones are neither asked for nor held against who finds them.
    """

    first: int
    last: int
    doubtful: bool = False

    def meets(self, frame: int) -> bool:
        """Whether a boundary there names this transition."""
        slack = GRADUAL_SLACK if self.last > self.first else CUT_SLACK
        return self.first - slack <= frame <= self.last + slack


def shot_rows(assets: Path, rendered: Sequence[tuple[Path, Sequence[ShotTruth]]]) -> list[ShotRow]:
    """Our detector and the baselines on every film of ``truth/shots.csv`` and on rendered films.

    Args:
        assets: the folder of media and truth.
        rendered: films, and the truth about their shots.

    Raises:
        UsageError: when the labels or a film are missing.
    """
    films = [(assets / "video" / name, truth, "labels") for name, truth in labelled_transitions(assets).items()]
    films += [(path, joins(spans), "exact") for path, spans in rendered]
    return [_row(path, by, truth, detector) for path, truth, by in films for detector in (None, *BASELINES)]


def labelled_transitions(assets: Path) -> dict[str, list[Transition]]:
    """The labelled transitions by film, in order; a film with none has only traps.

    Raises:
        UsageError: when the labels are missing.
    """
    path = assets / "truth" / "shots.csv"
    if not path.is_file():
        raise UsageError(f"the labels {path} are missing: check the folder of assets")
    films: dict[str, list[tuple[str, Transition]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows = films.setdefault(row["file"], [])
            if row["kind"] != _NO_TRANSITION:
                extent = int(row["start_frame"]), int(row["end_frame"])
                rows.append((row["kind"], Transition(*extent, doubtful=_DOUBT in row["note"])))
    return {film: with_dips_joined(rows) for film, rows in films.items()}


def with_dips_joined(rows: Iterable[tuple[str, Transition]]) -> list[Transition]:
    """Transitions in order of their kinds and frames, a fade out and the fade in after it as one."""
    joined: list[Transition] = []
    last_kind = ""
    for kind, row in sorted(rows, key=lambda pair: pair[1].first):
        if (last_kind, kind) == ("fade_out", "fade_in"):
            out = joined.pop()
            joined.append(Transition(out.first, row.last, out.doubtful or row.doubtful))
        else:
            joined.append(row)
        last_kind = kind
    return joined


def joins(spans: Sequence[ShotTruth]) -> list[Transition]:
    """The joins of a rendered film."""
    return [
        Transition(span.frame, span.frame) if span.join == "cut" else Transition(span.start_frame, span.stop_frame - 1)
        for span in spans[1:]
    ]


def count_hits(truth: Sequence[Transition], boundaries: Sequence[int]) -> tuple[int, int, int]:
    """Known transitions, boundaries that count, and pairs of one of each, as many as there can be.

    A second boundary in a transition is one too many; one that only a doubtful transition explains doesn't count.
    Taking the transition that ends first, and for it the first boundary that is left, gives the most pairs: whatever
    ends later and could have used that boundary can use any other that the first one could.
    """
    certain = sorted((transition for transition in truth if not transition.doubtful), key=_end)
    left, hits = sorted(boundaries), 0
    for transition in certain:
        met = next((frame for frame in left if transition.meets(frame)), None)
        if met is not None:
            left.remove(met)
            hits += 1
    doubtful = [transition for transition in truth if transition.doubtful]
    false = sum(not any(transition.meets(frame) for transition in doubtful) for frame in left)
    return len(certain), hits + false, hits


def _end(transition: Transition) -> int:
    return transition.last + (GRADUAL_SLACK if transition.last > transition.first else CUT_SLACK)


def _row(path: Path, by: str, truth: Sequence[Transition], baseline: type[SceneDetector] | None) -> ShotRow:
    if not path.is_file():
        raise UsageError(f"the labelled film {path} is missing: check the folder of assets")
    began = time.process_time()
    num_frames, boundaries = _own_boundaries(path) if baseline is None else _boundaries_of(path, baseline())
    spent = time.process_time() - began
    num_true, num_found, num_hits = count_hits(truth, boundaries)
    return ShotRow(
        media=f"rendered {path.stem}" if by == "exact" else path.name,
        truth=by,
        detector=baseline.__name__ if baseline else OURS,
        num_true=num_true,
        num_found=num_found,
        num_hits=num_hits,
        ms_per_frame=round(1000 * spent / max(num_frames, 1), 2),
    )


def _own_boundaries(path: Path) -> tuple[int, list[int]]:
    """Frames of the film, and the first frames of its shots but the first."""
    config = ShotConfig()
    video = probe(path, "labelled", "0" * 64, ProbeConfig())
    detector = ShotDetector(config, video.average_fps)
    size = fit_within(video.width_px, video.height_px, config.cut_side_px)
    num_frames, boundaries = 0, []
    for number, frame in enumerate(iter_frames(path, video)):
        boundaries += detector.push(number, frame.time_s, frame.to_array(size, "bgr24"))
        num_frames = number + 1
    boundaries += detector.finish()
    return num_frames, [boundary.frame for boundary in boundaries if 0 < boundary.frame < num_frames]


def _boundaries_of(path: Path, detector: SceneDetector) -> tuple[int, list[int]]:
    """The same by a detector of PySceneDetect, through its own reader."""
    cv2.setNumThreads(1)
    logging.getLogger("pyscenedetect").setLevel(logging.WARNING)  # it announces every film
    video, manager = open_video(str(path)), SceneManager()
    manager.add_detector(detector)
    num_frames = manager.detect_scenes(video)
    return num_frames, [start.frame_num for start, _ in manager.get_scene_list()[1:]]
