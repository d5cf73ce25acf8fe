"""Where tests lie: a module's at its path, so that whoever opens the one finds the other."""

from __future__ import annotations

from pathlib import Path

import edgekd

PACKAGE = Path(edgekd.__file__).parent
TESTS = Path(__file__).parent
# Tests of no single module.
OF_THE_WHOLE = {
    "examples/test_example.py",  # the example package, as it stands and installed
    "report/test_browser.py",  # the report's page as a browser draws it
    "stages/test_outside.py",  # CONTRIBUTING's worked example: a stage from outside the package
    "test_damage.py",  # what is read from files, damaged or forged, by every reader
    "test_dockerfile.py",
    "test_doctests.py",
    "test_documents.py",
    "test_layout.py",
    "test_multilabel.py",  # images with any number of the classes, through every stage
    "test_plugin_code.py",  # the code of plugins from outside, in the keys of the stages that run it
    "test_plugin_failures.py",  # plugins that are broken, or fail while they are used
    "test_plugin_page.py",
}
# Losses are tested together where they have the same contract: one on logits, on maps, on relations, with a memory.
OF_MANY_LOSSES = {
    "distillation/test_examples.py",
    *(
        f"distillation/methods/test_{name}.py"
        for name in ("feature_contract", "feature_training", "logits_by_row", "logits_contract", "maps", "relations")
    ),
    "distillation/methods/test_single_features.py",
}
# Modules this short need no test at their path: what they do shows in the tests of those that use them.
SHORT = 40
# Longer modules without a test at their path, and why.
TESTED_ELSEWHERE: dict[str, str] = {}


def places(module: Path) -> set[str]:
    """Where a module's tests may lie. A package's lie in its own folder, those of all its plugins too.

    `cli/_check.py` and `cli/check.py` share tests/cli/test_check.py.
    """
    folder = module.parent
    if module.name == "__init__.py":
        return {(folder / f"test_{kind}{folder.name}.py").as_posix() for kind in ("", "all_")}
    return {(folder / f"test_{module.stem.lstrip('_')}.py").as_posix()}


def test_a_test_lies_at_the_path_of_its_module_or_is_known_to_be_of_many():
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")]
    mirrored = {place for module in modules for place in places(module)}
    found = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    assert len(found) > 100 and found - mirrored == OF_THE_WHOLE | OF_MANY_LOSSES
    assert not mirrored & (OF_THE_WHOLE | OF_MANY_LOSSES)


def test_a_module_that_is_not_short_has_a_test_at_its_path_or_a_reason():
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    long = [path.relative_to(PACKAGE) for path in modules if len(path.read_text().splitlines()) > SHORT]
    untested = {module.as_posix() for module in long if not any((TESTS / place).is_file() for place in places(module))}
    assert len(long) > 100 and untested == set(TESTED_ELSEWHERE)
    assert all(TESTED_ELSEWHERE.values())


def test_where_a_modules_tests_lie():
    assert places(Path("stages/prune.py")) == {"stages/test_prune.py"}
    assert places(Path("data/sources/_files.py")) == {"data/sources/test_files.py"}
    assert places(Path("schemes/__init__.py")) == {"schemes/test_schemes.py", "schemes/test_all_schemes.py"}


def test_no_test_is_outside_the_files_that_pytest_collects():
    others = [path for path in TESTS.rglob("*.py") if not path.name.startswith("test_")]
    assert others and not [path.name for path in others if "\ndef test_" in path.read_text()]
