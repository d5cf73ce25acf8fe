from __future__ import annotations

import click


@click.command("schema", short_help="Print the recipe's JSON schema, for editors.")
def command() -> None:
    """Print the JSON schema of recipes.

    For completion and checks while you type, save it and name it in the recipe's first line:
    # yaml-language-server: $schema=recipe.schema.json
    """
    import json

    from edgekd.errors import require

    require("torch", purpose="the recipe's schema", extra="train")
    from edgekd.recipe.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
