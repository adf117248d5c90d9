"""``anitalk animate``: films come out whole, in step with their sound and at the driving film's rate."""

import re
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from flows.cli import application as cli
from pipeline.demo.portrait import photograph
from schemas.errors import AnitalkError
from tests.conftest import ROOT
from tests.helpers.animation import SMALL, stand_in_run
from tests.helpers.media import Coding, Sound, clicks, flashes, iter_moving_face, onsets_s, write_video
from training.film.film import cropped_film

SIZE = 160
NTSC = Fraction(30000, 1001)


pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose only checkpoint has random weights."""
    return stand_in_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(photograph("astronaut")).save(path)
    return path


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    """A square around a face."""
    path = tmp_path_factory.mktemp("face") / "face.png"
    Image.fromarray(photograph("astronaut")[20:220, 120:320]).save(path)
    return path


@pytest.fixture(scope="module")
def swaying(tmp_path_factory):
    """Two seconds of a face that sways, with a sound."""
    path = tmp_path_factory.mktemp("swaying") / "swaying.mp4"
    sound = Sound(clicks([0.5, 1.5], 2))
    write_video(path, (image for image, _ in iter_moving_face(50, (320, 240))), sound=sound)
    return path


def flashing(path, fps, num_frames, lit, *, start_s=Fraction(0), late_s=Fraction(0), rate_hz=44_100):
    """A square film that is white, and clicks, when ``lit`` frames begin."""
    sound = Sound(
        clicks([frame / fps - late_s for frame in lit], num_frames / fps - late_s, rate_hz), rate_hz, start_s + late_s
    )
    write_video(path, flashes(num_frames, lit, (SIZE, SIZE)), fps=fps, sound=sound, start_s=start_s)
    return path


def animate(run, source, driving, output, *more):
    places = ["--checkpoint", run, "--source", source, "--driving", driving, "-o", output, "--device", "cpu"]
    return cli.run(["animate", *map(str, (*places, *more))])


def seen(path):
    """Frames [N H W 3], their rate, and sound [L] with its rate."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        rate = video.average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return np.stack(frames), rate, None, 0
        stream = container.streams.audio[0]
        assert stream.codec_context.name == "aac"
        blocks = [(frame.time, frame.to_ndarray()[0]) for frame in container.decode(stream)]
    samples = np.zeros(round(blocks[-1][0] * stream.rate) + 4096, np.float32)
    for time_s, block in blocks:
        at = round(time_s * stream.rate)
        samples[max(at, 0) : at + len(block)] = block[max(-at, 0) :]
    return np.stack(frames), rate, samples, stream.rate


# ---- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [Fraction(25), NTSC, Fraction(12)], ids=str)
def test_pictures_and_sound_stay_in_step(fps, run, face, tmp_path):
    """Also where the file's clock begins late, the sound later still, and at another rate than is written."""
    lit = [5, 20]
    film = flashing(tmp_path / "film.mp4", fps, 30, lit, start_s=Fraction(3, 2), late_s=Fraction(1, 10))
    output = tmp_path / "out.mp4"
    assert animate(run, face, film, output, "--no-crop", "--side-by-side") == 0
    frames, rate, samples, rate_hz = seen(output)
    assert (len(frames), rate) == (30, fps)
    assert frames.shape[1:] == (SMALL.image_px, 3 * SMALL.image_px, 3)
    driving = frames[:, :, SMALL.image_px : 2 * SMALL.image_px].mean(axis=(1, 2, 3))
    assert np.flatnonzero(driving > 128).tolist() == lit
    assert rate_hz == 48_000
    assert onsets_s(samples, rate_hz) == pytest.approx([float(frame / fps) for frame in lit], abs=0.004)


def test_a_film_without_sound_gives_one_without(run, face, tmp_path):
    film = tmp_path / "film.mp4"
    write_video(film, flashes(8, [3], (SIZE, SIZE)))
    assert animate(run, face, film, tmp_path / "out.mp4", "--no-crop") == 0
    frames, rate, samples, _ = seen(tmp_path / "out.mp4")
    assert (frames.shape, rate, samples) == ((8, SMALL.image_px, SMALL.image_px, 3), 25, None)


