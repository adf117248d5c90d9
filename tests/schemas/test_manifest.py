"""A manifest is read whole or refused whole, with every mistake on its own line."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas import manifest_syntax
from schemas.base import check_id
from schemas.config import EMBEDDED_DOMAINS
from schemas.licences import SPDX_IDS, commercial_use, derivatives, license_id
from schemas.source import ManifestError, Source, SourceManifest, read_manifest
from schemas.uri import redact

DOMAINS = tuple(EMBEDDED_DOMAINS)
GOOD: dict[str, Any] = {
    "id": "sintel",
    "uri": "https://example.org/sintel.mkv",
    "domain": "disney_human",
    "license": "CC-BY-3.0",
    "title": "Sintel",
}
FULL: dict[str, Any] = {
    **GOOD,
    "credit": "© Blender Foundation",
    "language": "en",
    "spans": [[0, 12.5], [20, 31]],
    "sha256": "a" * 64,
    "notes": "first line\nsecond",
}


def as_yaml(sources: list[dict[str, Any]]) -> str:
    return yaml.safe_dump({"sources": sources}, allow_unicode=True, sort_keys=False)


def as_jsonl(sources: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(source, ensure_ascii=False) + "\n" for source in sources)


def as_csv(sources: list[dict[str, Any]], separator: str = ",") -> str:
    names = list(dict.fromkeys(name for source in sources for name in source))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, delimiter=separator)
    writer.writeheader()
    for source in sources:
        row = dict(source)
        if "spans" in row:
            row["spans"] = ";".join(f"{start!r}-{stop!r}" for start, stop in row["spans"])
        writer.writerow(row)
    return text.getvalue()


WRITERS = {".yaml": as_yaml, ".jsonl": as_jsonl, ".csv": as_csv}


def write(folder: Path, text: str | bytes, suffix: str = ".yaml") -> Path:
    path = folder / f"list{suffix}"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(path: Path) -> list[tuple[int | None, str | None, str]]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, DOMAINS)
    for problem in caught.value.problems:
        assert problem.path == str(path)
        assert str(problem) in str(caught.value)
    return [(problem.line, problem.field, problem.message) for problem in caught.value.problems]


def only_problem(path: Path) -> tuple[int | None, str | None, str]:
    (problem,) = problems(path)
    return problem


def test_a_merge_key_is_refused_by_its_name(tmp_path: Path) -> None:
    text = "sources:\n- &base {id: a, uri: a.mp4, domain: real, license: MIT, title: A}\n- <<: *base\n  id: b\n"
    line, _, message = only_problem(write(tmp_path, text))
    assert (line, message) == (3, "merge key '<<' is not read; write the fields out in every source")


# --- laws -----------------------------------------------------------------------------------------------------------

ids = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,95}\Z")
texts = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp", "Co", "Cn"]), min_size=1, max_size=30
).filter(lambda text: text.strip() == text)
cuts = st.lists(st.integers(0, 10**7 - 1), max_size=6, unique=True).map(
    lambda points: [[a / 8, b / 8] for a, b in zip(sorted(points)[::2], sorted(points)[1::2], strict=False)]
)
sources = st.fixed_dictionaries(
    {
        "id": ids,
        "uri": st.sampled_from(["https://example.org/a.mp4", "s3://bucket/a/b.mp4", "https://例え.jp/á?x=1"]),
        "domain": st.sampled_from(DOMAINS),
        "license": texts,
        "title": texts,
    },
    optional={"credit": texts, "language": texts, "spans": cuts, "sha256": st.just("0" * 64), "notes": texts},
)


@given(st.lists(sources, min_size=1, max_size=4, unique_by=lambda source: source["id"]), st.sampled_from(",;\t"))
def test_csv_is_read_whatever_separates_its_columns(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, Any]], separator: str
) -> None:
    path = write(tmp_path_factory.mktemp("manifest"), as_csv(written, separator), ".csv")
    assert read_manifest(path, DOMAINS).sources == tuple(Source.model_validate(source) for source in written)


@given(st.lists(sources, min_size=1, max_size=4, unique_by=lambda source: source["id"]), st.sampled_from(list(WRITERS)))
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, Any]], suffix: str
) -> None:
    path = write(tmp_path_factory.mktemp("manifest"), WRITERS[suffix](written), suffix)
    read = read_manifest(path, DOMAINS).sources
    assert read == tuple(Source.model_validate(source) for source in written)
    for source in read:
        assert Source.model_validate_json(source.model_dump_json()) == source


@given(st.text(max_size=100))
def test_an_id_is_accepted_or_refused_but_never_changed(text: str) -> None:
    try:
        accepted = check_id(text)
    except ValueError:
        return
    assert accepted == text
    assert "." not in text
    assert "/" not in text
    assert text.isascii()
    assert 1 <= len(text) <= 96


@given(st.binary(max_size=200), st.sampled_from(list(WRITERS)))
def test_any_bytes_give_a_manifest_or_problems(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, suffix: str
) -> None:
    path = write(tmp_path_factory.mktemp("manifest"), raw, suffix)
    try:
        read = read_manifest(path, DOMAINS)
    except ManifestError as error:
        count = len(error.problems)
    else:
        count = len(read.sources)
    assert count


yaml_soup = st.lists(
    st.sampled_from(
        ["sources:", "\n", "- ", "id: a", "  ", "[", "]", "{", "}", ": ", "'", '"', "&a ", "*a", "!!int ", "|", "? "]
    ),
    max_size=30,
).map("".join)


@given(yaml_soup)
def test_yaml_soup_gives_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    with pytest.raises(ManifestError):
        read_manifest(write(tmp_path_factory.mktemp("manifest"), text), DOMAINS)


# --- every mistake, each with its line ------------------------------------------------------------------------------


def test_every_mistake_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
sources:
  - id: good
    uri: https://example.org/a.mp4
    domain: real
    license: CC0-1.0
    title: A
  - id: ../etc
    uri: ftp://example.org/a.mp4
    domain: rael
    licence: CC0-1.0
    title: ""
    sha256: ABC
    spans: [[3, 2]]
  - id: good
    uri: https://example.org/b.mp4
    domain: real
    license: CC0-1.0
    title: 1984
"""
    mistakes = problems(write(tmp_path, text))
    assert sorted((line, field) for line, field, _ in mistakes) == [
        (7, "id"), (7, "license"), (8, "uri"), (9, "domain"), (10, "licence"), (11, "title"), (12, "sha256"),
        (13, "spans"), (14, "id"), (18, "title"),
    ]  # fmt: skip
    assert [line for line, _, _ in mistakes] == sorted(line or 0 for line, _, _ in mistakes)
    said = {(line, field): message for line, field, message in mistakes}
    assert "did you mean 'license'?" in said[10, "licence"]
    assert "did you mean 'real'?; allowed: disney_animal, disney_human, mesh, real" in said[9, "domain"]
    assert "'ftp:' is not allowed; allowed: file, gs, http, https, s3" in said[8, "uri"]
    assert "on line 2 and on line 14" in said[14, "id"]
    assert said[18, "title"] == "expected text, found a number (1984); put it in quotes"


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("id", "a.b", "not a usable id"),
        ("id", "../a", "not a usable id"),
        ("id", "a/b", "not a usable id"),
        ("id", "", "not a usable id"),
        ("id", "x" * 97, "not a usable id"),
        ("id", 7, "expected text, found a number (7)"),
        ("uri", "", "is empty"),
        ("uri", "javascript:alert(1)", "not allowed"),
        ("uri", "FTP://example.org/x", "not allowed"),
        ("uri", "data:video/mp4;base64,AA", "not allowed"),
        ("uri", "https:///x.mp4", "names no host"),
        ("uri", "https://example.org/a b.mp4", "percent-encode"),
        ("uri", "https://example.org:99999/a.mp4", "ort"),
        ("uri", "https://[::1/a.mp4", "Invalid IPv6"),
        ("uri", "s3://bucket", "needs a bucket and a key"),
        ("uri", "file://server/a.mp4", "names the host 'server'"),
        ("uri", None, "is missing"),
        ("domain", "", "not a usable id"),
        ("license", "  ", "is empty"),
        ("license", None, "is missing"),
        ("title", "bell\u0007", "control character U+0007"),
        ("title", "two\nlines", "control character U+000A"),
        ("title", "\u202eevil", "control character U+202E"),
        ("title", ["a"], "expected text, found a list"),
        ("title", False, "expected text, found a yes/no value (False)"),
        ("sha256", "A" * 64, "not a SHA-256 digest"),
        ("sha256", "a" * 63, "not a SHA-256 digest"),
        ("spans", "0-3", "expected a list of [start, stop] pairs"),
        ("spans", [[0]], "span 1 is not a [start, stop] pair"),
        ("spans", [[0, 1], [1, "2"]], "span 2 needs two numbers of seconds, found text"),
        ("spans", [[0, True]], "found a yes/no value (True)"),
        ("spans", [[-1, 1]], "0 <= start < stop, found -1 to 1"),
        ("spans", [[1, 1]], "0 <= start < stop, found 1 to 1"),
        ("spans", [[0, 10**400]], "0 <= start < stop"),
        ("spans", [[0, 5], [4.9, 6]], "spans 0 to 5 and 4.9 to 6 overlap"),
        ("colour", "red", "no field of a source"),
    ],
)
@pytest.mark.parametrize("suffix", [".yaml", ".jsonl"])
def test_a_wrong_value_is_refused_by_name(
    tmp_path: Path, field: str, value: object, sentence: str, suffix: str
) -> None:
    path = write(tmp_path, WRITERS[suffix]([{**GOOD, field: value}]), suffix)
    mistakes = problems(path)
    assert [name for _, name, _ in mistakes] == [field]
    assert sentence in mistakes[0][2]


