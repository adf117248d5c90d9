"""Films small enough to build in seconds, and a workspace that was built from them once."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from pipeline.demo.films import ADA, DemoFilm, DemoShot
from pipeline.demo.portrait import Camera
from pipeline.demo.scenes import Actor, HeadTake, PhotoTake, PortraitTake
from pipeline.demo.sources import MANIFEST, render_demo
from pipeline.demo.speech import Voice

SIZE = (320, 256)
TALKER = DemoFilm(
    id="talker",
    title="The small astronaut",
    domain="real",
    license="CC-PDM-1.0",
    credit="NASA, by way of scikit-image; synthetic voice",
    fps=Fraction(25),
    size=SIZE,
    voice=Voice(pitch_hz=195.0, formant_scale=1.15),
    seed=3,
    shots=(DemoShot(PortraitTake(Camera((226.0, 140.0), 1.25)), 3.6),),
)
HEAD = DemoFilm(
    id="head",
    title="The small head",
    domain="mesh",
    license="CC0-1.0",
    credit="Rendered by AniTalk builder; synthetic voice",
    fps=Fraction(24),
    size=SIZE,
    voice=Voice(pitch_hz=215.0, formant_scale=1.17),
    seed=5,
    shots=(
        DemoShot(HeadTake((Actor("ada", ADA, (0.5, 0.46), 8.5, turn_deg=10.0),), (150, 160, 176)), 3.4),
        DemoShot(PhotoTake("coffee", Camera((290, 200), 0.8), Camera((310, 190), 0.9)), 1.2, "silence"),
    ),
)
CAT = DemoFilm(
    id="cat",
    title="The small cat",
    domain="real",
    license="CC0-1.0",
    credit="Chelsea by Stefan van der Walt (CC0), by way of scikit-image",
    fps=Fraction(30),
    size=SIZE,
    voice=Voice(),
    seed=7,
    shots=(DemoShot(PhotoTake("chelsea", Camera((215, 145), 1.0), Camera((235, 150), 1.1)), 1.6, "chords"),),
)
FILMS = (TALKER, HEAD, CAT)
