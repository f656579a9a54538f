# SPDX-License-Identifier: Apache-2.0
"""A DAVIS tree becomes a bag, and the bag gives back what was put in."""

from fractions import Fraction

import numpy as np
import pytest
import yaml
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from maskrnn_ros.bags import BagReader, from_davis
from maskrnn_ros.bags.convert import stamp_of
from maskrnn_ros.bags.pictures import to_frames
from maskrnn_ros.cli import main
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.labels import write_labels

HEIGHT, WIDTH = 24, 36
STORAGES = ("mcap", "sqlite3")


def box_labels(*boxes):
    """Labels with (id, first column) boxes of 6 x 8 pixels."""
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    for value, column in boxes:
        labels[4:10, column : column + 8] = value
    return labels


def write_tree(root, labels, suffix=".jpg", name="ball"):
    """A sequence with a random frame for each label map; None where a frame has no annotation."""
    frames, annotations = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
    frames.mkdir(parents=True)
    annotations.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index, map_ in enumerate(labels):
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(frames / f"{index:05d}{suffix}")
        if map_ is not None:
            write_labels(annotations / f"{index:05d}.png", map_)
    return sorted(frames.iterdir())


TWO = [box_labels((1, 0 + i), (2, 15 + i)) for i in range(5)]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compressed", [False, True])
def test_bag_gives_back_the_tree(tmp_path, storage, compressed):
    paths = write_tree(tmp_path, TWO)
    summary = from_davis(tmp_path, "ball", tmp_path / "bag", fps=10.0, compressed=compressed, storage=storage)
    stamps = [10**9 + i * 10**8 for i in range(5)]
    with BagReader(tmp_path / "bag") as bag:
        frames, truth, seeds = list(bag.frames()), list(bag.truth()), list(bag.seeds())
        counts = {name: topic.count for name, topic in bag.topics.items()}
    assert [frame.stamp_ns for frame in frames] == stamps == [labels.stamp_ns for labels in truth]
    for frame, path in zip(frames, paths, strict=True):
        np.testing.assert_array_equal(frame.image, read_frame(path))
    for labels, expected in zip(truth, TWO, strict=True):
        np.testing.assert_array_equal(labels.labels, expected)
    assert [seed.stamp_ns for seed in seeds] == stamps[:1]
    np.testing.assert_array_equal(seeds[0].labels, TWO[0])
    images = "/camera/image_raw/compressed" if compressed else "/camera/image_raw"
    assert counts == summary.counts == {images: 5, "/camera/ground_truth": 5, "/camera/seed_mask": 1}
    assert summary.ids == (1, 2) and summary.label_encoding == "mono8"


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("suffix", "codec"), [(".jpg", b"jpeg"), (".png", b"png")])
def test_bytes_of_the_image_files_go_in_unchanged(tmp_path, storage, suffix, codec):
    paths = write_tree(tmp_path, TWO, suffix)
    from_davis(tmp_path, "ball", tmp_path / "bag", compressed=True, storage=storage)
    with BagReader(tmp_path / "bag") as bag:
        messages = list(bag.messages(["/camera/image_raw/compressed"]))
    store = get_typestore(Stores.LATEST)
    for message, path in zip(messages, paths, strict=True):
        content = store.deserialize_cdr(message.data, message.msgtype)
        assert content.data.tobytes() == path.read_bytes()
        assert content.format.encode() == codec and content.header.frame_id == "camera"


@pytest.mark.parametrize("storage", STORAGES)
def test_seed_stands_before_its_image(tmp_path, storage):
    write_tree(tmp_path, TWO)
    from_davis(tmp_path, "ball", tmp_path / "bag", storage=storage)
    with BagReader(tmp_path / "bag") as bag:
        order = [message.topic.rpartition("/")[2] for message in bag.messages()]
        times = [message.log_ns for message in bag.messages()]
    assert order == ["seed_mask"] + ["image_raw", "ground_truth"] * 5
    assert times == sorted(times)


