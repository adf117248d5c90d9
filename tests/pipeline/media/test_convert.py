"""Pixels mean the same colour however a film stores them, and a part of a picture is that part of the whole."""

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clip.crop import cut_square
from pipeline.demo.portrait import photograph
from pipeline.media.frame import Frame
from pipeline.media.pixels import to_rgb
from schemas.base import Box

BT709, BT601 = 1, 5
LIMITED, FULL = 1, 2
FORMATS = ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "nv12", "gbrp", "rgb24"]


def rgb(width: int, height: int) -> np.ndarray:
    """A photograph with smooth colours: chroma at half resolution must not be what the tests measure."""
    return cv2.GaussianBlur(cv2.resize(photograph("astronaut"), (width, height)), (0, 0), 2)


def stored(image, pixels="yuv420p", matrix=BT709, extent=LIMITED, rotation=0) -> Frame:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(image, -rotation // 90)), format="rgb24")
    if pixels != "rgb24":
        picture = picture.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=extent)
    if pixels.startswith(("yuv", "nv")):
        picture.colorspace = matrix
        picture.color_range = extent
    return Frame(0, 0.0, picture, rotation, "film.mp4")


def part(image, box):
    return image[box[1] : box[3], box[0] : box[2]]


# --- the whole picture ---


@pytest.mark.parametrize("pixels", FORMATS)
@pytest.mark.parametrize("matrix", [BT709, BT601])
@pytest.mark.parametrize("size", [(192, 108), (101, 67), (384, 216)])
def test_colours_survive_storage_and_shrinking_averages(pixels, matrix, size):
    image = rgb(384, 216)
    pixels_read = stored(image, pixels, matrix).to_array(size, "rgb24").astype(float)
    truth = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    limit = 1.5 if pixels == "yuvj420p" else 0.6  # full range is rounded a level further
    assert np.abs((pixels_read - truth).mean(axis=(0, 1))).max() < limit
    assert np.abs(pixels_read - truth).mean() < 2 * limit


def test_full_range_is_read_as_full_range():
    image = rgb(384, 216)
    for pixels in ("yuv420p", "yuvj420p"):
        pixels_read = stored(image, pixels, extent=FULL).to_array((384, 216), "rgb24").astype(float)
        assert np.abs((pixels_read - image).mean(axis=(0, 1))).max() < 1.5  # read as limited range it is 10 off


