# SPDX-License-Identifier: Apache-2.0
"""A bag through the real node in lockstep gives what the command line gives on the files, to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from node_bench import QUICK, NodeBench

from maskrnn_ros.bags import from_davis
from maskrnn_ros.cli import main
from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.image_messages import labels_from_image, stamp_to_ns
from maskrnn_ros.labels import read_labels
from maskrnn_ros.replay.player import play

ROOT = Path(__file__).resolve().parent.parent
DAVIS = ROOT.parent / "shared" / "data" / "davis2016_val_dev"
CLIPS = {
    "the shipped clip": (ROOT / "maskrnn_ros" / "data" / "tabletop", "tabletop", "Annotations"),
    "DAVIS, two instances": (DAVIS, "bmx-trees", "Annotations_instances"),
    "DAVIS, one instance, 0/255": (DAVIS, "blackswan", "Annotations"),
}
FRAMES = 10


def first_frames(root: Path, sequence: str, annotations: str, out: Path) -> Path:
    """The first frames of a sequence as a data set of its own."""
    if not root.is_dir():
        pytest.skip(f"needs the data set {root.name}")
    files = davis_sequence(root, sequence, annotations)
    for frame in files.frames[:FRAMES]:
        for kind, path in (("JPEGImages", frame), ("Annotations", files.annotations[frame.stem])):
            link = out / kind / "clip" / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return out


REMAP = {"/camera/image_raw": "/image", "/camera/seed_mask": "/tracker/seed_mask"}
SEEDS = ["/camera/seed_mask"]


@pytest.mark.parametrize("clip", CLIPS)
def test_lockstep_replay_equals_maskrnn_track(clip: str, tmp_path: Path) -> None:
    root = first_frames(*CLIPS[clip], tmp_path / "data")
    from_davis(root, "clip", tmp_path / "bag")
    seed = sorted((root / "Annotations" / "clip").iterdir())[0]
    frames = root / "JPEGImages" / "clip"
    config = tmp_path / "quick.yaml"
    config.write_text(yaml.safe_dump({"/**": {"ros__parameters": QUICK}}))
    arguments = ["--frames", str(frames), "--seed-mask", str(seed), "--config", str(config)]
    assert main(["track", *arguments, "--out", str(tmp_path / "out")]) == 0
    with NodeBench(**QUICK) as bench:
        play(tmp_path / "bag", lockstep=True, remap=REMAP, topics=SEEDS)
        bench.wait(lambda: len(bench.label_images) == FRAMES)
        assert [message.frames_skipped for message in bench.instances] == [0] * FRAMES
    replayed = sorted(bench.label_images, key=lambda message: stamp_to_ns(message.header.stamp))
    for message, file in zip(replayed, sorted((tmp_path / "out").glob("*.png")), strict=True):
        np.testing.assert_array_equal(labels_from_image(message), read_labels(file))
    assert read_labels(file).any(), "nothing was followed to the end"


def test_a_bag_that_loops_gives_the_same_masks_in_every_round(tmp_path: Path) -> None:
    """The seed comes again before the first image, when the jump of time does not show yet."""
    root = first_frames(*CLIPS["the shipped clip"], tmp_path / "data")
    from_davis(root, "clip", tmp_path / "bag", storage="sqlite3")
    with NodeBench(**QUICK) as bench:
        play(tmp_path / "bag", lockstep=True, remap=REMAP, topics=SEEDS, loops=3)
        bench.wait(lambda: len(bench.label_images) == len(bench.instances) == 3 * FRAMES)
        assert [message.session for message in bench.instances] == [1] * FRAMES + [2] * FRAMES + [3] * FRAMES
        rounds = [[bytes(m.data) for m in bench.label_images[i * FRAMES : (i + 1) * FRAMES]] for i in range(3)]
    assert rounds[0] == rounds[1] == rounds[2]
    assert any(rounds[0][-1])
