"""``anitalk bench``: measure the models on hand-labelled media, and what reading, training and animating cost."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.options import AssetsOption, DeviceOption
from flows.cli.rows import write_file

bench_app = typer.Typer(
    help="Measure the models on hand-labelled media, the loader, training and animation.", no_args_is_help=True
)


@bench_app.command()
def accuracy(
    assets: AssetsOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file; its picture lies beside it.")] = Path(
        "docs/accuracy.md"
    ),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="weights.dir=DIR, where the weights are not in the assets.")
    ] = None,
) -> None:
    """Score detectors, shots, landmarks, poses, mouths and sync against known truth; takes minutes."""
    from flows.settings import read_settings
    from pipeline.bench.models import asset_models
    from pipeline.bench.picture import draw
    from pipeline.bench.report import measure, to_markdown

    settings = read_settings(None, set_ or [])
    models = asset_models(assets, settings.weights.dir)
    figures = measure(assets, models, lambda part, *_: print(f"measuring {part} …", file=sys.stderr))  # noqa: T201
    picture = output.with_suffix(".png")
    write_file(picture, draw(figures))
    write_file(output, to_markdown(figures, picture.name).encode())
    print(f"{output} and {picture.name}")  # noqa: T201


@bench_app.command()
def router(
    assets: AssetsOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file.")] = Path("docs/router.md"),
    write: Annotated[Path | None, typer.Option("--write", help="JSON file for the fitted numbers.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="weights.dir=DIR, where the weights are not in the assets.")
    ] = None,
) -> None:
    """Fit the domain router to known media, and judge every film by a router fitted to the others; takes minutes."""
    from flows.settings import read_settings
    from pipeline.bench.models import asset_models
    from pipeline.bench.routing import fit, gather, router_rows, to_markdown
    from schemas.config import EMBEDDED_DOMAINS
    from schemas.router import RouterConfig

    settings = read_settings(None, set_ or [])
    takes = gather(assets, asset_models(assets, settings.weights.dir))
    domains, config = list(EMBEDDED_DOMAINS), settings.build.router or RouterConfig()
    write_file(output, to_markdown(router_rows(takes, domains, config), domains, config).encode())
    print(output)  # noqa: T201
    if write is not None:
        families = len({take.family for take in takes})
        model = fit(takes, domains, f"fitted to {len(takes)} takes of {families} families by anitalk bench router")
        write_file(write, (model.model_dump_json(indent=1) + "\n").encode())
        print(write)  # noqa: T201


@bench_app.command()
def loader(
    shards: Annotated[str, typer.Option("--shards", help="Folder or URI of a release, or shards by path or URL.")],
    batches: Annotated[int, typer.Option(min=1, help="How many are read in turns with bare decoding.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per batch.")] = 32,
    workers: Annotated[int, typer.Option(min=0, help="Processes of the run beside a step.")] = 1,
    step_ms: Annotated[float, typer.Option(min=0, help="Time of a training step; 0 leaves that run out.")] = 0.0,
    size_px: Annotated[int | None, typer.Option(min=16, help="Scale frames to this size.")] = None,
) -> None:
    """Compare reading pairs with bare decoding of the same frames, and find how long a training would wait."""
    from training.bench.loader import measure_loader
    from training.data import PairsConfig

    config = PairsConfig(batch_size=batch_size, num_workers=workers, size_px=size_px)
    for line in measure_loader(shards, config, num_batches=batches, step_ms=step_ms).lines():
        print(line)  # noqa: T201


@bench_app.command()
def animate(
    preset: Annotated[str, typer.Option(help="Sizes of the networks: 256, 256-plain, 512, small64, tiny64.")] = "256",
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Frames at once; repeatable; 1 and 8.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is measured.")] = 10,
    device: DeviceOption = "auto",
) -> None:
    """Time a frame of animation, and each way of being quicker; networks of true size with random weights."""
    from training.bench.animate import measure_animate
    from training.engine.launch import one_device

    figures = measure_animate(preset, one_device(device), batch_sizes=batch_size or (1, 8), num_rounds=rounds)
    for line in figures.lines():
        print(line)  # noqa: T201


@bench_app.command()
def train(
    preset: Annotated[
        Literal["256", "256-plain", "512", "small64", "tiny64"] | None,
        typer.Option(help="Sizes of the networks; 256 on a GPU by default, tiny64 on a processor."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Pairs per step.")] = 8,
    lever: Annotated[
        list[str] | None,
        typer.Option(
            help="bf16 (GPU), channels_last, compile or batch (twice the pairs), each on top of those before it; "
            "'none' for none of them. By default all on a GPU, and channels_last and batch on a processor."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each variant takes.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of a turn; 10 on a GPU, 1 on a processor.")] = None,
    device: DeviceOption = "auto",
    peak_tflops: Annotated[
        float | None,
        typer.Option(min=0.0, help="The machine's peak; by the GPU's name, or else a matrix product, by default."),
    ] = None,
) -> None:
    """Time a training step with random weights and pictures: its parts, its arithmetic, and what each lever brings."""
    from training.bench.train import TrainBenchRequest, measure_training

    levers = None if lever is None else tuple(name for name in lever if name != "none")
    request = TrainBenchRequest(preset, batch_size, levers, rounds, steps, device, peak_tflops)
    for line in measure_training(request).lines():
        print(line)  # noqa: T201