def test_missing_fields_are_all_named(tmp_path: Path) -> None:
    mistakes = problems(write(tmp_path, "sources:\n  - notes: x\n"))
    assert {field for _, field, _ in mistakes} == {"id", "uri", "domain", "license", "title"}
    assert {line for line, _, _ in mistakes} == {2}


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("", None, "is empty"),
        ("# nothing\n", None, "is empty"),
        ("- a\n", 1, "expected a mapping with a list named 'sources:'"),
        ("other: []\nsources: []\n", 1, "not expected at the top"),
        ("films: []\n", None, "no list named 'sources:'"),
        ("sources: []\n", None, "lists no sources"),
        ("sources: {}\n", 1, "expected a list of sources"),
        ("sources:\n  - just text\n", 2, "expected a source with named fields"),
        ("sources:\n  - {id: a, id: b}\n", 2, "given twice; first on line 2"),
        ("sources:\n  - id: [\n", 3, "is not YAML"),
        ("sources:\n\t- id: a\n", 2, "is not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "more than one YAML document"),
        ("sources:\n  - &x {id: a}\n  - *x\n", 3, "alias '*x' is not allowed"),
        ("sources:\n  - !!python/object/apply:os.system ['true']\n", 2, "tag"),
        ("sources: !custom []\n", 1, "tag '!custom' is not allowed"),
        ("sources:\n  - " + "[" * 5000, 2, "levels deep"),
        ("sources:\n  - id: 2026-13-45\n", 2, "cannot be read as timestamp"),
    ],
)
def test_wrong_yaml_is_located(tmp_path: Path, text: str, line: int | None, sentence: str) -> None:
    assert any(at == line and sentence in message for at, _, message in problems(write(tmp_path, text)))