def test_seed_stands_before_its_image_where_each_fills_a_chunk(tmp_path):
    big = np.zeros((1100, 1000), np.int32)
    big[5:9, 5:9] = 300
    root = tmp_path / "JPEGImages/ball"
    root.mkdir(parents=True)
    Image.new("RGB", (1000, 1100)).save(root / "0.jpg")
    (tmp_path / "Annotations/ball").mkdir(parents=True)
    write_labels(tmp_path / "Annotations/ball/0.png", big)
    from_davis(tmp_path, "ball", tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        assert [message.topic for message in bag.messages()][:2] == ["/camera/seed_mask", "/camera/image_raw"]


@pytest.mark.parametrize("fps", [24.0, 25.0, 29.97, 30000 / 1001, 1 / 3])
def test_stamps_are_the_exact_times_in_whole_ns(fps):
    exact = [10**9 * (1 + i / Fraction(fps)) for i in range(0, 5000, 7)]
    stamps = [stamp_of(i, fps) for i in range(0, 5000, 7)]
    assert all(
        isinstance(stamp, int) and abs(stamp - time) <= Fraction(1, 2)
        for stamp, time in zip(stamps, exact, strict=True)
    )


@pytest.mark.parametrize(
    ("values", "expected", "ids", "encoding"),
    [
        ([[255], [255]], [[1], [1]], (1,), "mono8"),  # DAVIS-2016
        ([[1, 255], [255]], [[1, 0], [0]], (1,), "mono8"),  # void, and a frame that shows nothing else
        ([[255], [1, 255]], [[0], [1, 0]], (1,), "mono8"),
        ([[1, 3], [3]], [[1, 3], [3]], (1, 3), "mono8"),
        ([[255, 300], [7]], [[255, 300], [7]], (7, 255, 300), "mono16"),
    ],
)
def test_values_become_ids_by_one_rule_for_the_sequence(tmp_path, values, expected, ids, encoding):
    def maps(lists):
        return [box_labels(*zip(values, (0, 15), strict=False)) for values in lists]

    write_tree(tmp_path, maps(values))
    summary = from_davis(tmp_path, "ball", tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        truth, seeds = list(bag.truth()), list(bag.seeds())
    for labels, map_ in zip(truth, maps(expected), strict=True):
        np.testing.assert_array_equal(labels.labels, map_)
    assert (summary.ids, summary.label_encoding) == (ids, encoding)
    first = next(labels for labels in truth if labels.labels.any())
    assert seeds[0].stamp_ns == first.stamp_ns
    np.testing.assert_array_equal(seeds[0].labels, first.labels)
    late = set(np.unique(truth[-1].labels)) - set(np.unique(first.labels))
    assert len(seeds) == 1 + bool(late) and set(summary.late) == late


def test_frames_without_annotation_have_no_truth(tmp_path):
    write_tree(tmp_path, [None, TWO[1], None, TWO[3]])
    from_davis(tmp_path, "ball", tmp_path / "bag", fps=1.0)
    with BagReader(tmp_path / "bag") as bag:
        assert [labels.stamp_ns for labels in bag.truth()] == [2 * 10**9, 4 * 10**9]
        assert [seed.stamp_ns for seed in bag.seeds()] == [2 * 10**9]
        assert len(list(bag.frames())) == 4


def test_topics_can_be_named(tmp_path):
    write_tree(tmp_path, TWO)
    names = {"image_topic": "/a/rgb", "truth_topic": "/a/truth", "seed_topic": "/a/seed"}
    from_davis(tmp_path, "ball", tmp_path / "bag", compressed=True, **names)
    with BagReader(tmp_path / "bag") as bag:
        assert set(bag.topics) == {"/a/rgb/compressed", "/a/truth", "/a/seed"}
        assert len(list(bag.frames("/a/rgb"))) == len(list(bag.frames("/a/rgb/compressed"))) == 5
        assert len(list(bag.labels("/a/truth"))) == 5


@pytest.mark.parametrize("storage", STORAGES)
def test_metadata_is_of_version_8_with_reliable_qos(tmp_path, storage):
    write_tree(tmp_path, TWO)
    from_davis(tmp_path, "ball", tmp_path / "bag", storage=storage)
    info = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["version"] == 8 and info["storage_identifier"] == storage
    assert info["starting_time"]["nanoseconds_since_epoch"] == 10**9
    assert all((tmp_path / "bag" / name).is_file() for name in info["relative_file_paths"])
    for topic in info["topics_with_message_count"]:
        # in version 8 a string of YAML with the numbers of rmw's enums
        (qos,) = yaml.safe_load(topic["topic_metadata"]["offered_qos_profiles"])
        assert (qos["reliability"], qos["durability"], qos["history"]) == (1, 2, 1) and qos["depth"] >= 1
        assert qos["deadline"] == {"sec": 9223372036, "nsec": 854775807}
        assert topic["topic_metadata"]["type_description_hash"].startswith("RIHS01_")


def test_existing_bag_is_kept_unless_told_otherwise(tmp_path):
    write_tree(tmp_path, TWO)
    from_davis(tmp_path, "ball", tmp_path / "bag")
    with pytest.raises(ValueError, match="bag exists; overwrite replaces it"):
        from_davis(tmp_path, "ball", tmp_path / "bag", storage="sqlite3")
    assert (tmp_path / "bag/bag_0.mcap").exists()
    from_davis(tmp_path, "ball", tmp_path / "bag", storage="sqlite3", overwrite=True)
    assert not (tmp_path / "bag/bag_0.mcap").exists()


def test_overwrite_takes_bags_only(tmp_path):
    write_tree(tmp_path, TWO)
    with pytest.raises(ValueError, match="is no bag"):
        from_davis(tmp_path, "ball", tmp_path / "JPEGImages", overwrite=True)
    assert (tmp_path / "JPEGImages/480p/ball/00000.jpg").exists()


def test_bag_that_fails_half_way_is_not_left_behind(tmp_path):
    write_tree(tmp_path, TWO)
    write_labels(tmp_path / "Annotations/480p/ball/00003.png", np.pad(TWO[3], ((0, 0), (0, 1))))
    with pytest.raises(ValueError, match=r"00003\.png must have the size of .*\(24, 36\).* got \(24, 37\)"):
        from_davis(tmp_path, "ball", tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 1e-300}, "fps must be >= 0.0001 and < 100000, got 1e-300"),
        ({"fps": 0.0}, "fps must be >= 0.0001"),
        ({"fps": float("nan")}, "fps must be >= 0.0001"),
        ({"storage": "zip"}, "storage must be one of mcap, sqlite3, got 'zip'"),
        ({"seed_topic": "seed"}, "full name such as /camera/image_raw, got 'seed'"),
        ({"seed_topic": "/camera/"}, "full name"),
        ({"seed_topic": "/camera/image_raw"}, "must differ"),
        ({"sequence": "cat"}, "found in .*: ball"),
        ({"annotations": "Masks"}, "no folder .*Masks"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path, changes, message):
    write_tree(tmp_path, TWO)
    arguments = {"root": tmp_path, "sequence": "ball", "out": tmp_path / "bag", **changes}
    with pytest.raises(ValueError, match=message) as caught:
        from_davis(**arguments)
    assert "\n" not in str(caught.value) and not (tmp_path / "bag").exists()


@pytest.mark.parametrize(
    ("labels", "suffix", "message"),
    [
        ([box_labels()], ".jpg", "no annotation of ball marks an instance"),
        ([box_labels((40000, 0))], ".jpg", r"00000\.png: ids must be <= 32767, got 40000"),
        ([TWO[0]], ".bmp", r"00000\.bmp: a CompressedImage takes \.jpg, \.jpeg, \.png"),
    ],
)
def test_sequences_that_make_no_bag_are_refused(tmp_path, labels, suffix, message):
    write_tree(tmp_path, labels, suffix)
    with pytest.raises(ValueError, match=message):
        from_davis(tmp_path, "ball", tmp_path / "bag", compressed=True)
    assert not (tmp_path / "bag").exists()


@pytest.fixture
def bag_path(tmp_path):
    write_tree(tmp_path, TWO)
    from_davis(tmp_path, "ball", tmp_path / "bag")
    return tmp_path / "bag"


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda bag: bag.frames("/rgb"), r"no topic /rgb; its topics are: .*/camera/image_raw"),
        (lambda bag: bag.labels("/rgb"), "no topic /rgb"),
        (lambda bag: list(bag.messages(["/camera/image_raw", "/rgb"])), "no topic /rgb"),
        (
            lambda bag: bag.find("/camera/image_raw", "std_msgs/msg/String"),
            "must be std_msgs/msg/String, found sensor",
        ),
        (lambda bag: list(bag.labels("/camera/image_raw")), "message 0 on /camera/image_raw in .*encoding"),
    ],
)
def test_reader_says_what_is_wrong_in_one_line(bag_path, read, message):
    with BagReader(bag_path) as bag, pytest.raises(ValueError, match=message) as caught:
        read(bag)
    assert "\n" not in str(caught.value)


