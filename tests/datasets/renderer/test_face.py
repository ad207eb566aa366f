from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageDraw

from datasets.renderer.face import render_scene
from datasets.renderer.sampling import (
    CELEBA_FRAMING,
    FaceFraming,
    Finish,
    Light,
    Scene,
    sample_scene,
)
from datasets.renderer.scene import OCCLUDERS
from datasets.renderer.shape import (
    STYLES,
    Expression,
    five_points,
    frontal_points,
    sample_identity,
)
from datasets.renderer.surface import Pose, Surface
from datasets.renderer.texture import FacePainter


def any_scene(rng: np.random.Generator, framing: FaceFraming = CELEBA_FRAMING) -> Scene:
    """A random person in a random scene."""
    return sample_scene(rng, sample_identity(rng), framing)


FLAT = Light(np.array([0.0, 0.0, 1.0]), np.ones(3), np.zeros(3))


def clean_scene(seed=0, **changes):
    """A calm, shaven, evenly lit face that looks straight ahead."""
    scene = any_scene(np.random.default_rng(seed))
    person = replace(scene.identity, style="buzz", beard="none", skin=np.array([225.0, 180, 150]))
    scene = replace(
        scene,
        identity=person,
        expression=Expression(lids=1.2),
        pose=Pose(),
        light=FLAT,
        glasses="none",
        occluder="none",
        finish=Finish(),
    )
    return replace(scene, **changes)


def centroid(weight):
    rows, columns = np.indices(weight.shape)
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


POSES = {
    "frontal": Pose(),
    "yaw": Pose(yaw=0.45, scale=37.0),
    "pitch": Pose(pitch=-0.3, scale=33.3, offset=(80.2, 111.7)),
    "roll": Pose(roll=0.6, scale=25.0, offset=(95.5, 104.3)),
    "all": Pose(yaw=-0.4, pitch=0.25, roll=-0.5, distance=9.0, scale=42.0),
}


# Points of one group are at least 9 pixels apart in all the poses: marked at once, told apart.
GROUPS = ((19, 30, 42, 48, 54), (27, 37, 45, 51, 57))


def mark_points(monkeypatch, group):
    """Let every face be painted with a green dot at each point of a group."""
    paint = FacePainter.paint
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = 0.05 * np.stack([np.cos(turn), np.sin(turn)], 1)

    def paint_and_mark(self, x, y):
        image = paint(self, x, y)
        self.draw = ImageDraw.Draw(image)
        for index in group:
            self.fill(self.points[index] + ring, np.array([0, 255, 0]))
        return image

    monkeypatch.setattr(FacePainter, "paint", paint_and_mark)


@pytest.mark.parametrize("name", POSES)
def test_what_is_painted_at_a_point_is_seen_at_that_point(name):
    scene = clean_scene(expression=Expression(opening=0.2, smile=0.5, lids=1.1), pose=POSES[name])
    plain, points = render_scene(scene)
    rows, columns = np.indices(plain.shape[:2])
    for group in GROUPS:
        with pytest.MonkeyPatch.context() as patch:
            mark_points(patch, group)
            marked, same = render_scene(scene)
        assert np.array_equal(points, same)
        apart = np.linalg.norm(points[[*group]][:, None] - points[[*group]], axis=-1)
        assert apart[apart > 0].min() > 9
        change = np.abs(marked.astype(float) - plain).sum(-1)
        for index in group:
            near = np.hypot(columns - points[index, 0], rows - points[index, 1]) < 4.5
            assert np.abs(centroid(change * near) - points[index]).max() < 0.6, index


@pytest.mark.parametrize("seed", range(8))
def test_the_dark_of_the_pupils_lies_at_the_mean_of_the_eye_points(seed):
    image, points = render_scene(clean_scene(seed))
    dark = np.clip(110 - image.max(-1).astype(float), 0, None)
    rows, columns = np.indices(dark.shape)
    for eye in five_points(points)[:2]:
        near = np.hypot(columns - eye[0], rows - eye[1]) < 5
        assert np.linalg.norm(centroid(dark * near) - eye) < 1.5


def test_lips_are_where_the_mouth_points_are():
    scene = clean_scene(pose=Pose(roll=-0.5, yaw=0.2))
    red = replace(scene, identity=replace(scene.identity, lip=np.array([230.0, 20, 30])))
    blue = replace(scene, identity=replace(scene.identity, lip=np.array([20.0, 20, 230])))
    (one, points), (other, _) = render_scene(red), render_scene(blue)
    rows, columns = np.nonzero(np.abs(one.astype(float) - other).max(-1) > 60)
    lips = np.stack([columns, rows], 1)
    along = points[54] - points[48]
    along /= np.linalg.norm(along)
    for corner, far in ((48, (lips @ along).min()), (54, (lips @ along).max())):
        assert abs(far - points[corner] @ along) < 3  # a dark dot covers the very corner
    across = np.array([-along[1], along[0]])
    assert abs((lips @ across).max() - (points[56:59] @ across).max()) < 1.5


