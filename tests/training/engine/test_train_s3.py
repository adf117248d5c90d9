"""``anitalk train`` on a release in an object store: killed, resumed and badly served, it ends in the very weights."""

import signal

import fsspec
import pytest
import yaml
from s3fs import S3FileSystem

from flows import cli
from schemas.errors import EXIT_FAULTS
from tests.helpers.mishaps import FaultyProxy
from tests.helpers.pair_shards import numbered_release, shards_of
from tests.helpers.stores import bucket, object_store
from tests.helpers.web import serving
from tests.training.engine.test_train_cli import SETTINGS, command, ended, last_of, same

STEPS = 8
MISHAPS = ("503", "reset", "", "cut", "late", "")


pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    counts = {"mesh": 4, "real": 4}
    return numbered_release(tmp_path_factory.mktemp("release"), counts, min_shards=4, test={"real": 1})


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    length = {"pretrain": {"num_pairs": 2 * STEPS, "learning_rate": 0.001, "domains": []}}
    more = {"validate_every": STEPS, "images_every": STEPS, "num_validation_pairs": 2}
    path.write_text(yaml.safe_dump({**SETTINGS, **length, **more}))
    return path


@pytest.fixture(scope="module")
def whole(release, config, tmp_path_factory):
    """The newest checkpoint of a run that read the release from the disk and that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert cli.run(command(release, config, folder)) == 0
    return last_of(folder)


@pytest.fixture
def proxied(release, monkeypatch):
    """The release in an object store, and a way to put a proxy before it that suffers some mishaps."""
    with object_store(monkeypatch) as upstream, serving() as server:
        uri = f"{bucket()}/v1"
        fsspec.filesystem("s3").put(f"{release}/", f"{uri}/", recursive=True)

        def behind(*mishaps):
            server.answers = proxy = FaultyProxy(upstream, *mishaps)
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url("").rstrip("/"))
            S3FileSystem.clear_instance_cache()
            return uri, proxy

        yield behind


@pytest.mark.parametrize(
    "mishaps", [pytest.param((), marks=pytest.mark.slow, id="well"), pytest.param(MISHAPS, id="badly")]
)
def test_killed_and_resumed_from_a_store_it_ends_in_the_very_weights(
    mishaps, release, config, whole, proxied, tmp_path
):
    uri, proxy = proxied(*mishaps)
    # The cache holds less than the release, so that shards are fetched as long as the run goes on.
    largest = max(path.stat().st_size for path in shards_of(release))
    travel = {"cache_dir": tmp_path / "cache", "cache_bytes": 3 * largest, "backoff_s": 0.01, "num_attempts": 8}
    settings = [part for name, value in travel.items() for part in ("--set", f"data.{name}={value}")]
    arguments = command(uri, config, tmp_path / "run", *settings)
    assert ended(arguments, 3, signal.SIGKILL) == -signal.SIGKILL
    assert last_of(tmp_path / "run")[0] < f"step-{STEPS:09d}"
    before, proxy.met = proxy.calls, set()
    assert cli.run([*arguments, "--resume"]) == 0
    assert proxy.calls > before, "the second half read the store too"
    assert set(mishaps) <= proxy.met
    assert same(whole, last_of(tmp_path / "run"))


def test_a_store_that_stays_away_is_one_sentence_before_anything_is_written(
    config, proxied, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # of S3's own client for each of ours
    uri, _ = proxied("503")
    patience = ["--set", "data.num_attempts=2", "--set", "data.backoff_s=0"]
    assert cli.run(command(uri, config, tmp_path / "run", *patience)) == EXIT_FAULTS
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("anitalk: ")]
    assert f"{uri}/release.json cannot be read after 2 attempts" in line
    assert not (tmp_path / "run").exists()
