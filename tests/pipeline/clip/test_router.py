"""The manifest's word is the prior: evidence may throw doubt on it, and never replaces it."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cli import application as cli
from pipeline.bench.routing import Take, fit, gather, router_rows, to_markdown
from pipeline.build.results import Results
from pipeline.card.claims import proposed_domains
from pipeline.clip.meters import model_files
from pipeline.clip.router import EVIDENCE_FILES, RouterTap, combined, domain_prompts, judge, likelihoods, shipped_router
from pipeline.demo.portrait import Camera, face_box, film_talker, photograph
from pipeline.models.domain_evidence import frame_evidence
from pipeline.models.registry import ModelSet
from pipeline.models.zero_shot import WEIGHTS_FILE, ZeroShot
from schemas.config import EMBEDDED_DOMAINS, BuildConfig
from schemas.errors import UsageError
from schemas.quality import QualityConfig
from schemas.router import UNSURE, DomainEvidence, RouterConfig, RouterModel, RouterScore
from tests.helpers import films as films_module
from tests.helpers.films import TALKER, build, write_manifest
from tests.helpers.release_items import make_clip, make_row

films = films_module.films  # a fixture

NAMES = tuple(DomainEvidence.model_fields)
DOMAINS = tuple(EMBEDDED_DOMAINS)
evidences = st.builds(DomainEvidence, **{name: st.floats(-3, 3) for name in NAMES})
claims = st.sampled_from(DOMAINS)
trusts = st.floats(0.05, 0.95)
SIZE = 256
# Every domain is as likely as any other before anything is seen.
UNPREJUDICED = RouterConfig(trust=0.25)


def model_with(weights=None, intercepts=None) -> RouterModel:
    zeros = dict.fromkeys(NAMES, 0.0)
    return RouterModel(
        note="made up",
        mean=zeros,
        scale=dict.fromkeys(NAMES, 1.0),
        intercepts=intercepts or dict.fromkeys(DOMAINS, 0.0),
        weights={domain: zeros | (weights or {}).get(domain, {}) for domain in DOMAINS},
    )


# --- laws ---


@given(evidences)
def test_likelihoods_add_up_whatever_was_seen(evidence):
    found = likelihoods(evidence, shipped_router())
    assert set(found) == set(DOMAINS)
    assert sum(found.values()) == pytest.approx(1)
    assert min(found.values()) >= 0


@given(evidences, claims, trusts, st.floats(0.55, 0.99))
def test_a_claim_is_doubted_when_little_is_left_for_it(evidence, claimed, trust, least):
    found = judge(evidence, claimed, RouterConfig(trust=trust, min_probability=least), shipped_router())
    assert (found.proposed == UNSURE) == (found.probability < least)
    assert found.claim <= found.probability
    assert found.doubtful == (found.claim <= round(1 - least, 4))
    assert found.proposed != claimed or not found.doubtful
    assert found.doubtful or found.proposed in {UNSURE, claimed}


@given(evidences, claims, trusts, trusts)
def test_more_trust_never_makes_a_doubt(evidence, claimed, one, other):
    low, high = (
        judge(evidence, claimed, RouterConfig(trust=trust), shipped_router()) for trust in sorted((one, other))
    )
    assert low.doubtful or not high.doubtful


@given(evidences)
def test_a_claim_that_the_router_does_not_know_is_nothing_to_disagree_with(evidence):
    found = judge(evidence, "puppets", RouterConfig(), shipped_router())
    assert not found.doubtful
    assert found.claim is None
    assert found.probability == pytest.approx(max(likelihoods(evidence, shipped_router()).values()), abs=1e-4)


@given(evidences, claims, st.sampled_from(DOMAINS))
def test_clip_alone_cannot_flag(evidence, claimed, told):
    zero_shot = {domain: float(domain == told) for domain in DOMAINS}
    assert not judge(evidence, claimed, RouterConfig(), model_with(), zero_shot).doubtful


def test_clip_can_tip_the_scales():
    model = model_with(intercepts={domain: 2.0 * (domain == "mesh") for domain in DOMAINS})
    evidence = DomainEvidence(**dict.fromkeys(NAMES, 0.0))
    told = [judge(evidence, "real", RouterConfig(), model, {"mesh": share, "real": 1 - share}) for share in (0.0, 1.0)]
    assert [one.doubtful for one in told] == [False, True]
    assert [chance.domain for chance in told[0].zero_shot] == ["mesh", "real"]


# --- fitting ---


def takes_of(rng, domain, family, centre, num):
    values = centre + rng.normal(0, 1, (num, len(NAMES)))
    return [Take(family, domain, DomainEvidence(**dict(zip(NAMES, row, strict=True)))) for row in values.tolist()]


def made_up(seed=0, num=8):
    rng = np.random.default_rng(seed)
    centres = {domain: rng.normal(0, 4, len(NAMES)) for domain in DOMAINS}
    return [
        take
        for domain in DOMAINS
        for film in range(3)
        for take in takes_of(rng, domain, f"{domain}{film}", centres[domain], num)
    ]


def test_domains_that_lie_apart_are_told_apart_on_films_left_out():
    for row in router_rows(made_up(), DOMAINS, UNPREJUDICED):
        assert row.likeliest[row.domain] == row.num_takes
        assert row.flagged == {claimed: row.num_takes * (claimed != row.domain) for claimed in DOMAINS}


def test_neither_order_nor_the_length_of_films_counts():
    takes = made_up()
    model = fit(takes, DOMAINS)
    assert likely(fit(takes[::-1], DOMAINS), takes) == pytest.approx(likely(model, takes), abs=1e-3)
    longer = takes + [take for take in takes if take.family == "real0"] * 3
    assert likely(fit(longer, DOMAINS), takes) == pytest.approx(likely(model, takes), abs=1e-3)


def likely(model, takes):
    return [likelihoods(take.evidence, model)["real"] for take in takes]


def test_a_film_left_out_has_no_say_in_what_is_said_of_it():
    takes = made_up()
    wrong = [Take("real0", "real", take.evidence) if take.family == "mesh0" else take for take in takes]
    rows = {row.family: row for row in router_rows(wrong, DOMAINS, RouterConfig())}
    # Half of that family looks like a mesh, and nobody who judges it was told that it is none.
    assert rows["real0"].likeliest == {"real": 8, "disney_human": 0, "disney_animal": 0, "mesh": 8}


def test_the_page_counts_false_alarms():
    page = to_markdown(router_rows(made_up(), DOMAINS, UNPREJUDICED), DOMAINS, UNPREJUDICED)
    assert "false alarm: 0 of 96 takes" in page
    assert "| real | 0.00 | 1.00 | 1.00 | 1.00 |" in page


def test_a_router_without_all_its_numbers_is_refused():
    whole = shipped_router().model_dump()
    with pytest.raises(ValueError, match="a router needs"):
        RouterModel.model_validate(whole | {"mean": {"human": 0.0}})


# --- pictures ---


def talking(num, size=SIZE):
    camera = Camera((226.0, 130.0), 1.3 * size / SIZE)
    return [film_talker(k % 5 / 4, camera, (size, size)) for k in range(num)], face_box(camera, (size, size))


def looked_at(frames, box, claimed, **settings):
    meter = RouterTap(RouterConfig(**settings), claimed, make_clip(num_frames=len(frames)).plan)
    for frame in frames:
        meter.add(frame, box)
    return meter.finish()


def test_a_photographed_woman_is_no_animal_and_no_mesh():
    frames, box = talking(10)
    found = {claimed: looked_at(frames, box, claimed, trust=0.25).doubtful for claimed in DOMAINS}
    assert found == {"real": False, "disney_human": False, "disney_animal": True, "mesh": True}


def test_a_photographed_cat_is_no_human():
    # A photograph that the router was not fitted to.
    cat = np.ascontiguousarray(photograph("chelsea")[:300, 90:390])
    frames = [np.ascontiguousarray(cat)] * 6
    found = looked_at(frames, (60.0, 60.0, 240.0, 240.0), "real")
    assert (found.proposed, found.doubtful) == ("disney_animal", True)
    assert found.evidence.presence < 0.5


@pytest.mark.parametrize("num", [1, 2, 5, 11])
def test_clips_of_any_length_are_looked_at(num):
    frames, box = talking(num)
    assert looked_at(frames, box, "real").evidence.human > 0.5


def test_only_the_asked_number_of_frames_is_looked_at(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "pipeline.models.domain_evidence.frame_evidence",
        lambda frame, box: seen.append(1) or frame_evidence(frame, box),
    )
    frames, box = talking(30)
    looked_at(frames, box, "real", num_frames=3)
    assert len(seen) == 3


def test_evidence_is_read_at_one_size():
    small, large = (looked_at(*talking(5, size), "real").evidence for size in (256, 512))
    for name in NAMES:
        assert getattr(small, name) == pytest.approx(getattr(large, name), abs=0.35), name


def test_medians_ignore_a_spoilt_frame():
    frames, box = talking(5)
    good = [frame_evidence(frame, box) for frame in frames]
    spoilt = frame_evidence(np.zeros((SIZE, SIZE, 3), np.uint8), box)
    assert likelihoods(combined([*good, spoilt]), shipped_router()) == pytest.approx(
        likelihoods(combined(good), shipped_router()), abs=0.1
    )


def test_a_face_beyond_the_picture_is_no_error():
    frame = talking(1)[0][0]
    assert frame_evidence(frame, (400.0, 400.0, 500.0, 500.0)).human == 0


# --- CLIP ---


@pytest.fixture(scope="module")
def random_clip(tmp_path_factory):
    """A tiny CLIPModel with random weights in the layout of real folders."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    folder = tmp_path_factory.mktemp("models") / "random-clip-for-tests"
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    letters = sorted({chr(code) for code in range(33, 127)})
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = {**small, "vocab_size": len(words), "max_position_embeddings": 77, **ends}
    vision = {**small, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    marks = {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **marks}))
    return folder


