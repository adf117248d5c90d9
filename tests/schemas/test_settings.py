"""Settings say what they mean, where `anitalk schema`, editors and pages can read it."""

import pytest
from pydantic import BaseModel, Field, create_model

from schemas.arrow import SETTINGS, json_schemas
from schemas.base import Record
from schemas.explanations import explanations
from training.data.config import AugmentConfig, PairsConfig
from training.evaluation.metrics.config import EvaluationConfig


def unexplained(schema: dict) -> list[str]:
    """The settings of a JSON Schema and of all records inside it that have no description."""
    records = {schema["title"]: schema, **schema.get("$defs", {})}
    return [
        f"{title}.{name}"
        for title, record in records.items()
        for name, value in record.get("properties", {}).items()
        if not value.get("description", "").strip()
    ]


TRAINING = (PairsConfig, AugmentConfig, EvaluationConfig)


@pytest.mark.parametrize("kind", [*SETTINGS, *TRAINING], ids=lambda kind: kind.__name__)
def test_every_setting_is_explained(kind):
    assert not unexplained(kind.model_json_schema())


def test_the_schema_command_knows_the_settings():
    assert {kind.__name__ for kind in SETTINGS} <= set(json_schemas())
    face = json_schemas()["BuildConfig"]["$defs"]["FaceConfig"]["properties"]
    assert face["stride"]["description"] == "Frames between detections (TalkVid, LivePortrait)."


def test_explanations_are_inherited_replaced_and_one_line():
    class Parent(Record):
        first: int
        """The first,
        on two lines."""
        second: int = 2
        silent: int = 3

    class Child(Parent):
        second: int = Field(default=3, description="The second.")
        third: int = 4
        """The third."""

    assert explanations(Child) == {"first": "The first, on two lines.", "second": "The second.", "third": "The third."}
    assert explanations(Parent) == {"first": "The first, on two lines."}
    assert unexplained(Child.model_json_schema()) == ["Child.silent"]


def test_a_class_without_source_is_said():
    with pytest.raises((OSError, TypeError)):
        explanations(create_model("Made", __base__=BaseModel, value=(int, 1)))
