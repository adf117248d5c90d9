"""The demo's programme: who appears in which film, and what each shot is there to show.

Each film holds something to accept and something to turn down: a still with a voice over it, a listener, two
heads, a shot too short, a cat. Two domains, four identities, four rates, and one film whose sound comes late.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from pipeline.demo.mesh import Proportions
from pipeline.demo.portrait import Camera
from pipeline.demo.scenes import Actor, HeadTake, PhotoTake, PortraitTake, Size, Take
from pipeline.demo.solids import Character
from pipeline.demo.speech import Voice


@dataclass(frozen=True, slots=True)
class DemoShot:
    """One take: seconds, its sound, and how it follows the shot before.

    A ``fade`` takes ``join_frames`` down to black and as many up again; a ``dissolve`` overlaps that many frames.
    """

    take: Take
    duration_s: float
    sound: Literal["speech", "silence", "chords"] = "speech"
    join: Literal["cut", "fade", "dissolve"] = "cut"
    join_frames: int = 0
    expect: str = "accepted"


@dataclass(frozen=True, slots=True)
class DemoFilm:
    """One source of the demo. ``lag_s`` is how late the sound comes."""

    id: str
    title: str
    domain: str
    license: str
    credit: str
    fps: Fraction
    size: Size
    voice: Voice
    seed: int
    shots: tuple[DemoShot, ...]
    lag_s: float = 0.0


ADA = Character(
    proportions=Proportions(width=0.95, jaw_width=0.86, nose_size=0.85, eye_size=1.25, lip_size=1.1),
    skin=(240, 200, 176),
    lips=(200, 90, 100),
    hair=(176, 96, 40),
    iris=(60, 110, 90),
    cloth=(60, 110, 80),
    hair_cm=9.0,
)
BRUNO = Character(
    proportions=Proportions(width=1.05, jaw_width=1.08, nose_size=1.25, lip_size=1.25),
    skin=(128, 84, 60),
    lips=(128, 64, 62),
    hair=(26, 22, 22),
    iris=(50, 34, 24),
    cloth=(150, 60, 50),
    hair_cm=-1.0,
)
CLEO = Character(
    proportions=Proportions(height=1.04, jaw_width=0.96, nose_size=1.05, eye_size=1.1),
    skin=(216, 164, 128),
    lips=(170, 76, 84),
    hair=(60, 40, 34),
    iris=(70, 84, 120),
    cloth=(84, 70, 130),
    hair_cm=4.5,
)

_RENDERED = "Rendered by AniTalk builder (pipeline/demo); synthetic voice"
_PHOTOS = (
    "Astronaut Eileen Collins, NASA (public domain); coffee by Rachel Michetti (CC0); rocket by SpaceX (public "
    "domain); Hubble eXtreme Deep Field, NASA (public domain); all by way of scikit-image; synthetic voice"
)
DEMO_FILMS: tuple[DemoFilm, ...] = (
    DemoFilm(
        id="astronaut",
        title="The astronaut",
        domain="real",
        license="CC-PDM-1.0",
        credit=_PHOTOS,
        fps=Fraction(25),
        size=(960, 540),
        voice=Voice(pitch_hz=195.0, formant_scale=1.15),
        seed=11,
        shots=(
            DemoShot(PortraitTake(Camera((236.0, 150.0), 2.25)), 6.0),
            DemoShot(PhotoTake("coffee", Camera((290, 200), 1.72), Camera((310, 190), 1.95, 4)), 2.0, expect="no face"),
            DemoShot(PortraitTake(Camera((216.0, 140.0), 3.0)), 6.4),
            DemoShot(
                PhotoTake("rocket", Camera((320, 190), 1.5), Camera((320, 250), 1.72)),
                2.2,
                "silence",
                "fade",
                10,
                "no face",
            ),
            DemoShot(
                PhotoTake("hubble_deep_field", Camera((420, 400), 1.2), Camera((560, 450), 1.35, -6)),
                2.4,
                "silence",
                "dissolve",
                20,
                "no face",
            ),
            DemoShot(PortraitTake(Camera((226.0, 130.0), 2.62), shake=0.0, talks=False), 3.2, expect="a still"),
        ),
    ),
    DemoFilm(
        id="mesh-ada",
        title="Ada explains",
        domain="mesh",
        license="CC0-1.0",
        credit=_RENDERED,
        fps=Fraction(30000, 1001),
        size=(960, 540),
        voice=Voice(pitch_hz=215.0, formant_scale=1.17),
        seed=21,
        shots=(
            DemoShot(HeadTake((Actor("ada", ADA, (0.46, 0.44), 15.0),), (150, 160, 176)), 5.6),
            DemoShot(HeadTake((Actor("ada", ADA, (0.56, 0.47), 19.0, phase=0.35),), (178, 150, 128)), 5.2),
        ),
    ),
    DemoFilm(
        id="mesh-bruno",
        title="Bruno at the window",
        domain="mesh",
        license="CC0-1.0",
        credit=_RENDERED,
        fps=Fraction(24),
        size=(960, 540),
        voice=Voice(pitch_hz=105.0, formant_scale=0.97, syllables_hz=4.2),
        seed=31,
        shots=(
            DemoShot(HeadTake((Actor("bruno", BRUNO, (0.52, 0.44), 15.5, phase=0.2),), (120, 150, 140)), 5.5),
            DemoShot(
                HeadTake((Actor("bruno", BRUNO, (0.42, 0.46), 18.0, phase=0.6, talks=False),), (88, 96, 124)),
                4.6,
                "silence",
                expect="no speech",
            ),
            DemoShot(
                HeadTake((Actor("bruno", BRUNO, (0.5, 0.44), 16.5, phase=0.8),), (190, 168, 120)),
                5.0,
                "speech",
                "dissolve",
                16,
            ),
        ),
    ),
    DemoFilm(
        id="mesh-cleo",
        title="Cleo and the late sound",
        domain="mesh",
        license="CC0-1.0",
        credit=_RENDERED,
        fps=Fraction(25),
        size=(540, 960),
        voice=Voice(pitch_hz=175.0, formant_scale=1.1, syllables_hz=4.9),
        seed=41,
        lag_s=0.12,
        shots=(
            DemoShot(HeadTake((Actor("cleo", CLEO, (0.5, 0.4), 15.0, phase=0.1),), (170, 140, 160)), 5.8),
            DemoShot(
                HeadTake(
                    (
                        Actor("bruno", BRUNO, (0.37, 0.38), 9.0, facing_deg=-10.0, phase=0.5, talks=False),
                        Actor("cleo", CLEO, (0.61, 0.43), 9.8, facing_deg=10.0),
                    ),
                    (130, 138, 150),
                ),
                3.2,
                expect="two people",
            ),
            DemoShot(
                HeadTake((Actor("cleo", CLEO, (0.45, 0.42), 17.0, phase=0.9),), (96, 120, 110)), 1.2, expect="too short"
            ),
            DemoShot(HeadTake((Actor("cleo", CLEO, (0.53, 0.4), 16.0, phase=0.45),), (186, 176, 150)), 5.0),
        ),
    ),
    DemoFilm(
        id="cat",
        title="Chelsea the cat",
        domain="real",
        license="CC0-1.0",
        credit="Chelsea by Stefan van der Walt (CC0), by way of scikit-image; synthetic chords",
        fps=Fraction(30),
        size=(960, 540),
        voice=Voice(),
        seed=51,
        shots=(
            DemoShot(
                PhotoTake("chelsea", Camera((215, 145), 2.17), Camera((235, 150), 2.4, 3)),
                4.0,
                "chords",
                expect="no face",
            ),
            DemoShot(
                PhotoTake("chelsea", Camera((250, 110), 3.75, -4), Camera((230, 130), 3.45)),
                3.6,
                "chords",
                expect="no face",
            ),
        ),
    ),
)


def shorten(film: DemoFilm, duration_s: float) -> DemoFilm:
    """The same film with no shot longer than ``duration_s``: for tests and a first look."""
    shots = tuple(replace(shot, duration_s=min(shot.duration_s, duration_s)) for shot in film.shots)
    return replace(film, shots=shots)