PROMPTS = {"real": ("a photo of a person",), "mesh": ("a grey head", "a rendered head")}


def test_clip_is_asked_with_the_prompts_of_every_domain(random_clip):
    frames, _ = talking(3)
    found = ZeroShot(str(random_clip), PROMPTS).chances(frames)
    assert list(found) == sorted(PROMPTS)
    assert sum(found.values()) == pytest.approx(1)
    assert found == ZeroShot(str(random_clip), PROMPTS).chances(frames)
    other = ZeroShot(str(random_clip), PROMPTS | {"real": ("zzzz",)}).chances(frames)
    assert other["real"] != pytest.approx(found["real"], abs=1e-6)


def test_clip_gives_what_transformers_gives(random_clip):
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    prompts = {name: texts[:1] for name, texts in PROMPTS.items()}
    frames, _ = talking(1)
    model = CLIPModel.from_pretrained(random_clip).eval()
    texts = [prompts[name][0] for name in sorted(prompts)]
    tokens = CLIPTokenizer.from_pretrained(random_clip)(texts, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(random_clip)(images=frames, return_tensors="pt").pixel_values
    with torch.inference_mode():
        wanted = model(pixel_values=pixels, **tokens).logits_per_image.softmax(dim=-1)[0].tolist()
    found = ZeroShot(str(random_clip), prompts).chances(frames)
    assert [found[name] for name in sorted(prompts)] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS_FILE, "preprocessor_config.json"])