def test_topic_of_another_type_is_refused(tmp_path):
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera/image_raw", "std_msgs/msg/String", typestore=store)
        text = store.types["std_msgs/msg/String"]("hello")
        writer.write(connection, 5, store.serialize_cdr(text, "std_msgs/msg/String"))
    with BagReader(tmp_path / "bag") as bag:
        with pytest.raises(ValueError, match=r"must be sensor_msgs/msg/Image or .*, found std_msgs/msg/String"):
            bag.frames()
        assert [message.log_ns for message in bag.messages()] == [5]


def test_image_without_a_stamp_is_refused_by_its_place(tmp_path):
    store = get_typestore(Stores.ROS2_HUMBLE)
    header = store.types["std_msgs/msg/Header"](store.types["builtin_interfaces/msg/Time"](0, 0), "")
    image = store.types["sensor_msgs/msg/Image"](header, 1, 1, "rgb8", 0, 3, np.zeros(3, np.uint8))
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera/image_raw", "sensor_msgs/msg/Image", typestore=store)
        writer.write(connection, 5, store.serialize_cdr(image, "sensor_msgs/msg/Image"))
        writer.write(connection, 6, b"\0\1\0\0garbage")
    with BagReader(tmp_path / "bag") as bag:
        with pytest.raises(ValueError, match="message 0 on /camera/image_raw in .*stamp must be > 0"):
            list(bag.frames())
        with pytest.raises(ValueError, match="message 1 on /camera/image_raw in .*deserialize"):
            list(bag._converted(bag.find_images(), lambda stamp_ns, message: stamp_ns))


