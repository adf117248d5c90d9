"""Pictures and animations in a list of films are refused by what they are; films never are."""

import numpy as np
import pytest
from PIL import Image

from pipeline.fetch.probe import probe
from schemas.config import ProbeConfig
from schemas.errors import DecodeError, UsageError
from schemas.pictures import not_a_film, picture_kind
from tests.helpers.media import Coding, iter_numbered, write_video
from training.film.film import cropped_film

ANIMATIONS = {"gif": "a GIF animation", "png": "a PNG animation", "webp": "a WebP animation"}
PICTURES = {
    "gif": "a GIF picture",
    "png": "a PNG picture",
    "webp": "a WebP picture",
    "jpg": "a JPEG picture",
    "bmp": "a BMP picture",
    "tiff": "a TIFF picture",
    "avif": "an AVIF picture",
}


def picture(path, num_frames: int, **options):
    images = [Image.fromarray(image) for image in iter_numbered(num_frames, (160, 96))]
    more = {"save_all": True, "append_images": images[1:], "duration": 40} if num_frames > 1 else {}
    images[0].save(path, **more, **options)
    return path


@pytest.mark.parametrize("suffix", ANIMATIONS)
@pytest.mark.parametrize("options", [{}, {"loop": 0}], ids=["once", "for ever"])
@pytest.mark.parametrize("named", ["", ".mp4"])
def test_animations_are_told_how_to_become_films(tmp_path, suffix, options, named):
    path = picture(tmp_path / f"moves.{suffix}", 8, **options)
    path = path.rename(f"{path}{named}")
    with pytest.raises(DecodeError, match="no film: convert it to mp4") as caught:
        probe(path, "film", "ab" * 32, ProbeConfig())
    assert str(caught.value).startswith(f"{path.name} is {ANIMATIONS[suffix]}, no film")
    with pytest.raises(UsageError, match=ANIMATIONS[suffix]):
        cropped_film(path, 64)


@pytest.mark.parametrize("suffix", PICTURES)
def test_pictures_are_named(tmp_path, suffix):
    path = picture(tmp_path / f"still.{suffix}", 1)
    with pytest.raises(DecodeError) as caught:
        probe(path, "film", "ab" * 32, ProbeConfig())
    assert str(caught.value) == f"{path.name} is {PICTURES[suffix]}, no film: name a film"


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_a_telephones_photograph(tmp_path, brand):
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(200))
    assert picture_kind(path) == "a HEIC picture"


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi", "ts", "flv", "mpg"])
def test_no_film_is_a_picture(tmp_path, suffix):
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "mpg": "mpeg2video"}.get(suffix, "libx264")
    write_video(tmp_path / f"film.{suffix}", iter_numbered(5, (160, 96)), coding=Coding(codec, bframes=0))
    assert not_a_film(tmp_path / f"film.{suffix}") is None


@pytest.mark.parametrize("length", range(33))
def test_beginnings_alone_do_no_harm(tmp_path, length):
    """However short a file is, it is looked at without failing."""
    starts = [b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8X", b"BM", b"\0\0\0\x18ftypheic", b"\xff\xd8\xff"]
    path = tmp_path / "stub"
    for start in [*starts, np.random.default_rng(length).bytes(40)]:
        path.write_bytes((start + bytes(40))[:length])
        assert not_a_film(path) is None or "no film" in str(not_a_film(path))


@pytest.mark.assets
def test_no_film_of_the_assets_is_a_picture(assets):
    films = [path for folder in ("video", "more/video") for path in (assets / folder).iterdir()]
    assert len(films) > 50
    assert not [path.name for path in films if not_a_film(path)]