def test_a_folder_without_a_file_is_refused_by_its_name(random_clip, tmp_path, name):
    folder = shutil.copytree(random_clip, tmp_path / "clip")
    (folder / name).unlink()
    with pytest.raises(UsageError, match=rf"router.clip: .* lacks {name}"):
        ZeroShot(str(folder), PROMPTS)


def test_another_kind_of_model_is_refused(random_clip, tmp_path):
    folder = shutil.copytree(random_clip, tmp_path / "clip")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="holds a model of type 'bert', expected 'clip'"):
        ZeroShot(str(folder), PROMPTS)


def test_weights_without_a_tensor_are_refused_by_its_name(random_clip, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(random_clip, tmp_path / "clip")
    tensors = load_file(folder / WEIGHTS_FILE)
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"lack 1 of CLIP's tensors, such as visual_projection\.weight"):
        ZeroShot(str(folder), PROMPTS)


def test_prompts_follow_the_descriptions():
    config = BuildConfig(router=RouterConfig(prompts={"mesh": ("a grey head",)}))
    found = domain_prompts(config)
    assert found["mesh"] == ("a grey head",)
    assert found["real"] == (f"a picture of {EMBEDDED_DOMAINS['real'].description}",)


# --- builds ---


def test_a_clips_key_depends_on_what_was_asked_for_and_on_nothing_else(tmp_path):
    from pipeline.store.workspace import Workspace

    def asked(**settings):
        results = Results(Workspace(tmp_path / "ws", create=True), BuildConfig(**settings))
        return results._optional("real"), results.model_files.digests("real").keys()

    plain, files = asked()
    assert plain == []
    assert "haarcascade_frontalcatface.xml" not in files
    routed, files = asked(router=RouterConfig())
    assert files >= set(EVIDENCE_FILES)
    variants = [
        plain,
        routed,
        asked(quality=QualityConfig())[0],
        asked(quality=QualityConfig(num_overlay_frames=8))[0],
        asked(router=RouterConfig(trust=0.8))[0],
    ]
    assert all(one != other for k, one in enumerate(variants) for other in variants[:k])
    # Texts count only where they are read.
    assert asked(router=RouterConfig(prompts={"mesh": ("a grey head",)}))[0] == routed


