from __future__ import annotations

import os

from edgekd.data.sources._files import files_fingerprint


def test_a_fingerprint_follows_names_sizes_and_times_and_not_the_order(tmp_path):
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_text("x")
        os.utime(file, (1, 1))
    first = files_fingerprint(tmp_path, files)
    assert first["files"] == 2 and files_fingerprint(tmp_path, files[::-1]) == first
    os.utime(files[0], (2, 2))
    later = files_fingerprint(tmp_path, files)
    files[0].write_text("xy")
    os.utime(files[0], (2, 2))
    larger = files_fingerprint(tmp_path, files)
    renamed = files_fingerprint(tmp_path, [files[0], files[1].rename(tmp_path / "c")])
    assert len({each["digest"] for each in (first, later, larger, renamed)}) == 4


def test_a_link_that_leads_nowhere_counts_as_itself(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("gone")
    assert files_fingerprint(tmp_path, [link])["files"] == 1
