"""Fitted limits keep what was accepted, in the digits that are written, and say what they do before they do it."""

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flows.cli import application as cli
from pipeline.curate.calibrate import FITTED, effects, fit_limits, fitted_limits
from pipeline.curate.select import RULES, decide
from schemas.config import SelectLimits
from schemas.decision import Decision
from tests.helpers import films as films_module
from tests.helpers.release_items import make_clip

films, built = films_module.films, films_module.built  # fixtures
LIMITS = {"real": SelectLimits()}


def clips_of(values, name="sharpness", domain="real"):
    return [
        make_clip(f"c{k}", domain=domain, scores={name: float(value)}, num_frames=80) for k, value in enumerate(values)
    ]


def accepted(clips, *but):
    return [Decision(clip_id=clip.clip_id, keep=clip.clip_id not in but) for clip in clips]


def fit_of(fits, limit="min_sharpness"):
    return next(fit for fit in fits if fit.limit == limit)


# --- laws ---


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60), st.sampled_from(["sharpness", "exposure"]))
def test_at_share_one_every_accepted_clip_is_kept(values, name):
    clips = clips_of(values, name)
    limits = {"real": SelectLimits(min_exposure=0.0, max_exposure=1e9)}
    fits = fit_limits(clips, accepted(clips), limits, share=1.0, min_clips=1)
    fitted = fitted_limits(limits, fits)["real"]
    for clip in clips:
        score = getattr(clip.scores, name)
        assert getattr(fitted, f"min_{name}") <= score
        assert name != "exposure" or fitted.max_exposure >= score


@given(st.integers(20, 200), st.floats(0.5, 1.0))
def test_no_limit_drops_more_of_the_accepted_than_it_may(num, share):
    clips = clips_of(np.random.default_rng(num).random(num) * 100 + 1)
    fit = fit_of(fit_limits(clips, accepted(clips), LIMITS, share=share))
    assert fit.missed_fitted <= (1 - share) * num + 1e-9


def test_fitting_what_was_fitted_changes_nothing_at_share_one():
    clips = clips_of(range(3, 40))
    once = fitted_limits(LIMITS, fit_limits(clips, accepted(clips), LIMITS, share=1.0))
    assert fitted_limits(once, fit_limits(clips, accepted(clips), once, share=1.0)) == once


def test_domains_are_fitted_apart():
    clips = clips_of(range(100, 130)) + [
        clip.model_copy(update={"domain": "mesh", "plan": clip.plan.model_copy(update={"clip_id": f"m{k}"})})
        for k, clip in enumerate(clips_of(range(1, 31)))
    ]
    limits = {"real": SelectLimits(), "mesh": SelectLimits()}
    fits = [fit for fit in fit_limits(clips, accepted(clips), limits, share=1.0) if fit.limit == "min_sharpness"]
    assert [(fit.domain, fit.fitted) for fit in fits] == [("mesh", 1.0), ("real", 100.0)]


# --- cases ---


def test_rejected_clips_teach_nothing_and_are_counted():
    clips = clips_of(range(1, 41))
    lost = [f"c{k}" for k in range(10)]
    fit = fit_of(fit_limits(clips, accepted(clips, *lost), LIMITS, share=1.0))
    assert (fit.now, fit.fitted, fit.num_accepted, fit.num_clips) == (0.0, 11.0, 30, 40)
    assert (fit.missed_now, fit.missed_fitted) == (0, 10)


@pytest.mark.parametrize(("num", "fitted"), [(19, False), (20, True), (21, True)])
def test_a_tail_needs_a_body(num, fitted):
    clips = clips_of(range(1, num + 1))
    assert bool(fit_limits(clips, accepted(clips), LIMITS, min_clips=20)) is fitted


@pytest.mark.parametrize(("value", "written"), [(12.3456, 12.3), (0.00123456, 0.00123), (-1.2345, -1.24), (0.0, 0.0)])
def test_limits_are_rounded_outwards(value, written):
    clips = clips_of([value] * 3)
    assert fit_of(fit_limits(clips, accepted(clips), LIMITS, min_clips=1)).fitted == written


def test_the_effect_is_what_selection_would_do():
    clips = clips_of(range(1, 41))
    fitted = fitted_limits(LIMITS, fit_limits(clips, accepted(clips, "c0", "c1"), LIMITS, share=1.0))
    (effect,) = effects(clips, LIMITS, fitted)
    assert effect.kept_now == sum(decide(clip, LIMITS["real"]).keep for clip in clips) == 40
    assert effect.kept_fitted == sum(decide(clip, fitted["real"]).keep for clip in clips) == 38
    assert (effect.newly_dropped, effect.newly_kept) == (2, 0)


def test_only_limits_of_the_rules_are_fitted():
    assert set(FITTED) <= {rule.limit for rule in RULES}


# --- the command ---


def test_the_command_shows_and_then_writes_what_release_reads(built, tmp_path, capsys):
    wanted = tmp_path / "limits.yaml"
    assert cli.run(["calibrate", "-w", str(built.workspace), "--min-clips", "1", "--write", str(wanted)]) == 0
    shown = capsys.readouterr().out
    assert "min_sharpness" in shown
    assert "newly_dropped" in shown
    given_limits = yaml.safe_load(wanted.read_text())["domains"]
    assert set(given_limits) <= {"real", "mesh"}
    assert all(set(domain["limits"]) <= set(FITTED) for domain in given_limits.values())
    status = ["release", "again", "-w", str(built.workspace), "--config", str(wanted), "--to", str(tmp_path / "to")]
    assert cli.run(status) == 0
    assert cli.run(["calibrate", "-w", str(built.workspace), "--min-clips", "1", "--write", str(wanted)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_too_few_clips_are_one_sentence(built, capsys):
    assert cli.run(["calibrate", "-w", str(built.workspace)]) == 2
    assert "no domain has 20 accepted clips" in capsys.readouterr().err
