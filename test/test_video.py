# SPDX-License-Identifier: Apache-2.0
"""Video files: what is lost in a damaged one, names by position, rates, paths."""

import cv2
import numpy as np
import pytest

from maskrnn_ros.datasets.video import VideoFrames, VideoWriter, ranges


def ramp(index, height=32, width=48):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 40 + 20 * index  # red tells the frames, and RGB from BGR
    image[..., 2] = np.linspace(0, 255, width, dtype=np.uint8)
    return image


@pytest.mark.parametrize("codec", ["mp4v", "vp09"])
def test_video_reads_back_in_order_and_in_rgb(tmp_path, codec):
    path = tmp_path / "a.mp4"
    try:
        with VideoWriter(path, 12.5, codec) as writer:
            for index in range(5):
                writer.write(ramp(index))
    except OSError as error:
        pytest.skip(str(error))  # an OpenCV without this codec
    source = VideoFrames(path)
    assert source.fps == pytest.approx(12.5)
    assert source.numbers == list(range(5)) and not source.lost
    assert [source.stem(number) for number in (0, 4)] == ["00000", "00004"]
    assert source.stamp_ns(4) == 400_000_000
    for index in (0, 1, 2, 4, 3):  # forwards it reads on, backwards it begins again
        frame = source.image(index)
        assert np.abs(frame.astype(int) - ramp(index)).mean() < 6, "lossy, but not another frame or channel"


def test_odd_last_row_and_column_are_left_out(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 24) as writer:
        writer.write(ramp(0, 33, 49))
    assert VideoFrames(tmp_path / "a.mp4").image(0).shape == (32, 48, 3)


def test_video_refuses_what_it_cannot_take(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 24) as writer:
        writer.write(ramp(0))
        with pytest.raises(ValueError, match=r"are \(32, 48\), got \(16, 48\)"):
            writer.write(ramp(0, 16, 48))
        with pytest.raises(ValueError, match="float64"):
            writer.write(ramp(0).astype(float))
    with pytest.raises(ValueError, match="fps must be >= 0.0001"):
        VideoWriter(tmp_path / "a.mp4", 0.0)
    with pytest.raises(ValueError, match="four characters"):
        VideoWriter(tmp_path / "a.mp4", 24, "h264x")


def test_file_that_cannot_be_opened_is_an_error(tmp_path):
    with (
        VideoWriter(tmp_path / "absent" / "a.mp4", 24) as writer,
        pytest.raises(OSError, match="cannot write .*absent"),
    ):
        writer.write(ramp(0))


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"a\.mp4: expected a video"):
        VideoFrames(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="no file"):
        VideoFrames(tmp_path / "b.mp4")


COUNT = 40


def numbered(index):
    """A picture that tells its number by where a bar stands."""
    image = np.random.default_rng(index).integers(0, 60, (96, 128, 3), dtype=np.uint8)  # so that all take some bytes
    image[10:80, 3 * index : 3 * index + 8] = 220
    return image