def test_fine_stripes_become_their_mean():
    """Every second column white: sampling without averaging would show black, white or bands."""
    stripes = np.zeros((216, 384, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels_read = stored(stripes, "yuv444p").to_array((64, 36), "rgb24")
    assert np.abs(pixels_read[2:-2, 2:-2].astype(int) - 128).max() <= 2


# --- a part of it ---

BOXES = [(96, 40, 256, 200), (0, 0, 216, 216), (168, 0, 384, 216)]


@pytest.mark.parametrize("pixels", FORMATS)
@pytest.mark.parametrize("matrix", [BT709, BT601])
@pytest.mark.parametrize("box", BOXES)
def test_a_crop_is_that_part_of_the_whole(pixels, matrix, box):
    """To the level; only the outermost pixels differ, whose chroma has no neighbours to be interpolated with."""
    frame = stored(rgb(384, 216), pixels, matrix)
    size = box[2] - box[0], box[3] - box[1]
    pixels_read = frame.crop(box, (384, 216), size, "rgb24").astype(int)
    whole = part(frame.to_array((384, 216), "rgb24").astype(int), box)
    assert np.array_equal(pixels_read[3:-3, 3:-3], whole[3:-3, 3:-3])
    assert np.abs(pixels_read - whole).max() <= 8


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("box", [(20, 8, 100, 88), (0, 0, 120, 90), (100, 30, 160, 90), (21, 9, 100, 88)])
def test_a_crop_of_a_turned_picture_is_that_part_of_it(rotation, box):
    frame = stored(rgb(160, 90), "yuv420p", rotation=rotation)
    size = box[2] - box[0], box[3] - box[1]
    pixels_read = frame.crop(box, (160, 90), size, "bgr24").astype(int)
    whole = part(frame.to_array((160, 90), "bgr24").astype(int), box)
    assert np.array_equal(pixels_read[3:-3, 3:-3], whole[3:-3, 3:-3])


@settings(max_examples=60)
@given(st.data())
def test_boxes_that_divide_chroma_samples_are_cut_to_the_pixel(data):
    """Exactly, unless the last chroma sample reaches beyond the picture: then only the whole's chroma is stretched."""
    width, height = data.draw(st.integers(16, 99)), data.draw(st.integers(16, 99))
    x0, y0 = data.draw(st.integers(0, width - 9)), data.draw(st.integers(0, height - 9))
    box = (x0, y0, data.draw(st.integers(x0 + 8, width)), data.draw(st.integers(y0 + 8, height)))
    pixels, columns, rows = data.draw(st.sampled_from([("yuv420p", 2, 2), ("yuv422p", 2, 1), ("yuv410p", 4, 4)]))
    frame = stored(rgb(width, height), pixels)
    size = box[2] - box[0], box[3] - box[1]
    pixels_read = frame.crop(box, (width, height), size, "rgb24").astype(int)
    whole = part(frame.to_array((width, height), "rgb24").astype(int), box)
    limit = 32 if width % columns or height % rows else 0
    assert np.abs(pixels_read[4:-4, 4:-4] - whole[4:-4, 4:-4]).max(initial=0) <= limit


def test_a_crop_of_oblong_pixels_is_cut_from_square_ones():
    frame = stored(rgb(180, 144))
    pixels_read = frame.crop((31, 10, 131, 110), (240, 144), (100, 100), "rgb24")
    assert np.array_equal(pixels_read, part(frame.to_array((240, 144), "rgb24"), (31, 10, 131, 110)))


@pytest.mark.parametrize(("size_px", "how"), [(64, cv2.INTER_AREA), (256, cv2.INTER_CUBIC)])
def test_a_crop_is_scaled_as_opencv_scales_it(size_px, how):
    frame, box = stored(rgb(384, 216)), (96, 40, 256, 200)
    pixels_read = frame.crop(box, (384, 216), (size_px, size_px), "rgb24").astype(float)
    exact = part(frame.to_array((384, 216), "rgb24").astype(np.float32), box)
    truth = np.clip(cv2.resize(exact, (size_px, size_px), interpolation=how), 0, 255)
    assert np.abs(pixels_read - truth).mean() < 0.5
    assert np.abs((pixels_read - truth).mean(axis=(0, 1))).max() < 0.1


def test_what_lies_outside_the_picture_is_black():
    frame = stored(np.full((90, 160, 3), 200, np.uint8))
    cut = to_rgb(cut_square(frame, (160, 90), Box(x0=100, y0=-20, x1=200, y1=80), 50), 50)
    assert cut.shape == (50, 50, 3)
    assert cut[:9].max() == 0
    assert cut[:, 31:].max() == 0
    assert cut[11:, :29].min() > 190


def test_a_square_reaching_beyond_keeps_its_scale():
    """The face must not grow or shrink because a part of its square is padded."""
    frame = stored(rgb(384, 216), "yuv444p")
    inside = to_rgb(cut_square(frame, (384, 216), Box(x0=184, y0=16, x1=384, y1=216), 100), 100)
    beyond = to_rgb(cut_square(frame, (384, 216), Box(x0=224, y0=16, x1=424, y1=216), 100), 100)
    assert np.abs(inside[:, 20:].astype(int) - beyond[:, :80]).mean() < 0.5


# --- as clips store it ---


@pytest.mark.parametrize("pixels", FORMATS)
@pytest.mark.parametrize("matrix", [BT709, BT601])
@pytest.mark.parametrize("extent", [LIMITED, FULL])
@pytest.mark.parametrize("size_px", [96, 160, 256])
def test_what_is_encoded_has_the_colours_of_the_crop(pixels, matrix, extent, size_px):
    """Straight from one coding to the other where that keeps every colour on average, else by way of RGB."""
    frame, box = stored(rgb(384, 216), pixels, matrix, extent), (96, 40, 256, 200)
    coded = frame.crop_coded(box, (384, 216), (size_px, size_px))
    assert (coded.format.name, coded.width, int(coded.colorspace), int(coded.color_range)) == ("yuv420p", size_px, 1, 1)
    truth = frame.crop(box, (384, 216), (size_px, size_px), "rgb24").astype(float)
    pixels_read = to_rgb(coded, size_px).astype(float)
    assert np.abs((pixels_read - truth).mean(axis=(0, 1))).max() < 0.1
    assert np.abs(pixels_read - truth).mean() < 1.1


def test_a_plain_film_is_stored_to_the_bit():
    """Cut out and not scaled, no sample changes: neither its light nor its colour."""
    frame = stored(rgb(384, 216))
    coded = frame.crop_coded((96, 40, 256, 200), (384, 216), (160, 160)).to_ndarray()
    y, u, v = coded[:160], coded[160:200].reshape(80, 80), coded[200:].reshape(80, 80)
    whole = frame.picture.to_ndarray()
    assert np.array_equal(y, whole[40:200, 96:256])
    assert np.array_equal(u, whole[216:270].reshape(108, 192)[20:100, 48:128])
    assert np.array_equal(v, whole[270:].reshape(108, 192)[20:100, 48:128])