ANY = ("min_speech_ratio=0", "min_motion=0", "max_neighbours=9")
# Without trust in the manifest the astronaut is doubted wherever she does not belong.
ASKED = ("--set", "router={trust: 0.25}", "--set", "quality={}")


def test_a_wrong_claim_is_flagged_told_and_kept(films, tmp_path, capsys, random_clip):
    entry = {"id": TALKER.id, "uri": str(films / f"{TALKER.id}.mp4"), "license": TALKER.license}
    manifest = write_manifest(tmp_path / "manifest.yaml", [{**entry, "domain": "disney_animal"}])
    limits = [part for one in ANY for part in ("--set", f"domains.disney_animal.limits.{one}")]
    clip = ("--set", f"router.clip={random_clip}")
    assert build(manifest, tmp_path / "ws", *ASKED, *clip, *limits, "--release", "first") == 0
    capsys.readouterr()
    assert cli.run(["clips", "--workspace", str(tmp_path / "ws"), "--format", "json"]) == 0
    rows = {row["source_id"]: row for row in json.loads(capsys.readouterr().out)}
    talker = rows[TALKER.id]
    assert talker["domain"] == "disney_animal"
    assert "domain_doubtful" in talker["flags"].split()
    assert talker["router_doubtful"] is True
    assert talker["router_proposed"] != "disney_animal"
    assert talker["router_claim"] <= 0.2
    assert 0 < talker["stability"] <= 1
    assert talker["overlay"] <= 3
    release = tmp_path / "ws" / "releases" / "first"
    card = (release / "README.md").read_text()
    assert "| `disney_animal` | 1 | 1 |" in card
    assert "speak for" in (release / "card.html").read_text()
    table = pq.read_table(release / "manifest.parquet").to_pylist()
    [row] = [row for row in table if row["source_id"] == TALKER.id]
    assert row["scores_router"]["evidence"]["human"] > 0.5
    assert len(row["scores_router"]["zero_shot"]) == len(DOMAINS)
    assert row["scores_stability"] == talker["stability"]
    assert "clip" in json.loads((release / "release.json").read_text())["models"]
    assert cli.run(["verify", str(release)]) == 0


def test_the_card_counts_what_is_proposed_and_what_is_flagged():
    def row(name, proposed, doubtful):
        evidence = DomainEvidence(**dict.fromkeys(NAMES, 0.0))
        score = RouterScore(proposed=proposed, probability=0.9, claim=0.1, doubtful=doubtful, evidence=evidence)
        return make_row(name, scores={"router": score})

    rows = [row("a", "real", False), row("b", UNSURE, True), row("c", "mesh", True), make_row("d")]
    columns, (line,) = proposed_domains(rows)
    assert columns == ["mesh", "real", UNSURE]
    assert (line.claimed, line.counts, line.num_flagged) == ("real", [1, 1, 1], 2)
    assert proposed_domains([make_row("d")]) == ([], [])


def test_what_was_not_asked_for_leaves_no_trace(tmp_path):
    told = json.loads(BuildConfig().model_dump_json())
    assert not {"router", "quality"} & told.keys()
    assert not {"min_stability", "max_overlay"} & told["domains"]["real"]["limits"].keys()
    scores = json.loads(make_clip().scores.model_dump_json())
    assert not {"router", "stability", "overlay"} & scores.keys()


def test_a_missing_clip_folder_is_said_before_any_work(tmp_path):
    with pytest.raises(UsageError, match=r"router\.clip: .*lacks config\.json"):
        ModelSet(model_files(BuildConfig(router=RouterConfig(clip=str(tmp_path / "none"))))).check()


@pytest.mark.assets
@pytest.mark.slow
def test_on_films_left_out_false_alarms_are_rare(assets):
    from pipeline.bench.models import asset_models

    takes = gather(assets, asset_models(assets))
    config = RouterConfig()
    rows = router_rows(takes, DOMAINS, config)
    print(to_markdown(rows, DOMAINS, config))
    assert sum(row.flagged[row.domain] for row in rows) == 0
    caught = [row.flagged[claimed] / row.num_takes for row in rows for claimed in DOMAINS if claimed != row.domain]
    assert np.mean(caught) > 0.15
    fitted, shipped = fit(takes, DOMAINS), shipped_router()
    for take in takes:
        assert likelihoods(take.evidence, fitted) == pytest.approx(likelihoods(take.evidence, shipped), abs=0.01)
