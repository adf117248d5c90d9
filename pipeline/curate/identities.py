"""Tell the people of one source apart, and find those who are seen in several.

Without a face network an appearance print (see ``schemas.prints``) is all there is, and it knows lighting and pose
almost as well as faces. So it is asked only within one source, and when in doubt one person becomes
two: that costs a pair of clips, while two people taken for one teach a model to swap faces. Face embeddings know people
across sources too. There the doubt goes the other way: it ties sources for the split, and whom it ties are not said to
be one person.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from pipeline.curate.typed_scipy import complete_linkage
from schemas.base import MAX_ID_LENGTH, TimeSpan

_NEVER = 1e6  # a distance that no limit reaches
_ROWS = 2048  # people compared with all others at a time: 160 MB for 20,000 of them


@dataclass(frozen=True, slots=True)
class Sighting:
    """One clip of a source: which track of which shot it follows, when, and what the face looks like.

    ``face`` is a vector of length 1, empty where the face could not be looked at: the appearance print of every clip of
    a source, or the embedding of every one. The two are never compared.
    """

    clip_id: str
    shot_index: int
    track_index: int
    span: TimeSpan
    face: Float[np.ndarray, " D"]


def identify(
    source_id: str, sightings: Iterable[Sighting], max_distance: float, taken: Collection[str] = ()
) -> dict[str, str]:
    """Name the person in every clip of one source.

    Clips of one track show one person. Tracks are joined while the farthest two faces of a person stay within
    ``max_distance`` (complete linkage), and never when they are seen at the same time in one shot. A track without
    a face remains alone.

    Args:
        source_id: the source's id, which the first person met in it gets.
        sightings: all clips of the source, in any order.
        max_distance: between two faces of a person, Euclidean.
        taken: ids of other sources, which no person may get.

    Returns:
        By clip id: ``source_id`` for the person met first, ``source_id-2`` for the second, and so on.
    """
    tracks: defaultdict[int, list[Sighting]] = defaultdict(list)
    for sighting in sorted(sightings, key=lambda sighting: (sighting.span.start_s, sighting.clip_id)):
        tracks[sighting.track_index].append(sighting)
    if not tracks:
        return {}
    people = _people(list(tracks.values()), max_distance)
    names = _names(source_id, len(set(people)), taken)
    order = {person: number for number, person in enumerate(dict.fromkeys(people))}
    return {
        sighting.clip_id: names[order[person]]
        for person, track in zip(people, tracks.values(), strict=True)
        for sighting in track
    }


def distance_of(cosine: float) -> float:
    """How far apart two vectors of length 1 are whose cosine is given."""
    return math.sqrt(max(0.0, 2 - 2 * cosine))


def seen_in_both(
    people: Mapping[tuple[str, str], Sequence[Float[np.ndarray, " D"]]], min_cosine: float
) -> list[tuple[str, str]]:
    """Pairs of sources in which, as far as can be told, one person is seen.

    Args:
        people: by source and identity, the embeddings of the clips; a person is compared by their mean direction.
        min_cosine: from which on two people count as one.
    """
    named = sorted(people)
    if not named:
        return []
    faces = np.stack([_mean_face(people[name]) for name in named]).astype(np.float32)
    pairs: set[tuple[str, str]] = set()
    for start in range(0, len(named), _ROWS):
        near = np.argwhere(faces[start : start + _ROWS] @ faces.T >= min_cosine)
        pairs |= {(named[start + int(a)][0], named[int(b)][0]) for a, b in near}
    return sorted((a, b) for a, b in pairs if a < b)


def _people(tracks: Sequence[Sequence[Sighting]], max_distance: float) -> list[int]:
    """A number per track, the same for tracks of one person."""
    if len(tracks) == 1:
        return [0]
    distances = _distances([_face_of(track) for track in tracks])
    by_shot: defaultdict[int, list[int]] = defaultdict(list)
    for number, track in enumerate(tracks):
        by_shot[track[0].shot_index].append(number)
    for mates in by_shot.values():
        for i, number in enumerate(mates):
            for other in mates[i + 1 :]:
                if _together(tracks[number], tracks[other]):
                    distances[number, other] = distances[other, number] = _NEVER
    return complete_linkage(distances, max_distance)


def _face_of(track: Sequence[Sighting]) -> Float64[np.ndarray, " D"] | None:
    """The mean face of a track; None where none of its clips has one."""
    faces = [sighting.face for sighting in track if len(sighting.face)]
    return _mean_face(faces) if faces else None


def _mean_face(faces: Sequence[Float[np.ndarray, " D"]]) -> Float64[np.ndarray, " D"]:
    mean = np.mean([face.astype(np.float64) for face in faces], axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-9)


def _distances(faces: Sequence[Float64[np.ndarray, " D"] | None]) -> Float64[np.ndarray, "N N"]:
    """Euclidean distances; nothing is near a track without a face."""
    num = len(faces)
    distances = np.full((num, num), _NEVER)
    known = [number for number, face in enumerate(faces) if face is not None]
    if known:
        seen = np.stack([face for face in faces if face is not None])
        squares = np.square(seen).sum(axis=1)
        between = squares[:, None] + squares[None, :] - 2 * seen @ seen.T
        distances[np.ix_(known, known)] = np.sqrt(np.maximum(between, 0.0))
    np.fill_diagonal(distances, 0.0)
    return distances


def _together(a: Sequence[Sighting], b: Sequence[Sighting]) -> bool:
    """Whether two tracks are seen at the same time."""
    return any(x.span.start_s < y.span.stop_s and y.span.start_s < x.span.stop_s for x in a for y in b)


def _names(source_id: str, num: int, taken: Collection[str]) -> list[str]:
    names, number = [source_id], 1
    while len(names) < num:
        number += 1
        ending = f"-{number}"
        name = source_id[: MAX_ID_LENGTH - len(ending)] + ending
        if name not in taken:
            names.append(name)
    return names