def test_roll_turns_the_points_and_keeps_the_anatomical_left_eye():
    person = sample_identity(np.random.default_rng(1))
    space = Surface(person, Expression()).landmarks()
    upright, turned = Pose(offset=(0, 0)), Pose(offset=(0, 0), roll=np.radians(30))
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    expected = upright.project(space) @ np.array([[c, s], [-s, c]])
    np.testing.assert_allclose(turned.project(space), expected, atol=1e-9)
    left, right, nose, *mouth = five_points(turned.project(space))
    assert left[0] < right[0] and left[1] < right[1] < nose[1] < mouth[1][1]


def test_yaw_and_pitch_move_the_nose_tip_against_the_eyes():
    person = sample_identity(np.random.default_rng(2))
    space = Surface(person, Expression()).landmarks()

    def nose(**turn):
        five = five_points(Pose(**turn).project(space))
        return five[2] - five[:2].mean(0)

    assert nose(yaw=0.4)[0] > nose()[0] + 5 and nose(yaw=-0.4)[0] < nose()[0] - 5
    assert nose(pitch=0.3)[1] > nose()[1] + 3 and nose(pitch=-0.3)[1] < nose()[1] - 3


def test_expression_moves_the_points_it_should():
    person = sample_identity(np.random.default_rng(3))
    calm = frontal_points(person, Expression())
    open_mouth = frontal_points(person, Expression(opening=0.3))
    assert np.allclose(calm[17:48], open_mouth[17:48]) and open_mouth[8, 1] > calm[8, 1] + 0.1
    assert (open_mouth[66] - open_mouth[62])[1] == pytest.approx(0.3)
    asleep = frontal_points(person, Expression(lids=0.1))
    assert np.ptp(asleep[37:42, 1]) < np.ptp(calm[37:42, 1])


def test_a_seed_gives_the_same_image_of_the_size_and_person():
    person = sample_identity(np.random.default_rng(4))
    framing = FaceFraming((120, 150), (20, 40, 100, 120), (15, 30), 5, whole=True)
    scenes = [sample_scene(np.random.default_rng(seed), person, framing) for seed in (9, 9, 10)]
    (one, points), (two, same), (other, _) = map(render_scene, scenes)
    assert all(scene.identity is person for scene in scenes)
    assert one.shape == (150, 120, 3) and one.dtype == np.uint8 and points.shape == (68, 2)
    assert np.array_equal(one, two) and np.array_equal(points, same)
    assert not np.array_equal(one, other)
    five = five_points(points)
    assert (five.min(0) >= (20, 40)).all() and (five.max(0) <= (100, 120)).all()
    assert points.min() >= 0 and (points.max(0) <= (119, 149)).all()
    assert 15 <= np.linalg.norm(five[1] - five[0]) <= 30


@pytest.mark.parametrize("style", STYLES)
def test_every_hair_style_glasses_and_occluder_can_be_drawn(style):
    scene = clean_scene(2, glasses="clear")
    person = replace(scene.identity, style=style, beard="full")
    bare, points = render_scene(replace(scene, identity=person))
    assert bare.std() > 10
    if style == STYLES[0]:
        for occluder in OCCLUDERS:
            hidden, same = render_scene(replace(scene, identity=person, occluder=occluder))
            assert np.array_equal(points, same) and (hidden != bare).mean() > 0.01


def sampled_points(part, count):
    """The 5 points of ``count`` images, (count, 5, 2), without drawing them."""
    shapes = []
    for index in range(count):
        scene = any_scene(np.random.default_rng([part, index]))
        space = Surface(scene.identity, scene.expression).landmarks()
        shapes.append(five_points(scene.pose.project(space)))
    return np.stack(shapes)


def test_faces_are_not_aligned_but_within_what_the_network_sees():
    train, test = sampled_points(0, 300), sampled_points(1, 200)
    shapes = np.concatenate([train, test])
    x, y = shapes[..., 0], shapes[..., 1]
    assert x.min() >= 29 and x.max() <= 149 and y.min() >= 59 and y.max() <= 179
    between = shapes[:, 1] - shapes[:, 0]
    apart = np.linalg.norm(between, axis=1)
    assert apart.min() > 21.9 and apart.max() < 50.1 and apart.std() > 5
    roll = np.degrees(np.arctan2(between[:, 1], between[:, 0]))
    assert roll.std() > 12 and np.abs(roll).max() < 50 and (np.abs(roll) > 25).mean() > 0.05
    assert (shapes.mean(1).std(0) > 7).all()
    error = np.linalg.norm(train.mean(0) - test, axis=-1) / apart[300:, None]
    assert 0.33 < error.mean() < 0.47