def test_an_alias_bomb_costs_nothing(tmp_path: Path) -> None:
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 30)]
    path = write(tmp_path, "\n".join(["l0: &l0 [x]", *levels, "sources: *l29"]))
    assert "alias" in only_problem(path)[2]


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("", 1, "is empty; expected a header line"),
        ("id,uri,domain,license,title\n", None, "lists no sources"),
        (
            "id,uri,domain,licence,title\n",
            1,
            "unknown column 'licence'; missing column 'license'; allowed columns: credit",
        ),
        ("id,id,uri,domain,license,title\n", 1, "repeated column 'id'"),
        ("id;uri;domain;license;title\n", None, "lists no sources"),
        ("id|uri|domain|license|title\n", 1, "unknown column"),
        ("id;uri,domain,license,title\n", 1, "unknown column 'id;uri'"),
        ("id;uri;domain;license;title;spans\na;x.mp4;real;MIT;A;0-12,5\n", 2, "found '0-12,5'"),
        ("id,uri,domain,license,title\na,b\n", 2, "has 2 cells where the header has 5 columns"),
        ('id,uri,domain,license,title\na,"b\n', 2, "is not CSV"),
        ("id,uri,domain,license,title,spans\na,x.mp4,real,MIT,A,0-1;2\n", 2, "found \"2 without '-'\""),
        ("id,uri,domain,license,title,spans\na,x.mp4,real,MIT,A,5-1\n", 2, "0 <= start < stop"),
        ("id,uri,domain,license,title,spans\na,x.mp4,real,MIT,A,0-nan\n", 2, "0 <= start < stop"),
        ("id,uri,domain,license,title\na,x.mp4,real,,A\n", 2, "is missing"),
    ],
)
def test_wrong_csv_is_located(tmp_path: Path, text: str, line: int | None, sentence: str) -> None:
    assert any(at == line and sentence in message for at, _, message in problems(write(tmp_path, text, ".csv")))


