from __future__ import annotations

import json

from click.testing import CliRunner

from edgekd.cli.doctor import command


def test_doctor_looks_without_touching():
    shown = CliRunner().invoke(command, ["--json"])
    assert shown.exit_code == 0, shown.stderr
    findings = {finding["what"]: finding for finding in json.loads(shown.stdout)}
    assert findings["onnxruntime"]["ok"] and findings["workstation"]["ok"]
    assert all(finding["hint"] is None for finding in findings.values() if finding["ok"])
