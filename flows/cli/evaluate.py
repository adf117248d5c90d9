"""``anitalk evaluate``: what a trained recipe does to held-out pairs, measured. Needs the ``train`` extra alone."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.options import ConfigOption, DeviceOption, RecipeArgument

Protocol = Literal["same-identity", "cross-identity", "cross-domain"]
ProtocolOption = Annotated[Protocol, typer.Option(help="Who drives whom.")]
MetricsOption = Annotated[
    str | None,
    typer.Option(help="Names with commas between; by default all of the protocol, and what one lacks ends it."),
]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, such as metrics.fid.path=FILE; repeatable.")
]


def evaluate(
    recipe: RecipeArgument,
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint, or the folder of a run, whose best one is taken.")],
    release: Annotated[str, typer.Option(help="Folder or URI of a release.")],
    protocol: ProtocolOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of table, record, pairs and pictures.")],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Whose clips are used.")] = "test",
    metrics: MetricsOption = None,
    pairs: Annotated[Path | None, typer.Option(help="The pairs.jsonl of another evaluation, to use its pairs.")] = None,
    driving_domain: Annotated[list[str] | None, typer.Option(help="Only this domain drives; repeatable.")] = None,
    source_domain: Annotated[list[str] | None, typer.Option(help="Only this domain is driven; repeatable.")] = None,
    config: ConfigOption = None,
    set_: SettingsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure a recipe on held-out pairs, beside real frames, the source itself and the published figures."""
    from flows.cli.progress import Bars
    from training.engine.launch import one_device
    from training.evaluation import run
    from training.evaluation.settings import read_evaluation
    from training.recipes.registry import find_recipe

    find_recipe(recipe)
    request = run.EvaluationRequest(
        checkpoint=checkpoint,
        release=release,
        protocol=protocol,
        output=output,
        config=read_evaluation(config, set_ or ()),
        split=split,
        metrics=tuple(name.strip() for name in metrics.split(",")) if metrics else (),
        pairs=pairs,
        driving_domains=tuple(driving_domain or ()),
        source_domains=tuple(source_domain or ()),
        recipe=recipe,
    )
    with Bars() as bars:
        run.evaluate(request, one_device(device), bars.report)
    typer.echo((output / run.TABLE_FILE).read_text(encoding="utf-8"))
