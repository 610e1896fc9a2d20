import pytest

from cuesheet.errors import CuesheetError
from cuesheet.vlm.coordinates import (
    CoordinateCheck,
    CoordinateFrame,
    PixelLimits,
    convention_of,
    qwen25_size,
    unknown_family_notice,
)


@pytest.mark.parametrize(
    ("model", "convention"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "resized_pixels"),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", "thousandths"),
        ("Qwen/Qwen2-VL-7B-Instruct", "thousandths"),
        ("/models/Qwen2_5_VL-3B", "resized_pixels"),
        ("Qwen/Qwen2.5-Omni-7B", "resized_pixels"),
        ("Qwen/Qwen2.5-VL-72B-Instruct:some-provider", "resized_pixels"),
        ("Qwen/Qwen3-VL-235B-A22B-Instruct:fastest", "thousandths"),
        ("google/gemini-2.5-pro", "thousandths"),
        ("zai-org/GLM-4.5V", "thousandths"),
        ("OpenGVLab/InternVL3-8B", "thousandths"),
        ("qwen2.5vl:7b", "resized_pixels"),
        ("qwen/qwen-2.5-vl-7b-instruct", "resized_pixels"),
        ("Qwen2___5-VL-7B", "resized_pixels"),
        ("/data/models/Qwen2.5-VL-7B-Instruct/", "resized_pixels"),
        ("/c/models--Qwen--Qwen3-VL-8B-Instruct/snapshots/0c351dd01ed87e9c1b53", "thousandths"),
        ("/c/models--Qwen--Qwen2.5-VL-3B/snapshots/66285546d2b821cf421d4f5eb", "resized_pixels"),
        ("me/robot-qwen3-vl-finetune", "thousandths"),
        ("cuesheet-demo-1", "pixels"),
        ("some/unknown-vlm", "pixels"),
    ],
)
def test_families_have_their_convention(model, convention):
    assert convention_of(model, "auto") == convention


def test_a_configured_convention_wins():
    assert convention_of("Qwen/Qwen3-VL-8B", "pixels") == "pixels"


def test_pixels_stay_as_they_are():
    frame = CoordinateFrame("pixels", 640, 480)
    assert frame.box([10, 20, 30.04, 40]) == [10, 20, 30, 40]
    assert frame.point([639, 479]) == [639, 479]
    assert "640 x 480" in frame.describe()


def test_thousandths_scale_each_axis_by_itself():
    frame = CoordinateFrame("thousandths", 640, 480)
    assert frame.box([500, 500, 1000, 1000]) == [320, 240, 640, 480]
    assert frame.point([250, 250]) == [160, 120]
    assert "0 to 1000" in frame.describe()


def test_qwen25_answers_in_pixels_of_the_resized_image():
    assert qwen25_size(640, 480) == (644, 476)
    frame = CoordinateFrame("resized_pixels", 640, 480)
    assert frame.box([0, 0, 644, 476]) == [0, 0, 640, 480]
    assert frame.point([322, 238]) == [320, 240]
    assert "644 x 476" in frame.describe()


def test_qwen25_resizing_stays_within_its_pixel_limits():
    for size in ((20, 20), (4000, 3000), (10000, 5000), (100, 3000)):
        width, height = qwen25_size(*size)
        assert width % 28 == 0
        assert height % 28 == 0
        assert 4 * 28 * 28 <= width * height <= 16384 * 28 * 28


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        (None, PixelLimits(3136, 12845056)),
        ({"fps": 2}, PixelLimits(3136, 12845056)),
        ({"max_pixels": 401408}, PixelLimits(3136, 401408)),
        ({"min_pixels": 200704}, PixelLimits(200704, 12845056)),
        ({"size": {"shortest_edge": 6272, "longest_edge": 401408}}, PixelLimits(6272, 401408)),
        ({"size": {"longest_edge": 401408}, "max_pixels": 100352}, PixelLimits(3136, 100352)),
    ],
)
def test_the_processors_limits_are_taken_from_what_it_is_given(given, limits):
    assert PixelLimits().updated(given) == limits


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"max_pixels": 0}, "max_pixels is 0"),
        ({"size": {"longest_edge": "big"}}, r"size\.longest_edge is 'big'"),
        ({"min_pixels": True}, "min_pixels is True"),
    ],
)
def test_a_limit_that_is_not_a_number_of_pixels_is_rejected(given, named):
    with pytest.raises(CuesheetError, match=named):
        PixelLimits().updated(given)


