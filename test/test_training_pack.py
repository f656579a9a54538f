# SPDX-License-Identifier: Apache-2.0
"""Training data that travel to a GPU: what is unpacked there is read like what was packed."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from training_bench import HELD_OUT, TRAINED, write_data

from maskrnn_ros.training.sources import Still, StillFile, read_material, read_videos
from maskrnn_ros.training.split import read_split

TOOLS = Path(__file__).resolve().parent.parent / "tools"
SIZE = 96, 128


def run(tool: str, *args: object, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, TOOLS / tool, *args]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **how)


def pack(data: Path, out: Path, mib: str) -> subprocess.CompletedProcess[str]:
    return run("pack_training_data.py", "--data", data, "--out", out, "--mib", mib)


def unpacked(pack: Path, out: Path) -> Path:
    made = run("unpack_training_data.py", pack, out)
    assert made.returncode == 0, made.stderr
    return out


def files_of(stills: tuple[Still | StillFile, ...]) -> dict[tuple[str, str], Still]:
    return {(still.source, still.image.stem): still.read() for still in stills if isinstance(still, StillFile)}


def test_what_is_unpacked_is_read_like_what_was_packed(tmp_path: Path) -> None:
    pytest.importorskip("av")
    data = write_data(tmp_path / "data", frames=6)
    known = read_material(data, "research", SIZE)
    made = pack(data, tmp_path / "all.tar", "2")
    assert made.returncode == 0, made.stderr
    again = unpacked(tmp_path / "all.tar", tmp_path / "again")
    found = read_material(again, "research", SIZE)
    assert [video.name for video in found.videos] == [video.name for video in known.videos] == [TRAINED]
    assert len(found.stills) == len(known.stills)
    one, other = found.videos[0], known.videos[0]
    assert np.array_equal(one.labels, other.labels)
    apart = np.abs(one.images[:, None].astype(int) - other.images[None]).mean((2, 3, 4))
    assert apart.diagonal().max() < 12 and (apart.argmin(1) == range(6)).all(), "each frame is at its place"
    assert np.abs((one.images.astype(float) - other.images).mean((0, 1, 2))).max() < 3, "no colour is shifted"
    by_name = files_of(known.stills)
    for name, still in files_of(found.stills).items():
        own = by_name[name]
        assert np.array_equal(still.labels, own.labels), name
        assert (still.alpha is None) is (own.alpha is None)
        assert still.alpha is None or np.array_equal(still.alpha, own.alpha)
        assert np.abs(still.image.astype(int) - own.image).mean() < 20, "noise has colours that 4:2:0 has not"
        assert np.abs((still.image.astype(float) - own.image).mean((0, 1))).max() < 3, name
    held = read_videos(again, read_split(), SIZE, held_out=True)
    assert [video.name for video in held] == [HELD_OUT]


def test_a_pack_keeps_within_its_room(tmp_path: Path) -> None:
    pytest.importorskip("av")
    data = write_data(tmp_path / "data", frames=6)
    whole = pack(data, tmp_path / "all.tar", "2")
    assert whole.returncode == 0, whole.stderr
    video_bytes, still_bytes = sizes(tmp_path / "all.tar")
    room = video_bytes + still_bytes * 0.4 + 3 * tarfile.RECORDSIZE
    small = pack(data, tmp_path / "small.tar", str(room / 2**20))
    assert small.returncode == 0, small.stderr
    assert (tmp_path / "small.tar").stat().st_size <= room
    found = read_material(unpacked(tmp_path / "small.tar", tmp_path / "again"), "research", SIZE)
    assert len(found.videos) == 1 and len(found.videos[0].images) == 6 and files_of(found.stills)
    none = pack(data, tmp_path / "none.tar", "0.02")
    assert none.returncode == 2 and not (tmp_path / "none.tar").exists()
    assert none.stderr == "pack_training_data: the clips alone take more than 0.02 MiB\n"


def sizes(pack: Path) -> tuple[int, int]:
    """Bytes of the clips, which come first, and of the stills."""
    with tarfile.open(pack) as tar:
        entries = [(int(entry.name.split(".")[0]), entry.size) for entry in tar if entry.name[0].isdigit()]
    return sum(size for number, size in entries if number < 2), sum(size for number, size in entries if number >= 2)


def test_without_pyav_it_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "av.py").write_text("raise ImportError\n")
    made = run("pack_training_data.py", "--data", tmp_path, "--out", tmp_path / "x.tar", env={"PYTHONPATH": tmp_path})
    assert made.returncode == 2
    assert made.stderr == "pack_training_data: expected PyAV for HEVC, found no module av: pip install av\n"


def test_a_file_that_is_no_pack_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        entry = tarfile.TarInfo("a")
        tar.addfile(entry, io.BytesIO())
    for name, word in (("other.tar", "index.json.xz"), ("absent.tar", "No such file")):
        made = run("unpack_training_data.py", tmp_path / name, tmp_path / "out")
        assert made.returncode == 2 and made.stderr.count("\n") == 1
        assert made.stderr.startswith(f"unpack_training_data: {tmp_path / name}: ") and word in made.stderr