def number_of(image):
    return round((float(np.argmax(image[20:70].mean(axis=(0, 2)) > 125))) / 3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Whole files of 40 frames, by suffix and codec."""
    folder = tmp_path_factory.mktemp("videos")
    made = {}
    for name, codec in (("a.mp4", "mp4v"), ("b.webm", "VP80"), ("c.mkv", "mp4v"), ("d.avi", "MJPG")):
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter.fourcc(*codec), 24, (128, 96))
        if not writer.isOpened():
            continue
        for index in range(COUNT):
            writer.write(numbered(index))
        writer.release()
        made[name[2:]] = folder / name
    return made


def damaged(videos, tmp_path, suffix, begin, end):
    """A copy of a whole file with a part of it overwritten by zeros; cut off where the part reaches to the end."""
    if suffix not in videos:
        pytest.skip(f"an OpenCV that writes no {suffix}")
    data = bytearray(videos[suffix].read_bytes())
    first, last = int(len(data) * begin), int(len(data) * end)
    data[first:last] = b"" if end == 1 else bytes(last - first)
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "webm", "mkv", "avi"])
def test_a_whole_file_has_all_frames(videos, suffix):
    if suffix not in videos:
        pytest.skip(f"an OpenCV that writes no {suffix}")
    source = VideoFrames(videos[suffix])
    assert len(source) == COUNT and not source.lost
    assert [number_of(source.image(number)) for number in source.numbers] == list(range(COUNT))


@pytest.mark.parametrize(
    ("suffix", "begin", "end"),
    [("mp4", 0.4, 0.5), ("webm", 0.4, 0.5), ("webm", 0.6, 1), ("mkv", 0.4, 0.5), ("mkv", 0.6, 1)],
)
def test_what_a_damaged_file_lost_is_known_and_the_rest_keeps_its_numbers(videos, tmp_path, suffix, begin, end):
    path = damaged(videos, tmp_path, suffix, begin, end)
    with pytest.raises(ValueError, match=r"expected 40 frames, \d+ can be decoded; lost are .*--allow-gaps") as caught:
        VideoFrames(path)
    assert "\n" not in str(caught.value)
    source = VideoFrames(path, allow_gaps=True)
    assert len(source) == COUNT and 0 < len(source.lost) < 0.6 * COUNT
    assert set(source.numbers) | set(source.lost) == set(range(COUNT))
    before, after = min(source.lost), max(source.lost)
    whole = [number for number in source.numbers if number < before - 1]  # the last one may be damaged in part
    assert [number_of(source.image(number)) for number in whole] == whole
    # behind the hole pictures lean on lost ones until the next whole one; a codec of whole pictures is exact at once
    late = [number for number in source.numbers if number > after + 12]
    assert [number_of(source.image(number)) for number in late] == late
    with pytest.raises(ValueError, match=f"frame {before} of .* is lost"):
        source.image(before)


@pytest.mark.parametrize(("begin", "end"), [(0.4, 0.5), (0.6, 1)])
def test_an_avi_cannot_tell_which_frames_are_lost(videos, tmp_path, begin, end):
    path = damaged(videos, tmp_path, "avi", begin, end)
    with pytest.raises(ValueError, match=r"expected 40 frames, \d+ can be decoded, and which .*: an AVI has no times"):
        VideoFrames(path, allow_gaps=True)


@pytest.mark.parametrize("rate", [180_000, 90_000])
def test_a_header_that_tells_the_unit_of_its_clock_needs_a_rate(videos, tmp_path, rate):
    if "avi" not in videos:
        pytest.skip("an OpenCV that writes no avi")
    data = bytearray(videos["avi"].read_bytes())
    at = data.index(b"strh") + 8 + 20
    data[at : at + 8] = (1).to_bytes(4, "little") + rate.to_bytes(4, "little")
    path = tmp_path / "fast.avi"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"expected a frame rate up to 1000 per second, found {rate}; give --fps"):
        VideoFrames(path)
    source = VideoFrames(path, fps=24)
    assert source.numbers == list(range(COUNT)) and source.fps == 24 and source.stamp_ns(23) == 10**9


def test_a_colon_in_a_relative_path_is_no_protocol(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = "2026-01-01T10:00:00.mp4"
    (tmp_path / path).write_bytes(videos["mp4"].read_bytes())
    assert len(VideoFrames(path)) == COUNT
    with VideoWriter("10:00.mp4", 24) as writer:
        writer.write(ramp(0))
    assert (tmp_path / "10:00.mp4").stat().st_size


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 1e-300, 1e300])
def test_a_rate_that_is_none_is_refused(videos, fps):
    with pytest.raises(ValueError, match="fps must be >= 0.0001 and < 100000"):
        VideoFrames(videos["mp4"], fps=fps)


def test_ranges_are_short():
    assert ranges([]) == "" and ranges([0, 2, 3, 4, 7]) == "0, 2..4, 7"