def test_a_lower_limit_changes_the_size_that_coordinates_count_in():
    # sqrt(1280 * 720 / 401408) = 1.515: 844.8 x 475.2 px, down to multiples of 28.
    limits = PixelLimits(max_pixels=401408)
    assert qwen25_size(1280, 720, limits) == (840, 448)
    frame = CoordinateFrame("resized_pixels", 1280, 720, limits)
    assert frame.point([420, 224]) == [640, 360]


def test_boxes_are_ordered_and_cut_to_the_frame():
    frame = CoordinateFrame("pixels", 100, 50)
    assert frame.box([90, 40, 10, 5]) == [10, 5, 90, 40]
    assert frame.box([-5, -5, 120, 70]) == [0, 0, 100, 50]


def test_boxes_and_points_outside_the_frame_are_refused():
    frame = CoordinateFrame("pixels", 100, 50)
    assert frame.box([120, 10, 140, 20]) is None
    assert frame.box([10, 10, 10.4, 40]) is None
    assert frame.point([100, 10]) is None
    assert frame.point([-1, 10]) is None


def test_a_local_folder_is_known_by_its_architecture(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    assert convention_of(str(tmp_path), "auto") == "resized_pixels"


def test_many_answers_outside_the_frame_name_the_setting():
    check, frame = CoordinateCheck("pixels"), CoordinateFrame("pixels", 640, 480)
    for x in (100, 300, 700, 800, 900):  # thousandths, read as pixels
        check.add([x, 300], frame)
    warning = check.warning()
    assert "3 of 5 boxes and points are outside the frame" in warning
    assert "set vlm.coordinates to resized_pixels or thousandths" in warning


def test_answers_that_are_all_in_the_upper_left_corner_name_the_setting():
    check, frame = CoordinateCheck("thousandths"), CoordinateFrame("thousandths", 224, 224)
    for x in (10, 60, 110, 150, 190):  # pixels of a small image, read as thousandths
        check.add([x, 20, x + 10, 90], frame)
    warning = check.warning()
    assert "all 5 boxes and points are in the upper left corner" in warning
    assert "set vlm.coordinates to pixels or resized_pixels" in warning


@pytest.mark.parametrize(
    "points",
    [
        [[20, 20]] * 4,  # too few to judge
        [[20, 20]] * 5 + [[600, 400]],  # not all in the corner
        [[300, 200], [320, 485, 400, 200], [10, 10], [630, 470], [200, 300]],  # a little beyond
    ],
)
def test_ordinary_answers_raise_no_warning(points):
    check, frame = CoordinateCheck("pixels"), CoordinateFrame("pixels", 640, 480)
    for point in points:
        check.add(point, frame)
    assert check.warning() is None


@pytest.mark.parametrize(
    ("model", "configured", "known"),
    [
        ("acme/vision-1", "auto", False),
        ("acme/vision-1", "pixels", True),
        ("qwen2.5vl:7b", "auto", True),
    ],
)
def test_an_unknown_family_is_reported_with_the_setting(model, configured, known):
    notice = unknown_family_notice(model, configured)
    assert notice is None if known else "set vlm.coordinates" in notice


def test_the_root_of_a_served_name_decides_before_the_name():
    root = "Qwen/Qwen2.5-VL-7B-Instruct"
    assert convention_of("robots", "auto", root) == "resized_pixels"
    assert convention_of("gpt-robots", "auto", root) == "resized_pixels"
    assert convention_of("robots", "thousandths", root) == "thousandths"
    assert convention_of("gpt-robots", "auto", "robots") == "pixels"
    assert unknown_family_notice("robots", "auto", root) is None
    assert "vlm.coordinates" in unknown_family_notice("robots", "auto")


def test_fractions_are_a_convention_of_their_own_and_suggested_for_values_up_to_1():
    frame = CoordinateFrame("fractions", 640, 480)
    assert frame.box([0.25, 0.5, 0.5, 1.0]) == [160.0, 240.0, 320.0, 480.0]
    assert "0 to 1" in frame.describe()
    check = CoordinateCheck("thousandths")
    for _ in range(5):
        check.add([0.25, 0.5, 0.5, 1.0], CoordinateFrame("thousandths", 640, 480))
    assert "set vlm.coordinates to fractions," in check.warning()
