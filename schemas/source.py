"""Sources: one manifest line each, with everything that decides whether a film may be used.

A manifest is written by hand, so reading one checks every line and reports all that is wrong at once,
with the line and what would have been right, before anything is fetched.
"""

import difflib
import itertools
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, ValidationError, field_validator

from schemas.base import Id, Record, TimeSpan
from schemas.licences import commercial_use, derivatives, license_id
from schemas.manifest_syntax import (
    ManifestEntry,
    Problem,
    SyntaxProblemError,
    csv_entries,
    describe_kind,
    jsonl_entries,
    read_text,
    yaml_entries,
)
from schemas.uri import SCHEMES, check_uri, local_path, redact, uri_scheme

MAX_SPAN_S = 1e7  # four months: anything above is a mistake, and huge integers must not reach float
SHA256_PATTERN = re.compile(r"^[0-9a-f]{64}$")
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _check_text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    for char in value:
        if unicodedata.category(char) in {"Cc", "Cs"} or char in _BIDI_CONTROLS:
            raise ValueError(f"holds the control character U+{ord(char):04X}")
    return value


def _check_prose(value: str) -> str:
    _check_text(value.replace("\n", " ").replace("\t", " "))
    return value


def _check_sha256(value: str) -> str:
    if not SHA256_PATTERN.match(value):
        raise ValueError(f"{value!r} is not a SHA-256 digest: 64 digits 0-9 and a-f")
    return value


def _to_pair(item: Any) -> Any:
    if isinstance(item, TimeSpan):
        return [item.start_s, item.stop_s]
    if isinstance(item, dict) and set(cast("dict[str, Any]", item)) == {"start_s", "stop_s"}:  # a record's JSON form
        return [item["start_s"], item["stop_s"]]
    return cast("Any", item)


def _to_spans(value: Any) -> list[TimeSpan]:
    """Accept pairs of seconds, as a manifest writes them, beside finished spans."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list of [start, stop] pairs in seconds, found {describe_kind(value)}")  # noqa: TRY004
    spans: list[TimeSpan] = []
    for number, item in enumerate(cast("list[Any]", value), start=1):
        pair = _to_pair(item)
        if not isinstance(pair, list | tuple) or len(cast("list[Any]", pair)) != 2:
            raise ValueError(f"span {number} is not a [start, stop] pair in seconds")
        start, stop = cast("list[Any]", pair)
        for side in (start, stop):
            if not isinstance(side, int | float) or isinstance(side, bool):
                raise ValueError(f"span {number} needs two numbers of seconds, found {describe_kind(side)}")  # noqa: TRY004
        if not 0 <= start < stop < MAX_SPAN_S:
            raise ValueError(f"span {number} needs 0 <= start < stop, found {start} to {stop}")
        spans.append(TimeSpan(start_s=start, stop_s=stop))
    return spans


Text = Annotated[str, AfterValidator(_check_text)]
Prose = Annotated[str, AfterValidator(_check_prose)]
Sha256 = Annotated[str, AfterValidator(_check_sha256)]


class Source(Record):
    """One film or talk: where it is, what it is, and who allows its use.

    ``uri`` of a local file is absolute once read from a manifest; ``public_uri`` is the form to publish.
    ``spans`` are seconds of the film, from its first frame on, wherever the file's clock begins; sorted, apart; empty
    means the whole film.
    """

    id: Id
    uri: Text
    domain: Id
    license: Text
    title: Text
    credit: Prose | None = None
    language: Text | None = None  # a BCP 47 tag such as "en"; recorded as given
    spans: Annotated[tuple[TimeSpan, ...], BeforeValidator(_to_spans)] = ()
    sha256: Sha256 | None = None
    notes: Prose | None = None

    @field_validator("uri")
    @classmethod
    def _allowed_uri(cls, value: str) -> str:
        return check_uri(value)

    @field_validator("spans")
    @classmethod
    def _apart(cls, value: tuple[TimeSpan, ...]) -> tuple[TimeSpan, ...]:
        spans = tuple(sorted(value, key=lambda span: span.start_s))
        for left, right in itertools.pairwise(spans):
            if right.start_s < left.stop_s:
                raise ValueError(
                    f"spans {left.start_s:g} to {left.stop_s:g} and {right.start_s:g} to {right.stop_s:g} overlap"
                )
        return spans

    @property
    def license_id(self) -> str | None:
        """The SPDX id of the licence, or None where it is not recognised."""
        return license_id(self.license)

    @property
    def commercial_use(self) -> bool | None:
        """Whether the licence allows commercial use; None when unknown."""
        return commercial_use(self.license)

    @property
    def derivatives(self) -> bool | None:
        """Whether the licence allows adaptations, such as crops, to be shared; None when unknown."""
        return derivatives(self.license)

    @property
    def public_uri(self) -> str:
        """The URI without secrets, and without the folders of the machine that a local file lies on."""
        if uri_scheme(self.uri) == "file":
            return f"file:{PurePosixPath(local_path(self.uri)).name}"
        return redact(self.uri)


class FetchProvenance(Record):
    """Where the bytes came from, without secrets."""

    uri: str  # as the source gives it
    final_url: str  # after redirects, or the resolved path of a local file
    title: str | None = None  # as the site states it
    uploader: str | None = None
    license: str | None = None  # as the site states it; the manifest's own licence is the source's
    format_id: str | None = None
    tool: str
    tool_version: str
    fetched_at: str  # ISO 8601, UTC
    media_type: str | None = None


class Fetched(Record):
    """A file that is here: ``path`` is a name inside the target folder, or an absolute path for a local source."""

    sha256: Sha256
    num_bytes: int
    path: str
    provenance: FetchProvenance

    def locate(self, folder: Path) -> Path:
        """The file itself, for the ``folder`` that was given to ``fetch``."""
        return folder / self.path


class SourceManifest(Record):
    """The sources of one manifest, in file order, and what a person should know about them."""

    sources: tuple[Source, ...]
    path: Path
    warnings: tuple[Problem, ...] = ()


class ManifestError(ValueError):
    """A manifest that cannot be used, with everything that is wrong in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in the manifest:", *(f"  {problem}" for problem in self.problems)]))