def test_uneven_frames_are_laid_on_the_films_rate(tmp_path):
    """Each frame shows until the next: of three, the second for half the time."""
    path = tmp_path / "film.mp4"
    write_video(path, flashes(3, [1], (SIZE, SIZE)), times_s=[Fraction(0), Fraction(1, 5), Fraction(3, 5)])
    film = cropped_film(path, 32)
    bright = [float(picture.float().mean()) > 128 for picture in film.frames()]
    ticks = np.arange(len(bright)) / float(film.fps)
    assert bright == [0.1 <= tick < 0.4 for tick in ticks]
    assert [float(picture.float().mean()) > 128 for picture in film.frames()] == bright  # as often as asked


def test_a_frame_that_claims_to_be_days_away_is_not_waited_for(tmp_path):
    path = tmp_path / "film.mkv"
    write_video(path, flashes(2, [], (SIZE, SIZE)), times_s=[Fraction(0), Fraction(300_000)])
    with pytest.raises(AnitalkError, match="at most 14400 s"):
        list(cropped_film(path, 32).frames())


def test_a_turned_film_is_upright(tmp_path):
    half = np.zeros((SIZE, SIZE, 3), np.uint8)
    half[:, : SIZE // 2] = 200
    path = tmp_path / "turned.mp4"
    write_video(path, [half] * 5, coding=Coding(rotation_deg=90))
    picture = next(cropped_film(path, 32).frames()).float()
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert stored[:, : SIZE // 2].mean() > 150 > stored[:, SIZE // 2 :].mean()
    assert picture[:, :14].mean() > 150 > picture[:, 18:].mean()


def test_faces_are_found_followed_and_cut(run, photo, swaying, tmp_path, capsys):
    output = tmp_path / "out.mp4"
    assert animate(run, photo, swaying, output, "--side-by-side", "--relative", "--yaw", "50") == 0
    messages = capsys.readouterr().err
    assert "yaw 50°: pictures fall apart beyond yaw ±45°" in messages
    assert "motion is relative to its frame" in messages
    assert f"{output}: 50 frames at 25.000 fps" in messages
    frames, rate, samples, rate_hz = seen(output)
    assert (len(frames), rate) == (50, 25)
    assert onsets_s(samples, rate_hz) == pytest.approx([0.5, 1.5], abs=0.004)
    px = SMALL.image_px
    source, driving = frames[:, :, :px], frames[:, :, px : 2 * px]
    # One square for the whole film: the face moves in it, and each shows the middle of a face, which is skin.
    for crop in (source[0], driving[0], driving[25]):
        red, _, blue = crop[px // 3 : 2 * px // 3, px // 3 : 2 * px // 3].reshape(-1, 3).mean(axis=0)
        assert red > blue + 20
    assert list(tmp_path.iterdir()) == [output]


def test_of_a_film_with_cuts_the_longest_look_at_a_face_drives(run, photo, tmp_path, capsys):
    size = (320, 240)
    brief, long = (
        [image for image, _ in iter_moving_face(num, size, zoom=zoom)] for num, zoom in ((25, 1.0), (75, 1.4))
    )
    film, output = tmp_path / "film.mp4", tmp_path / "out.mp4"
    write_video(film, [*brief, *flashes(25, [], size), *long, *brief], sound=Sound(clicks([0.5, 4.0, 5.5], 6)))
    assert animate(run, photo, film, output) == 0
    messages = capsys.readouterr().err
    assert "film.mp4: one face is seen without a cut from 2." in messages
    assert " s of 6.00 s, and that part drives" in messages
    frames, _, samples, rate_hz = seen(output)
    assert 50 <= len(frames) < 75  # the builder keeps away from cuts, as it does with clips
    [start_s] = [float(word) for word in re.findall(r"from (2\.\d+) to", messages)]
    assert onsets_s(samples, rate_hz) == pytest.approx([4 - start_s], abs=0.01)


def test_every_pair_of_several_goes_into_a_folder(run, face, tmp_path):
    """The folder is made."""
    other = tmp_path / "other.png"
    Image.open(face).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other)
    film = tmp_path / "film.mp4"
    write_video(film, flashes(4, [2], (SIZE, SIZE)))
    folder = tmp_path / "made"
    assert animate(run, face, film, folder, "--no-crop", "--source", other) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["face-film.mp4", "other-film.mp4"]
    first, second = (seen(path)[0] for path in sorted(folder.iterdir()))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_the_same_inputs_give_the_same_bytes(run, face, tmp_path):
    film = flashing(tmp_path / "film.mp4", Fraction(25), 10, [2])
    for name in ("one.mp4", "two.mp4"):
        assert animate(run, face, film, tmp_path / name, "--no-crop") == 0
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


@pytest.mark.assets
def test_real_films_drive(run, photo, assets, tmp_path, capsys):
    """A talker in MPEG-1 with sound, and a small film at NTSC's rate without."""
    talker, phone = (assets / "video" / name for name in ("bbaf2n.mpg", "carphone_pristine.mp4"))
    folder = tmp_path / "made"
    assert animate(run, photo, talker, folder, "--driving", phone) == 0
    expected = {talker.stem: (75, Fraction(25)), phone.stem: (120, NTSC)}
    for stem, (num_frames, fps) in expected.items():
        frames, rate, samples, rate_hz = seen(folder / f"astronaut-{stem}.mp4")
        assert (len(frames), rate) == (num_frames, fps)
        assert (samples is None) == (stem == phone.stem)
        if samples is not None:
            assert len(samples) / rate_hz == pytest.approx(num_frames / fps, abs=0.15)
            assert np.abs(samples).max() > 0.05
    assert "75 frames at 25.000 fps" in capsys.readouterr().err


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wrong(tmp_path_factory, face, swaying):
    """Files that are not what they should be, by name."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "text.png").write_text("no picture")
    (folder / "text.mp4").write_text("no film")
    (folder / "empty.mp4").touch()
    (folder / "list.m3u8").write_text("#EXTM3U\n/etc/passwd\n")
    Image.new("RGB", (300, 200)).save(folder / "oblong.png")
    Image.new("RGB", (200, 200), (90, 120, 90)).save(folder / "green.png")
    Image.new("L", (9000, 64)).save(folder / "long.png")
    write_video(folder / "grey.mp4", flashes(12, [], (SIZE, SIZE)))
    write_video(folder / "oblong.mp4", flashes(3, [], (SIZE, 120)))
    (folder / "folder.mp4").mkdir()
    (folder / "other").mkdir()
    (folder / "other" / "state.json").write_text('{"version": 99}')
    return folder


MISTAKES = {
    "no checkpoint": ({"run": "/nowhere"}, [], "/nowhere is no checkpoint and no folder of a run"),
    "no checkpoint yet": ({"run": "."}, [], "is no checkpoint of this trainer"),
    "another checkpoint": ({"run": "other"}, [], "is not of checkpoint version 1"),
    "no source": ({"source": "nothing.png"}, [], "nothing.png is not there: name an image"),
    "source is text": ({"source": "text.png"}, [], "text.png is no image that can be read"),
    "source too long": ({"source": "long.png"}, [], "long.png is 9000×64 px: 16 to 8192 px a side are accepted"),
    "no face in the source": ({"source": "green.png"}, [], "no face of the domain real was found in green.png"),
    "no face in the film": ({"driving": "grey.mp4"}, [], "no face of the domain real was found in the 12 frames"),
    "no film": ({"driving": "nothing.mp4"}, [], "nothing.mp4 is not there"),
    "film is text": ({"driving": "text.mp4"}, [], "text.mp4 is not a media file that can be opened"),
    "film is a list": ({"driving": "list.m3u8"}, ["--no-crop"], "list.m3u8 is no film that can be opened"),
    "film is empty": ({"driving": "empty.mp4"}, ["--no-crop"], "empty.mp4 is no film that can be opened"),
    "source not square": ({"source": "oblong.png"}, ["--no-crop"], "oblong.png is 300×200 px and not cropped"),
    "film not square": ({"driving": "oblong.mp4"}, ["--no-crop"], "oblong.mp4 is 160×120 px and not cropped"),
    "no folder": ({"output": "/nowhere/out.mp4"}, [], "/nowhere is no folder"),
    "output is a folder": ({"output": "folder.mp4"}, [], "folder.mp4 is a folder: name an .mp4 file in it"),
    "output of another kind": ({"output": "out.avi"}, [], "out.avi is no .mp4 file"),
    "two of one name": ({"output": "made"}, ["--source", "same"], "two pairs would both be face-swaying.mp4"),
    "multiplier": ({}, ["--multiplier", "inf"], "motion_multiplier: Input should be a finite number, found inf"),
    "domain": ({}, ["--driving-domain", "cats"], "there is no domain 'cats': choose from real, disney_human"),
    "profile": ({}, ["--profile", "other"], "profile: Input should be 'embedded' or 'standard'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence_and_write_nothing(mistake, run, face, swaying, wrong, tmp_path, capsys):
    changes, more, sentence = MISTAKES[mistake]
    given = {"run": run, "source": face, "driving": swaying, "output": tmp_path / "out.mp4"}
    given |= {name: value if value.startswith("/") else wrong / value for name, value in changes.items()}
    before = sorted(wrong.iterdir())
    code = animate(
        given["run"],
        given["source"],
        given["driving"],
        given["output"],
        *(face if option == "same" else option for option in more),
    )
    assert code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("anitalk: ")]
    assert sentence in line
    assert not list(tmp_path.iterdir())
    assert sorted(wrong.iterdir()) == before


def test_a_film_that_breaks_off_leaves_nothing(run, face, tmp_path, monkeypatch):
    """What is there already stays, too."""
    output = tmp_path / "out.mp4"
    output.write_text("an earlier one")
    film = tmp_path / "film.mp4"
    write_video(film, flashes(40, [], (SIZE, SIZE)))
    frames = training_frames(monkeypatch, stop_after=5)
    with pytest.raises(RuntimeError, match="broken off"):
        animate(run, face, film, output, "--no-crop")
    assert frames == [5]
    assert output.read_text() == "an earlier one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "out.mp4"]


def training_frames(monkeypatch, stop_after):
    """Let the networks fail after some frames."""
    from training.recipes.anytalk.model import AnyTalk

    num_rendered, real = [0], AnyTalk.render

    def render(self, source, points):
        if num_rendered[0] == stop_after:
            raise RuntimeError("broken off")
        num_rendered[0] += 1
        return real(self, source, points)

    monkeypatch.setattr(AnyTalk, "render", render)
    return num_rendered


BUILDERS = ("cv2", "scipy", "mediapipe", "ray", "prefect", "transformers", "skimage", "matplotlib", "onnxruntime")


def test_the_train_extra_is_enough_for_squares(run, face, tmp_path):
    film, output = tmp_path / "film.mp4", tmp_path / "out.mp4"
    write_video(film, flashes(3, [1], (SIZE, SIZE)))
    places = ["--checkpoint", run, "--source", face, "--driving", film, "-o", output]
    program = f"import sys; sys.modules |= dict.fromkeys({BUILDERS!r}); from flows import cli; sys.exit(cli.run({{}}))"
    for more, code, sentence in (
        (["--no-crop"], 0, "3 frames at 25.000 fps"),
        (
            [],
            2,
            "(or its wheel file in place of the dot), or crop the inputs to squares around a face and say --no-crop",
        ),
    ):
        line = program.format(["animate", *map(str, places), *more])
        done = subprocess.run([sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
