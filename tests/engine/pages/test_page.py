import json
import shutil
import tempfile
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.pages.page import (
    ENLARGED,
    THUMBNAIL,
    PageRecord,
    check_page,
    write_page,
)
from utils.drawing import part_colours
from utils.errors import InputError

NAMES = ["left eye", "<b>nose</b>", "tail"]
HOSTILE = [
    "</script><script>window.hurt = 1</script>",
    "<img src=x onerror='window.hurt = 1'>.jpg",
    "\"'`${window.hurt = 1}\\",
    "line\nbreak\t\u2028\u202egpj.exe",
    "not unicode \udcff",
    "../../%2e%2e/etc/passwd?#",
    "__proto__",
    "&lt;b&gt;&amp;",
    "a" * 300,
]


def record(number, *, name=None, side=(120, 90), **fields):
    """An image of one grey; points, confidence and truth told by the number."""
    width, height = side
    points = np.array([[10.0, 20.0], [width / 2, height / 2], [width - 11.0, height - 21.0]])
    shift = np.array([3.0, 4.0]) * number / 10  # of length number / 2
    made = PageRecord(
        name=f"image {number}" if name is None else name,
        image=Image.new("RGB", side, (90, 90, 90)),
        points=points + shift,
        confidence=np.full(3, (number + 0.5) / 20 % 1),
        truth=points,
        size=side,
    )
    return made._replace(**fields)


def read_calls(path):
    """Return what a data file hands to its function."""
    text = path.read_text()
    return json.loads(text[text.index("(") + 1 : text.rindex(")")])


# ---- the files ----


def test_records_are_written_as_they_are(tmp_path):
    records = [record(n) for n in range(3)]
    records[1] = records[1]._replace(
        truth=np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.005]]), label="test"
    )
    records[2] = records[2]._replace(truth=None, confidence=np.array([0.25, np.nan, 1]))
    page = write_page(tmp_path / "page", records, names=NAMES, title="Birds")
    assert page == tmp_path / "page" / "index.html"
    summary = read_calls(tmp_path / "page/data/summary.js")
    assert (summary["title"], summary["points"], summary["count"]) == ("Birds", NAMES, 3)
    data = read_calls(tmp_path / "page/data/0000.js")
    assert data["names"] == ["image 0", "image 1", "image 2"]
    assert data["labels"] == ["", "test", ""]
    assert data["points"][6:12] == [10.3, 20.4, 60.3, 45.4, 109.3, 69.4]
    assert data["truth"][6:12] == [1, 2, None, None, 3, 4]
    assert data["truth"][12:] == [None] * 6
    assert data["confidence"][6:] == [0.25, None, 1]
    assert data["frames"] == [0, 0, 120, 90] * 3


