"""``anitalk schema``: the records, as JSON Schemas."""

from typing import Annotated

import typer


def schema(name: Annotated[str | None, typer.Argument(help="A record's name; all of them by default.")] = None) -> None:
    """Print the JSON Schemas of sources, clips, samples, releases and the rest."""
    import json

    from schemas.arrow import json_schemas
    from schemas.errors import UsageError

    schemas = json_schemas()
    if name is not None and name not in schemas:
        raise UsageError(f"there is no record {name!r}: choose from {', '.join(schemas)}")
    print(json.dumps(schemas[name] if name else schemas, indent=1))  # noqa: T201
