from __future__ import annotations

import sys

import click

from edgekd.cli._interrupt import resumed_by
from edgekd.cli._stages import RecipeOptions, recipe_options, run_until

_MISSED = 3


@click.command("run", short_help="Run a recipe: teacher to measured bundle.")
@recipe_options
@click.option("--plan", "only_plan", is_flag=True, help="Show what would run and what is reused; run nothing.")
@click.option("--strict", is_flag=True, help="Exit with 3 if an exported file is not usable or was left out.")
@click.option("--until", metavar="STAGE", help="End with this stage, e.g. prune.")
def command(options: RecipeOptions, only_plan: bool, strict: bool, until: str | None) -> None:
    """Run RECIPE, a YAML file or a built-in name such as digits.

    Finished stages are reused: after an interruption or a change the same command goes on from there. Exits with 3 if
    the recipe has a budget and it was missed; bundle and report are there all the same.
    """
    if until is not None and not only_plan:
        run_until(until, options, options.again("run", "--until", until))
        return
    if only_plan:
        _plan(options, until)
        return
    with resumed_by(options.again("run", *(["--strict"] if strict else []))):
        loaded, folder = options.load()

        from edgekd import pipeline
        from edgekd.cli._terminal import Terminal, show_result
        from edgekd.models.code import permitted

        with permitted(loaded.code), Terminal(quiet=options.as_json) as terminal:
            result = pipeline.run(loaded, folder, listener=terminal, console=terminal)
    show_result(result, as_json=options.as_json)
    failures = ["--strict: not usable: " + " ".join(result.problems)] if strict and result.problems else []
    failures += [f"--strict: {line}" for line in result.left_out] if strict else []
    if result.budget is not None and not result.budget.met:
        from edgekd.cli._budget import missed

        failures.append(missed(result.budget))
    for failure in failures:
        click.echo(f"edgekd: {failure}", err=True)
    if failures:
        sys.exit(_MISSED)


def _plan(options: RecipeOptions, until: str | None) -> None:
    loaded, folder = options.load()

    from edgekd import pipeline
    from edgekd.cli._terminal import Terminal, show_plan
    from edgekd.models.code import permitted
    from edgekd.report.budget_text import planned

    with permitted(loaded.code):
        console = Terminal(quiet=options.as_json)
        stages = pipeline.plan(loaded, folder, until=until, console=console)
    show_plan(stages, planned(loaded.settings) if until is None else (), as_json=options.as_json)