def test_records_are_taken_one_by_one_and_paged(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.pages.page.PAGE_SIZE", 30)
    alive = []

    def stream():
        for number in range(32):
            # Of the images before, at most the last one is still held.
            assert len(alive) < 3
            image = Image.new("RGB", (4, 3))
            weakref.finalize(image, alive.remove, number)
            alive.append(number)
            yield record(number, side=(4, 3), image=image)
            del image

    write_page(tmp_path / "page", stream(), names=NAMES, title="")
    files = sorted(path.name for path in (tmp_path / "page/data").iterdir())
    assert files == ["0000.js", "0001.js", "summary.js"]
    second = read_calls(tmp_path / "page/data/0001.js")
    assert second["first"] == 30 and len(second["names"]) == 2
    assert read_calls(tmp_path / "page/data/summary.js")["count"] == 32


def test_images_are_shrunk_to_two_sizes_and_small_ones_are_kept(tmp_path):
    noted = Image.new("RGB", (400, 200), "blue")
    noted.paste("red", (0, 0, 200, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: what is left in the file is above
    noted.save(tmp_path / "turned.png", exif=exif)
    records = [
        record(0, side=(2000, 1000)),
        record(1, side=(THUMBNAIL, 3)),
        record(2, side=(3000, 1)),
        record(3, side=(200, 400), image=tmp_path / "turned.png"),
        record(4, image=tmp_path / "absent.png"),
    ]
    write_page(tmp_path / "page", records, names=NAMES, title="")
    sizes = {p.name: Image.open(p).size for p in (tmp_path / "page/images/000").iterdir()}
    assert sizes == {
        "0.jpg": (THUMBNAIL, THUMBNAIL // 2),
        "0_large.jpg": (ENLARGED, ENLARGED // 2),
        "1.jpg": (THUMBNAIL, 3),
        "2.jpg": (THUMBNAIL, 1),
        "2_large.jpg": (ENLARGED, 1),
        "3.jpg": (THUMBNAIL // 2, THUMBNAIL),
        "3_large.jpg": (200, 400),
    }
    assert read_calls(tmp_path / "page/data/0000.js")["images"] == [2, 1, 2, 2, 0]
    turned = np.asarray(Image.open(tmp_path / "page/images/000/3_large.jpg")).astype(int)
    assert turned[50, 100, 0] > 200 > 50 > turned[350, 100, 0]


def test_a_window_is_cut_out_and_the_frame_says_which(tmp_path):
    image = Image.new("RGB", (100, 80))
    image.paste("white", (20, 30, 60, 50))
    windows = [(20, 30, 60, 50), (-50, -50, 10, 10), None, (200, 200, 300, 300)]
    records = [record(n, side=(100, 80), image=image, window=w) for n, w in enumerate(windows)]
    write_page(tmp_path / "page", records, names=NAMES, title="")
    frames = np.array(read_calls(tmp_path / "page/data/0000.js")["frames"]).reshape(-1, 4)
    whole = [0, 0, 100, 80]
    assert frames.tolist() == [[20, 30, 40, 20], [0, 0, 10, 10], whole, whole]
    shown = [Image.open(tmp_path / f"page/images/000/{n}.jpg") for n in range(4)]
    assert [i.size for i in shown] == [(40, 20), (10, 10), (100, 80), (100, 80)]
    assert np.asarray(shown[0]).min() > 240


def test_hostile_names_are_data_in_every_file(tmp_path):
    records = [record(n, name=name, label=name) for n, name in enumerate(HOSTILE)]
    page = write_page(tmp_path / "page", records, names=[*HOSTILE[:2], "x"], title=HOSTILE[0])
    for path in (tmp_path / "page").rglob("*.js"):
        if path.parent.name == "data":
            text = path.read_text()
            assert text.isascii() and not set("<>&") & set(text)
    assert "hurt" not in page.read_text()
    names = read_calls(tmp_path / "page/data/0000.js")["names"]
    assert names[0] == HOSTILE[0] and names[3] == r"line\nbreak\t\u2028\u202egpj.exe"
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and "page" not in p.parts]
    assert outside == []


def test_what_is_there_is_kept(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    write_page(folder, [record(0)], names=NAMES, title="")  # an empty folder is nobody's
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken, overwrite in [("own", False), ("notes", False), ("notes", True), ("file", True)]:
        with pytest.raises(InputError, match=taken):
            check_page(tmp_path / taken, overwrite)
        with pytest.raises(InputError, match=taken):
            write_page(tmp_path / taken, [], names=NAMES, title="", overwrite=overwrite)
    assert (tmp_path / "notes/thesis.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"^\."):
        check_page(Path("."))
    write_page(folder, [record(0), record(1)], names=NAMES, title="new", overwrite=True)
    assert read_calls(folder / "data/summary.js")["count"] == 2


def test_a_page_that_fails_leaves_nothing(tmp_path):
    def stream():
        yield record(0)
        raise InputError("the disk")

    with pytest.raises(InputError, match="the disk"):
        write_page(tmp_path / "page", stream(), names=NAMES, title="")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".page.unfinished/data").mkdir(parents=True)  # of a run that was killed
    write_page(tmp_path / "page", [record(0)], names=NAMES, title="")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


# ---- in a browser ----

READY = "return document.body.dataset.ready === 'true'"
SHOWN = (
    "return [...document.querySelectorAll('.cell:not([hidden])')].sort((a, b) => a.place - b.place)"
)
CELLS = f"{SHOWN}.map((cell) => cell.querySelector('bdi').textContent)"


CENTROID = """
const [seen, ...colour] = arguments, canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [seen.width, seen.height];
const context = canvas.getContext("2d", { willReadFrequently: true });
context.drawImage(seen, 0, 0);
const { data, width } = context.getImageData(0, 0, canvas.width, canvas.height);
let x = 0, y = 0, count = 0;
for (let i = 0; 4 * i < data.length; i++) {
  if ([...colour, 255].every((value, channel) => data[4 * i + channel] === value)) {
    x += i % width; y += Math.floor(i / width); count++;
  }
}
return [x, y, count];
"""


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium isn't installed")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium with its chromedriver: the page isn't opened in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
            *("disable-background-networking", "disable-component-update", "disable-sync"),
            *(f"user-data-dir={profile}", "window-size=1200,800", "force-device-scale-factor=1"),
        ):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        opened = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(executable_path=driver)
        )
        yield opened
        opened.quit()


class Reader:
    """A page that is open, and what a reader can see and press."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page):
        self.driver.get(page.as_uri())
        self.until(READY)
        return self

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, *arguments):
        """Wait until a script's value is true; return it."""
        end = time.monotonic() + 20
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < end, f"{script}: {self.text('count')}"
            time.sleep(0.02)
        return value

    def text(self, name):
        return self.run("return document.getElementById(arguments[0]).textContent", name)

    def set(self, name, value):
        """Set a control as its user does, but at once."""
        self.run(
            "const it = document.getElementById(arguments[0]); it.value = arguments[1];"
            "it.dispatchEvent(new Event('input', {bubbles: true}));"
            "it.dispatchEvent(new Event('change', {bubbles: true}));",
            *(name, value),
        )

    def press(self, *keys):
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            self.driver.switch_to.active_element.send_keys(getattr(Keys, key, key))

    def cells(self):
        return self.run(CELLS)

    def selected(self):
        return self.run("const s = document.querySelector('.cell[aria-selected=true] bdi');"
                        "return s && s.textContent")  # fmt: skip

    def dots(self, canvas, colour):
        """Return the centroid of a colour on a canvas, and how many pixels have it.

        It is in the screen's points, of which the first pixel spans 0 to 1.
        """
        x, y, count = self.run(CENTROID, canvas, *colour)
        return ((x / count + 0.5, y / count + 0.5), count) if count else (None, 0)


@pytest.fixture
def reader(browser, tmp_path):  # which is removed later than this fixture then
    opened = Reader(browser)
    yield opened
    # Nothing was reported, fetched in vain or run that a name says.
    logged = [entry["message"] for entry in browser.get_log("browser")]
    hurt = opened.run("return window.hurt")
    browser.get("about:blank")  # or the open page would miss its images
    assert logged == []
    assert not hurt


def test_least_confident_images_come_first_and_the_order_can_be_changed(reader, tmp_path):
    numbers = [5, 3, 0, 7, 1, 12]
    unknown = record(9, confidence=np.full(3, np.nan), truth=None)
    records = [*(record(n) for n in numbers), unknown]
    reader.open(write_page(tmp_path / "page", records, names=NAMES, title="Birds & Co"))
    assert reader.driver.title == reader.text("title") == "Birds & Co"
    assert reader.text("count") == "7 images"
    names = [f"image {n}" for n in sorted(numbers)]
    assert reader.cells() == [*names, "image 9"]
    for order, expected in {
        "-confidence": [*names[::-1], "image 9"],
        "-error": [*names[::-1], "image 9"],
        "name": [*names[:-1], "image 9", "image 12"],  # 9 before 12
        "given": [f"image {n}" for n in [*numbers, 9]],
        "error": [*names, "image 9"],
    }.items():
        reader.set("sort", order)
        assert reader.cells() == expected, order


def test_images_are_filtered_by_point_confidence_error_and_name(reader, tmp_path):
    records = [record(n) for n in range(10)]
    # The nose is surest where the others aren't, and one of them is missing.
    for n, r in enumerate(records):
        r.confidence[1] = 1 - n / 20
    records[4].confidence[1] = np.nan
    reader.open(write_page(tmp_path / "page", records, names=NAMES, title=""))
    reader.set("point", "1")
    assert reader.cells() == [f"image {n}" for n in [9, 8, 7, 6, 5, 3, 2, 1, 0, 4]]
    reader.set("confidence-from", "0.72")
    reader.set("confidence-to", "0.9")
    assert reader.cells() == ["image 5", "image 3", "image 2"]
    assert reader.text("count") == "3 of 10 images"
    reader.run("document.getElementById('confidence-clear').click()")
    reader.set("error-from", "3.5")  # half a pixel a number
    assert reader.cells() == ["image 9", "image 8", "image 7"]
    reader.set("search", "E 8")
    assert reader.cells() == ["image 8"]
    reader.set("search", "no such")
    assert reader.cells() == [] and reader.run(
        "return document.getElementById('empty').checkVisibility()"
    )
    reader.press("ENTER", "ARROW_DOWN")  # nothing to enlarge
    reader.set("search", "")
    reader.run("document.getElementById('error-clear').click()")
    reader.set("point", "-1")
    assert reader.text("count") == "10 images"


def test_the_histograms_count_the_images_and_their_bars_choose(reader, tmp_path):
    records = [record(n) for n in range(20)]  # errors of 0, 0.5, ..., 9.5; confidence in each bar
    reader.open(write_page(tmp_path / "page", records, names=NAMES, title=""))
    counts = (
        "return [...document.getElementById(arguments[0]).children].map((b) => +b.dataset.count)"
    )
    assert reader.run(counts, "confidence-bars") == [1] * 20
    assert reader.run(counts, "error-bars") == [1] * 20
    assert reader.text("error-figures") == "mean 4.75, median 4.75 of the images' means"
    click = "document.getElementById(arguments[0]).children[arguments[1]].click()"
    label = "return document.getElementById(arguments[0]).children[arguments[1]].title"
    assert reader.run(label, "error-bars", 3) == "1.5 to 2 pixels: 1 image"
    assert reader.run(label, "error-bars", 19) == "9.5 and more pixels: 1 image"
    reader.run(click, "error-bars", 19)
    assert reader.cells() == ["image 19"]
    reader.run(click, "error-bars", 19)
    assert reader.text("count") == "20 images"
    reader.run(click, "confidence-bars", 2)
    assert reader.cells() == ["image 2"]
    # Each point's means, over what is shown.
    rows = "return [...document.querySelectorAll('#points tbody tr')].map((r) => r.innerText)"
    assert [row.split()[-2:] for row in reader.run(rows)] == [["0.13", "1.0"]] * 3


def test_dots_lie_where_the_points_are(reader, tmp_path):
    colours = part_colours(3)
    one = record(10, side=(640, 480))
    cut = record(11, side=(640, 480), window=(100, 50, 540, 350))
    page = write_page(tmp_path / "page", [one, cut], names=NAMES, title="")
    reader.open(page)
    canvases = reader.run(f"{SHOWN}.map((cell) => cell.querySelector('canvas'))")
    reader.press("t")  # without truth
    for canvas, r, window in zip(
        canvases, [one, cut], [(0, 0, 640, 480), (100, 50, 440, 300)], strict=True
    ):
        left, top, width, height = window
        size = reader.run("return [arguments[0].width, arguments[0].height]", canvas)
        assert size[0] / size[1] == pytest.approx(width / height, rel=0.01)
        for (x, y), colour in zip(r.points, colours, strict=True):
            expected = (x + 0.5 - left) * size[0] / width, (y + 0.5 - top) * size[1] / height
            found, count = reader.dots(canvas, colour)
            if 5 < expected[0] < size[0] - 5 and 5 < expected[1] < size[1] - 5:
                assert found == pytest.approx(expected, abs=0.6) and count > 8
    # The image lies under its canvas, pixel on pixel.
    boxes = reader.run(
        f"return {SHOWN.removeprefix('return ')}.map((cell) => ['img', 'canvas'].map((tag) => "
        "{ const b = cell.querySelector(tag).getBoundingClientRect();"
        "return [b.x, b.y, b.width, b.height] }))"
    )
    assert all(np.allclose(image, canvas, atol=0.51) for image, canvas in boxes)
    reader.press("p")  # no predictions either: nothing is left
    assert all(reader.dots(c, colour) == (None, 0) for c in canvases for colour in colours)
    reader.press("t")  # rings around the truth, whose centroid is the true place
    canvas = canvases[0]
    ring, count = reader.dots(canvas, colours[1])
    size = reader.run("return [arguments[0].width, arguments[0].height]", canvas)
    true = one.truth[1]
    assert count > 8
    assert ring == pytest.approx(
        ((true[0] + 0.5) * size[0] / 640, (true[1] + 0.5) * size[1] / 480), abs=1
    )
    reader.set("point", "2")  # only the tail
    canvas = reader.run(f"{SHOWN}[0].querySelector('canvas')")
    assert reader.dots(canvas, colours[1]) == (None, 0)
    assert reader.dots(canvas, colours[2])[1] > 8


def test_the_keyboard_goes_through_all_images(reader, tmp_path):
    records = [record(n) for n in range(19)]
    reader.open(write_page(tmp_path / "page", records, names=NAMES, title=""))
    columns = reader.run("return measure().columns")
    is_open = "return document.getElementById('enlarged').open"
    assert columns > 1 and reader.selected() == "image 0"
    reader.press("ARROW_LEFT", "ARROW_UP")
    assert reader.selected() == "image 0"
    reader.press("ARROW_RIGHT", "ARROW_DOWN")
    assert reader.selected() == f"image {1 + columns}"
    reader.press("ARROW_UP", "END")
    assert reader.selected() == "image 18"
    reader.press("ARROW_RIGHT", "ARROW_DOWN", "ENTER")
    assert reader.run(is_open) and reader.text("enlarged-name") == "image 18"
    assert reader.text("enlarged-about") == "19 of 19, 120 × 90 pixels"
    reader.press("ARROW_LEFT", "ARROW_UP")
    assert reader.text("enlarged-name") == "image 16"
    values = reader.run("return document.querySelector('#enlarged-points tbody tr').innerText")
    assert values.split()[-2:] == ["0.82", "8.0"]
    reader.press("t")
    large = reader.run("return document.querySelector('#stage canvas')")
    found, count = reader.dots(large, part_colours(3)[1])
    scale = reader.run("return arguments[0].width", large) / 120
    assert found == pytest.approx(np.array([64.8 + 0.5, 51.4 + 0.5]) * scale, abs=1) and count > 50
    reader.press("?")
    assert reader.run("return document.getElementById('help').open")
    reader.press("ESCAPE")
    assert reader.run(is_open) and not reader.run("return document.getElementById('help').open")
    reader.press("ESCAPE")
    assert not reader.run(is_open) and reader.selected() == "image 16"
    reader.press("HOME")
    assert reader.selected() == "image 0"
    reader.press("PAGE_DOWN")
    assert reader.selected() != "image 0"
    reader.press("PAGE_UP", "]")
    assert reader.run("return document.getElementById('point').value") == "0"
    reader.press("[", "[")
    assert reader.run("return document.getElementById('point').value") == "2"
    reader.press("/", "7")  # a field takes keys as text
    assert reader.cells() == ["image 7", "image 17"]
    reader.press("ESCAPE", "ARROW_RIGHT")
    assert reader.selected() == "image 17"


def test_names_that_look_like_code_are_shown_and_not_run(reader, tmp_path):
    records = [record(n, name=name, label=name) for n, name in enumerate(HOSTILE)]
    page = write_page(
        tmp_path / "page", records, names=[*HOSTILE[:2], "x"], title=HOSTILE[1], about=HOSTILE[0]
    )
    reader.open(page)
    assert (reader.text("title"), reader.text("about")) == (HOSTILE[1], HOSTILE[0])
    shown = reader.cells()
    for plain in (0, 1, 2, 5, 6, 7, 8):
        assert shown[plain] == HOSTILE[plain]
    reader.press("ENTER")
    assert reader.text("enlarged-name") == HOSTILE[0]
    assert reader.run("return document.images.length") == len(HOSTILE) + 1  # none from a name
    loaded = [src for src in reader.run("return [...document.images].map((i) => i.src)")]
    assert all(src.startswith((tmp_path / "page/images").as_uri()) for src in loaded)
    reader.press("ESCAPE")


def test_without_truth_or_confidence_the_page_says_nothing_of_them(reader, tmp_path):
    bare = [record(n, truth=None, confidence=np.full(3, np.nan)) for n in (3, 1)]
    reader.open(write_page(tmp_path / "page", bare, names=NAMES, title=""))
    assert reader.cells() == ["image 1", "image 3"]  # by name
    for panel in ("confidence-panel", "error-panel", "truth-switch"):
        assert reader.run("return document.getElementById(arguments[0]).hidden", panel)
    reader.open(write_page(tmp_path / "none", [], names=NAMES, title=""))
    assert reader.text("count") == "0 images"


def test_of_many_images_only_those_in_sight_are_in_the_document(reader, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.pages.page.PAGE_SIZE", 90)
    pixel = Image.new("RGB", (4, 3))
    count = 307
    records = (record(n, side=(4, 3), image=pixel) for n in range(count))
    reader.open(write_page(tmp_path / "page", records, names=NAMES, title=""))
    in_document = "return document.querySelectorAll('.cell').length"
    reader.set("sort", "name")
    assert reader.cells()[:2] == ["image 0", "image 1"]
    before = reader.run(in_document)
    assert before < 80
    reader.press("END")
    reader.until("return document.querySelector('.cell[aria-selected=true]:not([hidden])')")
    assert reader.selected() == f"image {count - 1}"
    reader.run("scroller.scrollTop = scroller.scrollHeight / 2")
    middle = reader.until(f"const names = {CELLS.removeprefix('return ')};"
                          "return names[0] !== 'image 0' && names.length && names")  # fmt: skip
    assert abs(int(middle[0].split()[1]) - count / 2) < 60
    assert reader.run(in_document) < 80
    shown = (
        "return [...document.querySelectorAll('.cell:not([hidden]) img')].every((i) => i.complete)"
    )
    reader.until(shown)


def test_a_file_that_is_missing_is_said(browser, tmp_path):
    page = write_page(tmp_path / "page", [record(0)], names=NAMES, title="")
    (tmp_path / "page/data/0000.js").unlink()
    opened = Reader(browser)
    browser.get(page.as_uri())
    opened.until("return document.getElementById('count').textContent.includes('incomplete')")
    assert "data/0000.js is missing" in opened.text("count")
    browser.get_log("browser")  # of the missing file
