# SPDX-License-Identifier: Apache-2.0
"""The C++ decoder says what maskrnn_ros.masks says, of masks and of what is none."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from maskrnn_ros.masks import MaskEncoding, decode, decode_probability, encode, paste

COMPILER = shutil.which("g++")
HERE = Path(__file__).resolve().parent
STRICT = ["-std=c++14", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
WITH_MASK = [encoding for encoding in MaskEncoding if encoding != MaskEncoding.NONE]
SIZES = [(0, 0), (0, 3), (3, 0), (1, 1), (1, 8), (3, 3), (5, 7), (8, 16), (13, 31), (300, 301)]

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++")


@dataclasses.dataclass(frozen=True)
class Case:
    data: bytes
    height: int
    width: int
    encoding: int
    x: int = 0
    y: int = 0
    image: tuple[int, int] = (320, 330)

    def request(self) -> bytes:
        head = (self.height, self.width, self.encoding, self.x, self.y, *self.image, len(self.data))
        return np.array(head, "<u4").tobytes() + self.data

    def by_python(self) -> bytes:
        try:
            mask = decode(self.data, self.height, self.width, self.encoding)
            full = paste(mask, self.x, self.y, *self.image)
        except ValueError as error:
            text = str(error).encode()
            return np.array((1, len(text)), "<u4").tobytes() + text
        found = np.array(0, "<u4").tobytes() + np.multiply(full, 7, dtype="<u2").tobytes()
        if self.encoding == MaskEncoding.PROB8:
            found += decode_probability(self.data, self.height, self.width).tobytes()
        return found


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("masks") / "driver"
    command = [
        str(COMPILER),
        *STRICT,
        f"-I{HERE.parent / 'include'}",
        str(HERE / "masks_driver.cpp"),
        "-o",
        str(program),
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return program


def compare(driver: Path, cases: list[Case]) -> list[bytes]:
    """Answers by C++, each compared with that by Python."""
    result = subprocess.run([driver], input=b"".join(case.request() for case in cases), capture_output=True)
    assert result.returncode == 0, result.stderr
    expected = [case.by_python() for case in cases]
    ends = np.cumsum([0, *map(len, expected)]).tolist()
    answers = [result.stdout[a:b] for a, b in zip(ends, ends[1:], strict=False)]
    for case, got, wanted in zip(cases, answers, expected, strict=True):
        assert got == wanted, case
    assert len(result.stdout) == ends[-1]
    return answers


@pytest.mark.parametrize("encoding", WITH_MASK, ids=lambda e: e.name)
def test_masks_of_all_sizes_are_decoded_and_pasted_alike(driver: Path, encoding: MaskEncoding) -> None:
    random = np.random.default_rng(0)
    cases = []
    for height, width in SIZES:
        for share in (0.0, 0.1, 0.5, 1.0):
            probability = random.random((height, width), np.float32)
            mask = random.random((height, width)) < share
            cases.append(Case(encode(mask, probability, encoding), height, width, encoding, x=29, y=20))
    answers = compare(driver, cases)
    assert all(answer[:4] == bytes(4) for answer in answers)
    assert any(7 in np.frombuffer(answer[4:], "<u2") for answer in answers)


def test_any_non_zero_byte_of_mono8_counts_and_half_of_prob8(driver: Path) -> None:
    every = bytes(range(256))
    compare(driver, [Case(every, 16, 16, encoding) for encoding in (MaskEncoding.MONO8, MaskEncoding.PROB8)])


def runs(*lengths: int) -> bytes:
    return np.array(lengths, "<u4").tobytes()


REFUSED = {
    "none": Case(b"", 0, 0, MaskEncoding.NONE),
    "unknown": Case(b"", 0, 0, 5),
    "unknown, large": Case(bytes(4), 2, 2, 255),
    "mono8 short": Case(bytes(3), 2, 2, MaskEncoding.MONO8),
    "mono8 long": Case(bytes(5), 2, 2, MaskEncoding.MONO8),
    "bits short": Case(bytes(1), 3, 3, MaskEncoding.BITS),
    "bits long": Case(bytes(3), 3, 3, MaskEncoding.BITS),
    "bits of no pixel": Case(bytes(1), 0, 3, MaskEncoding.BITS),
    "rle torn": Case(bytes(5), 1, 1, MaskEncoding.RLE),
    "rle short": Case(runs(1, 2), 2, 2, MaskEncoding.RLE),
    "rle long": Case(runs(1, 4), 2, 2, MaskEncoding.RLE),
    "rle empty": Case(b"", 2, 2, MaskEncoding.RLE),
    "rle beyond 32 bits": Case(runs(2**32 - 1, 5), 2, 2, MaskEncoding.RLE),
    "rle of gigabytes": Case(runs(0, 2**32 - 2), 2**31 - 1, 2, MaskEncoding.RLE),
    "a side too long": Case(runs(16_385), 1, 16_385, MaskEncoding.RLE),
    "too many pixels": Case(runs(34_008_500), 8_500, 4_001, MaskEncoding.RLE),
    "prob8 short": Case(bytes(3), 2, 2, MaskEncoding.PROB8),
    "size beyond 32 bits": Case(bytes(4), 2**31, 2**31 + 1, MaskEncoding.MONO8),
    "huge": Case(bytes(8), 2**32 - 1, 2**32 - 1, MaskEncoding.BITS),
    "right of the image": Case(bytes(4), 2, 2, MaskEncoding.MONO8, x=329),
    "below the image": Case(bytes(4), 2, 2, MaskEncoding.MONO8, y=319),
    "far outside": Case(bytes(4), 2, 2, MaskEncoding.MONO8, x=2**32 - 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_mask_is_refused_with_the_same_words(driver: Path, name: str) -> None:
    (answer,) = compare(driver, [REFUSED[name]])
    assert answer[:4] == runs(1)


def test_the_driver_goes_on_after_an_error(driver: Path) -> None:
    fine = Case(bytes([255, 0]), 1, 2, MaskEncoding.MONO8)
    compare(driver, [*REFUSED.values(), fine])


def test_random_bytes_are_refused_or_decoded_alike(driver: Path) -> None:
    random = np.random.default_rng(1)
    cases = []
    for _ in range(400):
        height, width = random.integers(0, 4, 2).tolist()
        data = random.integers(0, 3, int(random.integers(0, 13)), np.uint8).tobytes()
        cases.append(Case(data, height, width, int(random.integers(0, 6))))
    answers = compare(driver, cases)
    assert {answer[0] for answer in answers} == {0, 1}
