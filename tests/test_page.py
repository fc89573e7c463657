"""The report page: everything is escaped, everything is inside, and the tables say what they were given."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from delaynet_lava.analysis.page import Picture, Section, Table, Verdict, page, write_page
from delaynet_lava.errors import InputError

HOSTILE = """</td><script>alert(1)</script>&amp;<img src=x onerror='f()'> "quoted" 'single'"""
# What makes a browser fetch something, by tag.
LOADS = {"src", "srcset", "href", "data", "poster", "action", "background", "xlink:href", "style"}
VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Tags, attributes and text as a browser sees them; fails where tags are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.cells: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def loaded(reader: Reader) -> list[str]:
    """What the page would fetch from elsewhere: neither inside itself nor a data URI."""
    values = [v or "" for _, attributes in reader.tags for k, v in attributes.items() if k in LOADS]
    return [v for v in values if not v.startswith(("data:", "#"))]


def drawing() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot([1, 2, 3], label="<b>")
    return figure


@pytest.fixture(scope="module")
def full() -> str:
    tables = [Table(["name", HOSTILE], [[HOSTILE, "1,250.5 (12.4%)"], ["b", "-3"]], HOSTILE)]
    section = Section(HOSTILE, f"first {HOSTILE}\n\nsecond", tables, [Picture(drawing(), HOSTILE)])
    return page(HOSTILE, [section] * 3, HOSTILE)


def test_no_string_is_read_as_markup(full):
    reader = Reader(full)
    assert {tag for tag, _ in reader.tags} == {
        *("html", "head", "meta", "title", "style", "body", "h1", "p", "nav", "a", "section", "h2", "div"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "img", "figcaption"),
    }
    assert reader.text.count(HOSTILE) == 1 + 1 + 1 + 3 * 7  # title, h1, text; link and six places a section
    assert reader.cells == ["name", HOSTILE, HOSTILE, "1,250.5 (12.4%)", "b", "-3"] * 3
    assert {a["alt"] for tag, a in reader.tags if tag == "img"} == {HOSTILE}
    assert not any(key.startswith("on") for _, attributes in reader.tags for key in attributes)


def test_markup_would_be_seen():
    """The reader does find a tag and an outside address where there are any."""
    reader = Reader(page("t", []).replace("</body>", "<script src='https://a.example/x.js'></script></body>"))
    assert "script" in {tag for tag, _ in reader.tags}
    assert loaded(reader) == ["https://a.example/x.js"]


def test_nothing_is_loaded_from_elsewhere(full):
    reader = Reader(full)
    assert loaded(reader) == []
    style = re.search(r"<style>(.*)</style>", full, re.DOTALL).group(1)
    assert "url(" not in style and "@import" not in style
    policy = [a["content"] for tag, a in reader.tags if "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert len([tag for tag, _ in reader.tags if tag == "img"]) == 3


def test_columns_of_numbers_alone_are_set_to_the_right():
    rows = [["a", "1", "12 (3.5%)", "1e-05", "67.7 uJ", "-"], ["b", "x2", "1,024", "-3.5", "1 J", "7"]]
    html = page("t", [Section("s", tables=[Table("abcdef", rows)])])
    right = [a.get("class") == "n" for tag, a in Reader(html).tags if tag == "th"]
    assert right == [False, False, True, True, True, True]


def test_light_and_dark_and_phone(full):
    assert 'name="viewport" content="width=device-width' in full
    light, dark = full.split("@media screen and (prefers-color-scheme: dark)")
    assert "figure img { filter: invert" in dark and "@media print" in dark
    names = re.findall(r"(--\w+):", dark)
    assert names and all(f"{name}:" in light for name in names)


def test_the_same_content_gives_the_same_page():
    pages = [page("t", [Section("s", pictures=[Picture(drawing(), "c")])]) for _ in range(2)]
    assert pages[0] == pages[1]
    other = drawing()
    other.axes[0].plot([3, 1, 2])
    assert page("t", [Section("s", pictures=[Picture(other, "c")])]) != pages[0]


def test_rows_must_fit_their_header():
    with pytest.raises(ValueError, match="argument"):
        page("t", [Section("s", tables=[Table(["a", "b"], [["1"]])])])
    with pytest.raises(ValueError, match="argument"):
        page("t", [Section("s", tables=[Table(["a", "b"], [["1", "2"], ["3"]])])])


def test_written_as_a_whole(tmp_path):
    path = tmp_path / "report.html"
    write_page(path, "täglich", [Section("s", "x")])
    assert path.read_bytes() == page("täglich", [Section("s", "x")]).encode("utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        write_page(tmp_path / "no" / "report.html", "t", [])


def test_the_verdict_is_a_word_first_and_a_colour():
    html = page("t", [], "text", Verdict("bad", "Broken", "<b> of two"))
    assert '<p class="verdict bad"><strong>Broken</strong>&lt;b&gt; of two</p>' in html
    for kind in ("good", "warn", "bad"):
        assert f".{kind} {{ color: var(--{kind}); background" in html
    assert 'class="verdict' not in page("t", [])


def test_a_picture_has_its_own_size_and_no_ground(full):
    images = [a for tag, a in Reader(full).tags if tag == "img"]
    assert {(a["width"], a["height"]) for a in images} == {("288", "192")}
    drawn = base64.b64decode(images[0]["src"].partition(",")[2]).decode()
    assert "fill: none" in drawn and "fill: #ffffff" not in drawn.partition('<g id="legend')[0]


def test_a_table_of_names_and_values_has_no_header():
    reader = Reader(page("t", [Section("s", tables=[Table(("", "value"), [["a", "1"], ["b", "x"]])])]))
    assert reader.cells == ["a", "1", "b", "x"]
    assert [a.get("scope") for tag, a in reader.tags if tag == "th"] == ["row", "row"]


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_scrolls_no_page_sideways(tmp_path, width):
    """Measured in a frame of that width: a picture with a script would not tell, the page allows none."""
    wide = [["name " * 4, "x" * 90, "text " * 30, *["1,234,567"] * 9]]
    figure = Figure(figsize=(9, 2))
    sections = [
        Section(
            "s", "word " * 40 + "y" * 70, [Table([f"c{k}" for k in range(12)], wide)], [Picture(figure, "c")]
        ),
        Section("t", tables=[Table(("", "value"), [["hash", "z" * 200]])]),
    ]
    write_page(
        tmp_path / "page.html", "a/long/path/" * 12 + "net.h5", sections, "x", Verdict("good", "Kept", "all")
    )
    (tmp_path / "frame.html").write_text(
        f"<iframe id=f src=page.html width={width} height=900 frameborder=0></iframe><p id=said></p><script>"
        "f.onload = () => { const d = f.contentDocument.documentElement;"
        "said.textContent = d.scrollWidth + ' of ' + d.clientWidth }</script>"
    )
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"]
    command += [
        "--allow-file-access-from-files",
        "--virtual-time-budget=4000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += ["--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    found = re.search(r"(\d+) of (\d+)", done.stdout)
    assert found, done.stdout[-400:]
    assert found[1] == found[2], f"the page is {found[1]} pixels wide in {found[2]}"
