# SPDX-License-Identifier: Apache-2.0
"""Files: what is damaged or in the way is told in one line, and nothing is lost or left half."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from maskrnn_ros import cli, expected
from maskrnn_ros.bags import checksums, convert
from maskrnn_ros.bags.convert import files_of_bag, from_davis
from maskrnn_ros.bags.read import BagReader
from maskrnn_ros.disk import check_plain_name, regular_file, replacing, write_text

FRAMES = 5
SIZE = (90, 160)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of one sequence of noise, too large for one chunk of an mcap file to be unlike another."""
    images, masks = tmp_path / "JPEGImages/480p/ball", tmp_path / "Annotations/480p/ball"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(FRAMES):
        cv2.imwrite(str(images / f"{number:05d}.jpg"), random.integers(0, 255, (*SIZE, 3), np.uint8))
        mask = np.zeros(SIZE, np.uint8)
        mask[10:40, 20 + number : 60 + number] = 1
        cv2.imwrite(str(masks / f"{number:05d}.png"), mask)
    return tmp_path


@pytest.fixture(params=["mcap", "sqlite3"])
def bag(request: pytest.FixtureRequest, root: Path) -> Path:
    from_davis(root, "ball", root / "bag", storage=request.param)
    return root / "bag"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def content(bag: Path) -> list[tuple[str, int, bytes]]:
    with BagReader(bag) as reader:
        return [(message.topic, message.log_ns, message.data) for message in reader.messages()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    *bars, line = error.splitlines()
    assert line.startswith(f"maskrnn {arguments[0]}: ") and all("frame" in bar or not bar for bar in bars), error
    return line


# --- writing ---


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    write_text(file, "old")
    with pytest.raises(OSError, match="No space left"), replacing(file) as made:
        made.write_text("hal")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert files(tmp_path) == {"figures.json": b"old"}
    write_text(file, "new")
    assert files(tmp_path) == {"figures.json": b"new"}
    umask = os.umask(0)
    os.umask(umask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_is_no_file_is_written_to_and_not_replaced() -> None:
    write_text("/dev/null", "nothing")
    assert Path("/dev/null").is_char_device()


def test_regular_files_are_told_from_others_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(bytes(10))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert regular_file(tmp_path / "file", 10) and regular_file(tmp_path / "link")
    for name, said in (
        ("pipe", "expected a regular file, found a pipe"),
        (".", "expected a file, found a folder"),
        ("none", "No such file"),
    ):
        with pytest.raises(OSError, match=said):
            regular_file(tmp_path / name)
    with pytest.raises(OSError, match="file: expected at most 9 bytes, found 10"):
        regular_file(tmp_path / "file", 9)


# --- bags ---


def test_a_bag_is_replaced_by_one_that_is_complete(root: Path, bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(bag)
    with pytest.raises(ValueError, match="exists; overwrite replaces it"):
        from_davis(root, "ball", bag)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(convert._Channel, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            from_davis(root, "ball", bag, overwrite=True)
    assert files(bag) == before and sorted(path.name for path in root.iterdir()) == ["Annotations", "JPEGImages", "bag"]
    from_davis(root, "ball", bag, fps=10.0, overwrite=True)
    assert content(bag)[-1][1] == 1_400_000_000


def test_only_a_bags_own_files_are_deleted(root: Path, bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("bag", "from-davis", "--root", root, "--sequence", "ball", "--out", bag, "--overwrite")
    (bag / "thesis.pdf").write_text("three years")
    before = files(bag)
    assert "bag holds thesis.pdf, which is none of the bag's files; it is not replaced" in refused(capsys, *arguments)
    assert files(bag) == before
    (bag / "thesis.pdf").unlink()
    (bag / "folder").mkdir()
    assert "bag holds folder, which is none" in refused(capsys, *arguments)
    (bag / "folder").rmdir()
    assert {path.name for path in files_of_bag(bag)} == set(before) - {"thesis.pdf"}
    for text in ("title: three years", "[", "rosbag2_bagfile_information: 3", ""):
        (bag / "metadata.yaml").write_text(text)
        assert "exists and is no bag" in refused(capsys, *arguments)
    assert cli.main([str(argument) for argument in (*arguments[:-2], root / "other", "--overwrite")]) == 0


def test_bytes_that_changed_inside_an_mcap_file_are_noticed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from_davis(root, "ball", root / "bag")
    (file,) = (root / "bag").glob("*.mcap")
    good, data = content(root / "bag"), bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 5000] = b"\xff" * 5000
    file.write_bytes(data)
    with pytest.raises(ValueError, match="cannot read .*Chunk checksum mismatch"):
        content(root / "bag")
    assert "Chunk checksum mismatch" in refused(capsys, "evaluate", "--bag", root / "bag")
    data[len(data) // 2 : len(data) // 2 + 5000] = b"\0" * 5000
    assert good and all(found[2] for found in good)


def test_checksums_are_added_once_and_change_nothing_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "add_checksums", lambda file: 0)
    from_davis(root, "ball", root / "bag")
    (file,) = (root / "bag").glob("*.mcap")
    before, good = file.read_bytes(), content(root / "bag")
    count = checksums.add_checksums(file)
    assert count >= 1 and checksums.add_checksums(file) == 0
    after = file.read_bytes()
    assert len(after) == len(before) and content(root / "bag") == good
    changed = [place for place, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    assert 1 <= len(changed) <= 4 * count
    (root / "none.mcap").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="expected an mcap file"):
        checksums.add_checksums(root / "none.mcap")


@pytest.mark.parametrize("damage", ["cut", "noise", "zeros", "empty", "pipe"])
def test_a_damaged_bag_is_told_in_one_line(bag: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = [file for file in bag.iterdir() if file.suffix in (".mcap", ".db3")]
    data = bytearray(file.read_bytes())
    noise = np.random.default_rng(1).bytes(len(data) - 200)
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    else:
        changed = {"cut": data[: len(data) // 2], "noise": data[:200] + noise, "zeros": bytes(len(data)), "empty": b""}
        file.write_bytes(changed[damage])
    line = refused(capsys, "evaluate", "--bag", bag)
    assert "bag" in line and len(line) < 500


# --- the command line ---


@pytest.mark.parametrize("name", ["../x", "/etc", "..", ".", "a/b", "x\0y"])
def test_a_sequence_has_a_plain_name(root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="expected the plain name of a thing, got"):
        check_plain_name(name, "thing")
    said = refused(capsys, "evaluate", "--root", root, "--sequences", name, "--out", root / "out")
    assert "expected the plain name of a sequence, got" in said
    said = refused(capsys, "bag", "from-davis", "--root", root, "--sequence", name, "--out", root / "bag")
    assert "expected the plain name of a sequence, got" in said
    assert not (root / "bag").exists()


def errors() -> list[tuple[Callable[[], Exception], str]]:
    import apsw

    return [
        (lambda: MemoryError(), "MemoryError: not enough memory"),
        (lambda: MemoryError("Unable to allocate 9 GiB"), "MemoryError: Unable to allocate 9 GiB"),
        (lambda: sqlite3.DatabaseError("database disk image is malformed"), "DatabaseError: database disk image"),
        (lambda: apsw.FullError("database or disk is full"), "FullError: database or disk is full"),
        (lambda: Image.DecompressionBombError("too large"), "DecompressionBombError: too large"),
        (
            lambda: OSError(errno.ENOSPC, "No space left on device", "x.png"),
            "[Errno 28] No space left on device: 'x.png'",
        ),
        (lambda: cv2.error("Insufficient memory"), "error: Insufficient memory"),
        (lambda: RecursionError("maximum recursion depth exceeded"), "maximum recursion depth exceeded"),
        (lambda: EOFError(), "EOFError"),
        (lambda: ValueError("two\nlines"), "two lines"),
    ]


@pytest.mark.parametrize("number", range(10))
def test_what_may_go_wrong_is_one_line_and_status_2(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = errors()[number]

    def run(*_: object, **__: object) -> None:
        raise make()

    monkeypatch.setattr("maskrnn_ros.model.digests.write_digests", run)
    assert said in refused(capsys, "weights", "digests")


@pytest.mark.parametrize("kind", [KeyError, TypeError, AssertionError, AttributeError, ZeroDivisionError])
def test_a_fault_of_ours_keeps_its_traceback(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not issubclass(kind, expected.expected_errors())

    def run() -> None:
        raise kind("ours")

    monkeypatch.setattr("maskrnn_ros.model.digests.write_digests", run)
    with pytest.raises(kind, match="ours"):
        cli.main(["weights", "digests"])


def test_figures_are_written_as_a_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / "figures.json"
    file.write_text("{}")

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = ("bag", "from-davis", "--root", root, "--sequence", "ball", "--json", file, "--out")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert "No space left" in refused(capsys, *arguments, root / "bag")
    assert json.loads(file.read_text()) == {}
    assert cli.main([str(argument) for argument in (*arguments, root / "other")]) == 0
    assert json.loads(file.read_text())["path"] == str(root / "other")