def test_unfinished_and_absent_bags_are_named(tmp_path, bag_path):
    (bag_path / "metadata.yaml").unlink()
    with pytest.raises(ValueError, match="was not finished: metadata.yaml is missing; `ros2 bag reindex"):
        BagReader(bag_path)
    with pytest.raises(ValueError, match="expected a bag, found no .*absent"):
        BagReader(tmp_path / "absent")
    with pytest.raises(ValueError, match="found no metadata.yaml in"):
        BagReader(tmp_path / "JPEGImages")
    with pytest.raises(ValueError, match="cannot read .*jpg"):
        BagReader(tmp_path / "JPEGImages/480p/ball/00000.jpg")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_damaged_bag_is_refused_in_one_line(tmp_path, storage, keep):
    write_tree(tmp_path, TWO)
    from_davis(tmp_path, "ball", tmp_path / "bag", storage=storage)
    (data,) = (path for path in (tmp_path / "bag").iterdir() if path.suffix in (".mcap", ".db3"))
    data.write_bytes(data.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cannot read") as caught, BagReader(tmp_path / "bag") as bag:
        list(bag.frames())
    assert "\n" not in str(caught.value)


def test_storage_file_is_read_without_its_folder(bag_path):
    with BagReader(bag_path / "bag_0.mcap") as bag:
        assert len(list(bag.frames())) == 5


def test_iterators_do_not_disturb_one_another(bag_path):
    with BagReader(bag_path) as bag:
        pairs = [(frame.stamp_ns, truth.stamp_ns) for frame, truth in zip(bag.frames(), bag.truth(), strict=True)]
    assert len(pairs) == 5 and all(frame == truth for frame, truth in pairs)


def test_no_topics_are_no_messages(bag_path):
    with BagReader(bag_path) as bag:
        assert list(bag.messages([])) == []
        assert len(list(bag.messages())) == 11


def test_reader_closes_twice(bag_path):
    bag = BagReader(bag_path)
    bag.close()
    bag.close()


@pytest.mark.parametrize("compressed", [False, True])
def test_images_of_a_bag_become_the_same_files_again(tmp_path, compressed):
    paths = write_tree(tmp_path, TWO, suffix=".png")
    from_davis(tmp_path, "ball", tmp_path / "bag", fps=10.0, compressed=compressed)
    report = to_frames(tmp_path / "bag", tmp_path / "frames", every=2)
    assert (report.frames, report.width, report.height) == (3, WIDTH, HEIGHT)
    for number, path in enumerate(paths[::2]):
        np.testing.assert_array_equal(read_frame(tmp_path / f"frames/{number:05d}.png"), read_frame(path))
    lines = (tmp_path / "frames/stamps.csv").read_text().split()
    assert lines == ["file,stamp_ns", *(f"{n:05d}.png,{10**9 + n * 2 * 10**8}" for n in range(3))]


def test_frames_are_written_into_an_empty_folder_only(tmp_path, capsys):
    write_tree(tmp_path, TWO)
    from_davis(tmp_path, "ball", tmp_path / "bag")
    arguments = ["bag", "to-frames", str(tmp_path / "bag"), "--out", str(tmp_path / "frames")]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"maskrnn bag: {tmp_path / 'frames'} is not empty; give another folder\n"
    assert main([*arguments[:3], "--out", str(tmp_path / "other"), "--every", "0"]) == 2
    assert capsys.readouterr().err == "maskrnn bag: every must be >= 1, got 0\n"
    assert not (tmp_path / "other").exists()
