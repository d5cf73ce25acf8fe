from __future__ import annotations

import click

from edgekd.cli._stages import again, recipe_options


@click.command("run", short_help="Run a recipe: teacher to measured bundle.")
@recipe_options
@click.option("--plan", "only_plan", is_flag=True, help="Show what would run and what is reused; run nothing.")
def command(
    recipe: str, out: str | None, overrides: tuple[str, ...], allow_code: bool, as_json: bool, only_plan: bool
) -> None:
    """Run RECIPE, a YAML file or a built-in name such as digits.

    Finished stages are reused: after an interruption or a change the same command goes on from there.
    """
    from pathlib import Path

    from edgekd.recipe import load as recipes

    # Before anything that only a workstation has: a device is told so, not shown a missing module.
    loaded = recipes.load(recipe, overrides, allow_code=allow_code)
    folder = Path(out) if out else Path("runs") / loaded.settings.name

    from edgekd import pipeline
    from edgekd.cli._terminal import Terminal, show_plan, show_result
    from edgekd.models.code import permitted

    if only_plan:
        with permitted(loaded.code):
            show_plan(pipeline.plan(loaded, folder), as_json=as_json)
        return
    resume = again("run", recipe, overrides, out, allow_code)
    with permitted(loaded.code), Terminal(quiet=as_json, resume=resume) as terminal:
        result = pipeline.run(loaded, folder, listener=terminal, console=terminal)
    show_result(result, as_json=as_json)