def test_csv_lines_count_quoted_line_breaks(tmp_path: Path) -> None:
    text = 'id,uri,domain,license,title,notes\na,x.mp4,real,MIT,A,"one\ntwo\nthree"\n\nb,x.mp4,rael,MIT,B,\n'
    assert only_problem(write(tmp_path, text, ".csv"))[:2] == (6, "domain")


def test_csv_takes_a_byte_order_mark_and_spans(tmp_path: Path) -> None:
    text = "\ufeffid,uri,domain,license,title,spans,credit\r\na,s3://b/x.mp4,real,MIT,A,0-12.5;20-31,\r\n"
    (source,) = read_manifest(write(tmp_path, text, ".csv"), DOMAINS).sources
    assert [(span.start_s, span.stop_s) for span in source.spans] == [(0, 12.5), (20, 31)]
    assert source.credit is None


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("\n\n", None, "lists no sources"),
        ("\n{", 2, "is not a JSON object"),
        ("[]", 1, "expected one JSON object per line"),
        ('{"id": "a", "id": "b"}', 1, "field 'id' is given twice"),
        ('{"spans": [[0, NaN]]}', 1, "NaN is not a JSON value"),
        ("[" * 100_000, 1, "is not a JSON object"),
        ('{"title": "\\ud800"}', 1, "control character U+D800"),
    ],
)
def test_wrong_json_lines_are_located(tmp_path: Path, text: str, line: int | None, sentence: str) -> None:
    assert any(at == line and sentence in message for at, _, message in problems(write(tmp_path, text, ".jsonl")))


def test_files_that_cannot_be_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist" in only_problem(tmp_path / "none.yaml")[2]
    (tmp_path / "folder.yaml").mkdir()
    assert "is a folder" in only_problem(tmp_path / "folder.yaml")[2]
    assert "ends in .yaml, .yml, .csv or .jsonl" in only_problem(write(tmp_path, "x", ".txt"))[2]
    assert only_problem(write(tmp_path, b"sources:\n  - id: \xe4\n"))[0] == 2
    monkeypatch.setattr(manifest_syntax, "MAX_MANIFEST_BYTES", 20)
    assert "larger than" in only_problem(write(tmp_path, "sources: []" + " " * 10))[2]
    assert "lists no sources" in only_problem(write(tmp_path, "sources: []" + " " * 9))[2]


# --- what a good manifest gives -------------------------------------------------------------------------------------


def test_file_paths_are_taken_from_the_manifests_folder(tmp_path: Path) -> None:
    given_uris = ["films/a.mp4", "../up.mp4", "/abs/ü #1%41.mp4", (tmp_path / "x y.mp4").as_uri(), "file:b.mp4"]
    text = as_jsonl([{**GOOD, "id": f"f{i}", "uri": uri} for i, uri in enumerate(given_uris)])
    uris = [source.uri for source in read_manifest(write(tmp_path, text, ".jsonl"), DOMAINS).sources]
    assert uris == [
        (tmp_path / "films/a.mp4").as_uri(),
        (tmp_path / "../up.mp4").as_uri(),
        Path("/abs/ü #1%41.mp4").as_uri(),
        (tmp_path / "x y.mp4").as_uri(),
        (tmp_path / "b.mp4").as_uri(),
    ]