_FIELDS = frozenset(Source.model_fields)
_REQUIRED = tuple(name for name, info in Source.model_fields.items() if info.is_required())


def read_manifest(path: Path | str, domains: Collection[str], schemes: Collection[str] = SCHEMES) -> SourceManifest:
    """Read a manifest (``.yaml``, ``.yml``, ``.csv``, ``.jsonl``) and check every line of it.

    Relative file paths are taken from the manifest's folder. ``domains`` and ``schemes`` are what the
    build's configuration allows.

    Raises:
        ManifestError: with every problem found, each with its line, field, and what is allowed.
    """
    return Reading(Path(path), domains, schemes).manifest()


class Reading:
    """One pass over one manifest, which collects problems instead of stopping at the first."""

    def __init__(self, path: Path, domains: Collection[str], schemes: Collection[str]) -> None:
        self.path, self.domains, self.schemes = path, sorted(domains), schemes
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.ids: dict[str, int] = {}
        self.uris: dict[str, int] = {}

    def manifest(self) -> SourceManifest:
        """Read a manifest.

        Raises:
            ManifestError: with everything that is wrong.
        """
        sources: list[Source] = []
        num_entries = 0
        try:
            for entry in self.entries(read_text(self.path)):
                if isinstance(entry, SyntaxProblemError):
                    self.problem(entry.line, entry.field_name, entry.message)
                    continue
                num_entries += 1
                if (source := self.source_of(entry)) is not None:
                    sources.append(source)
        except SyntaxProblemError as error:
            self.problem(error.line, error.field_name, error.message)
        if not num_entries and not self.problems:
            self.problem(None, None, "lists no sources")
        if self.problems:
            raise ManifestError(sorted(self.problems, key=lambda problem: problem.line or 0))
        return SourceManifest(sources=tuple(sources), path=self.path, warnings=tuple(self.warnings))

    def entries(self, text: str) -> Iterator[ManifestEntry | SyntaxProblemError]:
        """The entries of a file, by its suffix."""
        suffix = self.path.suffix.lower()
        if suffix in {".yaml", ".yml"}:
            return yaml_entries(text)
        if suffix == ".csv":
            return csv_entries(text, _FIELDS, _REQUIRED)
        if suffix in {".jsonl", ".ndjson"}:
            return jsonl_entries(text)
        raise SyntaxProblemError(None, f"ends in {suffix!r}; a manifest ends in .yaml, .yml, .csv or .jsonl")

    def problem(self, line: int | None, name: str | None, message: str) -> None:
        """Note one thing that is wrong."""
        self.problems.append(Problem(path=str(self.path), line=line, field=name, message=message))

    def source_of(self, entry: ManifestEntry) -> Source | None:
        """The source that an entry describes; None where something is wrong with it."""
        before = len(self.problems)
        values = dict(entry.values)
        for name in [name for name in values if name not in _FIELDS]:
            del values[name]
            self.problem(entry.line_of(name), name, f"is no field of a source{_nearest(name, _FIELDS)}")
        self._check_domain(entry)
        self._check_id(entry)
        values["uri"] = self._resolve(entry)
        if values["uri"] is None:
            del values["uri"]
        source = None
        try:
            source = Source.model_validate(values)
        except ValidationError as error:
            self._translate(error, entry)
        if source is None or len(self.problems) > before:
            return None
        self._warn(source, entry)
        return source

    def _check_domain(self, entry: ManifestEntry) -> None:
        domain = entry.values.get("domain")
        if isinstance(domain, str) and domain and domain not in self.domains:
            message = f"{domain!r} is no domain{_nearest(domain, self.domains)}; allowed: {', '.join(self.domains)}"
            self.problem(entry.line_of("domain"), "domain", message)

    def _check_id(self, entry: ManifestEntry) -> None:
        name = entry.values.get("id")
        if not isinstance(name, str):
            return
        line = entry.line_of("id")
        if name in self.ids:
            self.problem(line, "id", f"{name!r} is used twice: on line {self.ids[name]} and on line {line}")
        self.ids.setdefault(name, line)

    def _resolve(self, entry: ManifestEntry) -> Any:
        """The URI with a relative file path taken from the manifest's folder."""
        uri = entry.values.get("uri")
        if not isinstance(uri, str) or not uri.strip():
            return uri
        scheme = uri_scheme(uri)
        if scheme not in self.schemes:
            allowed = ", ".join(sorted(self.schemes))
            self.problem(entry.line_of("uri"), "uri", f"scheme '{scheme}:' is not allowed; allowed: {allowed}")
            return None
        if scheme != "file" or any(unicodedata.category(char) in {"Cc", "Cs"} for char in uri):
            return uri
        try:
            path = local_path(uri)
        except ValueError as error:
            self.problem(entry.line_of("uri"), "uri", str(error))
            return None
        return (self.path.parent.absolute() / path).as_uri()

    def _translate(self, error: ValidationError, entry: ManifestEntry) -> None:
        reported = {problem.field for problem in self.problems if problem.line == entry.line_of(problem.field)}
        for item in error.errors():
            name = str(item["loc"][0]) if item["loc"] else None
            given = entry.values.get(name or "")
            if item["type"] == "missing" and name in reported:
                continue  # the real reason was found before the record was tried
            if name == "domain" and name in reported:
                continue
            if item["type"] == "missing" or given is None:
                message = f"is missing; every source needs {', '.join(_REQUIRED)}"
            elif item["type"] == "value_error":
                message = item["msg"].removeprefix("Value error, ")
            elif item["type"].startswith("string"):
                message = f"expected text, found {describe_kind(given)}; put it in quotes"
            else:
                message = item["msg"]
            self.problem(entry.line_of(name), name, message)

    def _warn(self, source: Source, entry: ManifestEntry) -> None:
        def warn(name: str, message: str) -> None:
            line = entry.line_of(name)
            self.warnings.append(Problem(path=str(self.path), line=line, field=name, message=message))

        if source.uri in self.uris:
            warn("uri", f"is the same as on line {self.uris[source.uri]}; the film will be used twice")
        self.uris.setdefault(source.uri, entry.line_of("uri"))
        if source.derivatives is False:
            warn("license", f"{source.license_id} forbids sharing adaptations, and cropped clips are adaptations")


def _nearest(name: str, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