def test_repeated_uris_and_no_derivatives_are_warned_about(tmp_path: Path) -> None:
    text = as_jsonl([GOOD, {**GOOD, "id": "again"}, {**GOOD, "id": "nd", "uri": "x.mp4", "license": "CC BY-ND 4.0"}])
    manifest = read_manifest(write(tmp_path, text, ".jsonl"), DOMAINS)
    assert [(warning.line, warning.field) for warning in manifest.warnings] == [(2, "uri"), (3, "license")]
    assert "line 1" in manifest.warnings[0].message
    assert len(manifest.sources) == 3


def test_schemes_can_be_narrowed(tmp_path: Path) -> None:
    path = write(tmp_path, as_yaml([{**GOOD, "uri": "a.mp4"}]))
    assert read_manifest(path, DOMAINS).sources
    with pytest.raises(ManifestError, match="'file:' is not allowed; allowed: https"):
        read_manifest(path, DOMAINS, schemes=("https",))


def test_spans_are_sorted_and_may_touch() -> None:
    source = Source.model_validate({**GOOD, "spans": [[5, 6], [0, 5]]})
    assert [(span.start_s, span.stop_s) for span in source.spans] == [(0, 5), (5, 6)]


@pytest.mark.parametrize(
    ("text", "spdx", "commercial", "adaptable"),
    [
        ("CC-BY-4.0", "CC-BY-4.0", True, True),
        ("cc-by-4.0", "CC-BY-4.0", True, True),
        ("CC BY-NC-SA 4.0", "CC-BY-NC-SA-4.0", False, True),
        ("CC BY-NC-ND 3.0", "CC-BY-NC-ND-3.0", False, False),
        ("Creative Commons Attribution-NonCommercial 4.0 International", "CC-BY-NC-4.0", False, True),
        ("Creative Commons Attribution 3.0", "CC-BY-3.0", True, True),
        ("https://creativecommons.org/licenses/by-sa/4.0/deed.de", "CC-BY-SA-4.0", True, True),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0", True, True),
        ("CC0", "CC0-1.0", True, True),
        ("PDM", "CC-PDM-1.0", True, True),
        ("public domain", None, True, True),
        ("CC-BY", None, None, None),
        ("all rights reserved", None, None, None),
        ("not CC-BY-4.0", None, None, None),
    ],
)
def test_licences(text: str, spdx: str | None, commercial: bool | None, adaptable: bool | None) -> None:
    source = Source.model_validate({**GOOD, "license": text})
    assert source.license == text
    assert (source.license_id, source.commercial_use, source.derivatives) == (spdx, commercial, adaptable)


@pytest.mark.parametrize("spdx", SPDX_IDS)
def test_every_listed_id_is_recognised_in_any_case(spdx: str) -> None:
    assert license_id(spdx.upper()) == spdx
    assert commercial_use(spdx) is ("NC" not in spdx)
    assert derivatives(spdx) is ("-ND" not in spdx)


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://me:pw@example.org/a?v=1&token=x&X-Amz-Signature=y&sig=z&key=k#frag", "https://example.org/a?v=1"),
        ("https://example.org/watch?v=abc&list=d", "https://example.org/watch?v=abc&list=d"),
        ("s3://bucket/a.mp4", "s3://bucket/a.mp4"),
        ("https://[::1]:80/a?access_token=t", "https://[::1]:80/a"),
    ],
)
def test_secrets_are_removed(uri: str, public: str) -> None:
    assert redact(uri) == public


def test_a_local_files_folders_are_not_public() -> None:
    source = Source.model_validate({**GOOD, "uri": "/home/ann/films/a%20b.mp4"})
    assert source.public_uri == "file:a%20b.mp4"


def test_the_shipped_manifest_is_valid_and_free() -> None:
    path = Path(__file__).parents[2] / "manifests" / "open-movies.yaml"
    manifest = read_manifest(path, DOMAINS)
    assert isinstance(manifest, SourceManifest)
    assert len(manifest.sources) >= 10
    assert manifest.warnings == ()
    for source in manifest.sources:
        assert source.uri.startswith("https://")
        assert source.commercial_use is not False
        assert source.license_id or source.license.startswith("NASA")
        assert source.credit
