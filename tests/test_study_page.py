"""The study's page in a real browser: answered in every way, reloaded, finished, and by keyboard alone."""

import html
import re
import shutil
import socket

import pytest
from pictures import crops

from colorlib import collecting, color, photos, scoring, study, widgets

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium"),
]
# As root, as in a container, Chromium has no sandbox; and it is not to call home.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
CHOICES = {kind: list(facts["choices"]) for kind, facts in study.KINDS.items()}
SIZES = [(320, 568), (768, 1024), (1280, 800), (2560, 1440)]


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def swap(rgb):
    L, ab = color.photo_to_lab(rgb)
    return color.lab_to_rgb(L, ab.flip(1))[0].permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of each design, by name: four photos, two of them for practice unless all are shown at once."""
    designs = {
        "real": {},
        "grade": {"kind": "grade"},
        "together": {"together": True, "n_practice": 0},
        "grade together": {"together": True, "n_practice": 0, "kind": "grade"},
        "timed": {"seconds": 0.5, "n_practice": 0},
    }
    pool = {str(i): rgb for i, rgb in enumerate(crops(6, 120, 160))}
    folder = tmp_path_factory.mktemp("studies")
    return {name: study.make(folder / name, pool, swap, n_photos=4, **how) for name, how in designs.items()}


@pytest.fixture
def visit(chromium, made):
    """Opens a design's page from its file, in a browser of its own. What it complains of or asks for is an error."""
    contexts, wrong = [], []

    def open_page(name, **settings):
        context = chromium.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if re.match("file:|data:|blob:", r.url) else wrong.append(r.url))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.goto(made[name].page.as_uri() if name in made else name)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def practise(page):
    """Go through the practice photos, if there are any."""
    while page.locator("#place").text_content().startswith("Practice"):
        place = page.locator("#place").text_content()
        ready(page)
        page.keyboard.press("1")
        if page.locator("#next").is_visible():
            page.click("#next")
        page.wait_for_function("before => document.getElementById('place').textContent !== before", arg=place)


def ready(page):
    """Wait until the photo is there and may be answered: a moment later, so that a double tap answers one photo."""
    page.evaluate("() => Promise.all([...document.querySelectorAll('#pictures img')].map((i) => i.decode()))")
    page.wait_for_timeout(200)


def start(page):
    page.click("#start")
    if page.locator("#ask").is_visible():
        practise(page)


def shown(page):
    """The name of the photo that is asked about, from what the page keeps."""
    state = page.evaluate("() => Object.values(localStorage).map(JSON.parse)[0]")
    return state["order"][state["at"]]


def answer_all(page, kind, press):
    """Answer the four photos with the choices in turn; returns what was answered."""
    given = {}
    for i in range(4):
        sync_api.expect(page.locator("#place")).to_have_text(f"Photo {i + 1} of 4")
        ready(page)
        n = i % len(CHOICES[kind])
        given[shown(page)] = CHOICES[kind][n]
        press(page, n)
    sync_api.expect(page.locator("#end")).to_be_visible()
    return given


def click(page, n):
    page.locator("#choices button").nth(n).click()


def tap(page, n):
    page.locator("#choices button").nth(n).tap()


def key(page, n):
    page.keyboard.press(str(n + 1))


def saved(page, folder, press="#save"):
    """Save the answers as a participant does; returns the file's path."""
    with page.expect_download() as download:
        page.click(press)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def check(study_made, path, given):
    """The scorer reads what was saved, and it is what was answered."""
    answers, report = collecting.collect(study_made, path)
    assert report.counted.tolist() == [True]
    assert dict(zip(answers.photo, answers.answer)) == given
    return answers


# -- answered in every way -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["real", "grade"])
def test_answered_by_click_saved_and_scored(visit, made, tmp_path, kind):
    page = visit(kind, viewport={"width": 1280, "height": 800})
    start(page)
    given, path = answer_all(page, kind, click), saved(page, tmp_path)
    assert re.fullmatch("answers-[0-9a-f]{16}.json", path.name) and path.stat().st_size < 1_000
    answers = check(made[kind], path, given)
    assert answers.seconds.between(0.1, 20).all()
    table = (scoring.score if kind == "real" else scoring.grades)(made[kind], answers)
    assert table.judged["all"] == 4
    check(made[kind], page.locator("#text").input_value(), given)  # the text to paste says the same


@pytest.mark.parametrize("kind", ["real", "grade"])
def test_answered_by_keyboard_alone(visit, made, tmp_path, kind):
    page = visit(kind)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # start
    for _ in range(2):
        ready(page)
        page.keyboard.press("2")
        if kind == "real":  # the truth about a practice photo, and the way on has the focus
            sync_api.expect(page.locator("#feedback")).to_contain_text(re.compile("^(Right|No): "))
            page.keyboard.press("Enter")
    given = answer_all(page, kind, key)
    page.keyboard.press("Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    download.value.save_as(tmp_path / "saved.json")
    check(made[kind], tmp_path / "saved.json", given)


def test_buttons_can_be_reached_and_pressed_by_keyboard_too(visit, made):
    page = visit("real")
    start(page)
    ready(page)
    for _ in range(2):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").startswith("Coloured")
    first = shown(page)
    page.keyboard.press("Space")
    sync_api.expect(page.locator("#place")).to_have_text("Photo 2 of 4")
    # The focus does not stay on an answer, where it could look like a hint, or be pressed by mistake.
    assert page.evaluate("document.activeElement.id") == "place"
    assert page.evaluate("() => Object.values(localStorage).map(JSON.parse)[0].answers")[first][0] == "coloured"


@pytest.mark.parametrize("kind", ["real", "grade"])
def test_answered_on_a_phone(visit, made, tmp_path, kind):
    page = visit(kind, viewport={"width": 320, "height": 568}, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.locator("#start").tap()
    practise(page)
    for box in map(lambda button: button.bounding_box(), page.locator("#choices button").all()):
        assert box["height"] >= 44 and box["width"] >= 44
        assert box["x"] >= 0 and box["x"] + box["width"] <= 320 and box["y"] + box["height"] <= 568  # without scrolling
    given = answer_all(page, kind, tap)
    check(made[kind], saved(page, tmp_path), given)


@pytest.mark.parametrize("design", ["together", "grade together"])
def test_all_at_once_by_click(visit, made, tmp_path, design):
    page, kind = visit(design), made[design].kind
    page.click("#start")
    page.click("#finish")
    sync_api.expect(page.locator("#missing")).to_have_text("4 of 4 photos are not answered yet.")
    given = {}
    for i, field in enumerate(page.locator("fieldset").all()):
        radio = field.locator("input").nth(i % 2)
        radio.check()
        given[radio.get_attribute("name")] = radio.get_attribute("value")
    sync_api.expect(page.locator("#missing")).to_have_text("4 of 4 photos answered.")
    page.click("#finish")
    answers = check(made[design], saved(page, tmp_path), given)
    assert answers.seconds.isna().all() and set(given.values()) == set(CHOICES[kind][:2])


def test_all_at_once_by_keyboard_and_reloaded(visit, made, tmp_path):
    page = visit("together")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for i in range(4):
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        if i % 2:
            page.keyboard.press("ArrowDown")
    given = {radio.get_attribute("name"): radio.get_attribute("value") for radio in page.locator("input:checked").all()}
    assert len(given) == 4 and sorted(given.values()) == ["coloured", "coloured", "real", "real"]
    page.reload()
    assert page.locator("input:checked").count() == 4
    for _ in range(5):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    check(made["together"], saved(page, tmp_path), given)


# -- what happens in between -----------------------------------------------------------------------------------


def test_a_reload_in_the_middle_loses_nothing(visit, made, tmp_path):
    page = visit("real")
    start(page)
    given = {}
    for i in range(4):
        page.reload()
        sync_api.expect(page.locator("#place")).to_have_text(f"Photo {i + 1} of 4")
        if i:
            sync_api.expect(page.locator("#news")).to_have_text(f"Welcome back: {i} of 4 answers are still here.")
        ready(page)
        given[shown(page)] = CHOICES["real"][i % 2]
        click(page, i % 2)
    sync_api.expect(page.locator("#end")).to_be_visible()
    page.reload()
    sync_api.expect(page.locator("#end")).to_be_visible()
    check(made["real"], saved(page, tmp_path), given)


def test_an_answer_can_be_changed(visit, made, tmp_path):
    page = visit("real")
    start(page)
    given = answer_all(page, "real", key)
    page.click("#change")
    sync_api.expect(page.locator("#place")).to_have_text("Photo 4 of 4")
    assert page.locator("#choices button[aria-pressed=true]").count() == 1
    ready(page)
    page.keyboard.press("b")
    sync_api.expect(page.locator("#place")).to_have_text("Photo 3 of 4")
    for n in (1, 0):
        ready(page)
        given[shown(page)] = CHOICES["real"][n]
        key(page, n)
    check(made["real"], saved(page, tmp_path), given)


def test_a_double_click_answers_one_photo(visit):
    page = visit("real")
    start(page)
    ready(page)
    page.locator("#choices button").first.evaluate("button => { button.click(); button.click(); }")
    ready(page)
    assert page.locator("#place").text_content() == "Photo 2 of 4"
    page.keyboard.down("1")
    for _ in range(5):  # a key that is held down repeats
        page.keyboard.down("1")
        page.wait_for_timeout(250)
    assert page.locator("#place").text_content() == "Photo 3 of 4"


def test_the_next_person_begins_anew(visit, made, tmp_path):
    page = visit("real")
    start(page)
    answer_all(page, "real", key)
    first = saved(page, tmp_path)
    page.click("#another")
    page.click("#erase")
    sync_api.expect(page.locator("#intro")).to_be_visible()
    start(page)
    answer_all(page, "real", click)
    second = saved(page, tmp_path)
    answers, _ = collecting.collect(made["real"], tmp_path)
    assert first.name != second.name and answers.participant.nunique() == 2


def test_each_participant_has_an_order_of_their_own(visit):
    pages = [visit("real") for _ in range(6)]
    states = [page.evaluate("() => Object.values(localStorage).map(JSON.parse)[0]") for page in pages]
    assert len({state["who"] for state in states}) == 6
    assert len({tuple(state["order"]) for state in states}) > 1  # all alike: 1 in 8 million
    assert len({tuple(sorted(state["order"])) for state in states}) == 1


def test_a_photo_goes_away_after_its_time_and_does_not_come_back(visit, made, tmp_path):
    page = visit("timed")
    page.click("#start")
    ready(page)
    picture = page.locator("#pictures img")
    assert picture.is_visible()
    sync_api.expect(picture).to_be_hidden()
    sync_api.expect(page.locator("#feedback")).to_contain_text("The time for this photo is over")
    page.reload()
    ready(page)
    assert picture.is_hidden()
    page.wait_for_timeout(1_000)  # answering may take longer
    given = answer_all(page, "real", click)
    answers = check(made["timed"], saved(page, tmp_path), given)
    assert answers.seconds.max() > 1
    page.click("#change")
    ready(page)
    assert picture.is_hidden()


def test_the_time_is_counted_from_when_the_photo_is_there(visit):
    page = visit("timed")
    page.click("#start")
    ready(page)
    click(page, 0)
    ready(page)
    assert page.locator("#pictures img").is_visible()  # the next one has a time of its own


REFUSED = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('', 'SecurityError'); }})"


def test_a_browser_that_keeps_nothing_is_no_hindrance(chromium, made, tmp_path):
    context = chromium.new_context()
    context.add_init_script(REFUSED)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(made["real"].page.as_uri())
    sync_api.expect(page.locator("#unkept")).to_be_visible()
    start(page)
    for i in range(4):
        sync_api.expect(page.locator("#place")).to_have_text(f"Photo {i + 1} of 4")
        ready(page)
        key(page, i % 2)
    answers, _ = collecting.collect(made["real"], saved(page, tmp_path))
    context.close()
    assert len(answers) == 4 and not errors


@pytest.mark.parametrize(
    "kept", ["no JSON", "null", "{}", '{"order": 1}', '{"order": ["x"], "practice": [], "answers": {}, "shown": {}}']
)
def test_what_is_kept_and_damaged_is_forgotten(visit, made, kept):
    page = visit("real")
    page.evaluate("kept => localStorage.setItem(Object.keys(localStorage)[0], kept)", kept)
    page.reload()
    sync_api.expect(page.locator("#intro")).to_be_visible()
    start(page)
    answer_all(page, "real", key)


# -- nothing leaves the page -----------------------------------------------------------------------------------


def test_the_page_may_not_fetch_or_send(chromium, made):
    """Not even if something in it wanted to: a server on this machine hears nothing."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(made["real"].page.as_uri())
    with socket.create_server(("127.0.0.1", 0)) as server:
        tried = page.evaluate(
            """async (address) => {
              const image = new Image();
              const loaded = new Promise((resolve) => {
                image.onload = image.onerror = (event) => resolve(event.type);
                setTimeout(resolve, 3000, "asked for");
              });
              image.src = address + "x.png";
              const how = {mode: "no-cors", signal: AbortSignal.timeout(3000)};
              const fetched = await fetch(address, how).then(() => "sent", () => "refused");
              const script = document.createElement("script");
              script.textContent = "window.ran = true";
              document.body.append(script);
              return [await loaded, fetched, navigator.sendBeacon(address, "x") && false, Boolean(window.ran)];
            }""",
            f"http://127.0.0.1:{server.getsockname()[1]}/",
        )
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.accept()
    context.close()
    assert tried == ["error", "refused", False, False]


def test_words_with_markup_stay_words(visit, made, tmp_path, monkeypatch):
    evil = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
    monkeypatch.setitem(study.KINDS, "real", study.KINDS["real"] | {"about": evil, "question": evil})
    pool = {str(i): rgb for i, rgb in enumerate(crops(4))}
    page = visit(study.make(tmp_path, pool, swap, n_photos=4, n_practice=0).page.as_uri())
    assert page.locator("#about").text_content() == evil and page.locator("#about *").count() == 0


@pytest.mark.parametrize("attribute", ["", "sandbox='allow-scripts allow-downloads'"])
def test_the_page_works_in_a_notebooks_frame(chromium, made, tmp_path, attribute):
    """As `widgets.show_page` puts it there; also where the frame may keep nothing."""
    context, wrong = chromium.new_context(accept_downloads=True), []
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    text = html.escape(made["real"].page.read_text())
    page.set_content(f'<iframe {attribute} srcdoc="{text}" style="width: 100%; height: 700px"></iframe>')
    frame = page.frame_locator("iframe")
    frame.locator("#start").click()
    for i in range(6):
        heading = f"Practice photo {i + 1} of 2" if i < 2 else f"Photo {i - 1} of 4"
        sync_api.expect(frame.locator("#place")).to_have_text(heading)
        page.wait_for_timeout(400)
        frame.locator("#choices button").first.click()
        if i < 2:
            frame.locator("#next").click()
    with page.expect_download() as download:
        frame.locator("#save").click()
    download.value.save_as(tmp_path / "saved.json")
    answers, _ = collecting.collect(made["real"], tmp_path / "saved.json")
    context.close()
    assert answers.answer.tolist() == 4 * ["real"] and not wrong


# -- for everyone ----------------------------------------------------------------------------------------------


def screens(page, design):
    """Go through the page, and stop at every screen: yields its name."""
    yield "intro"
    page.click("#start")
    if page.locator("#together").is_visible():
        page.click("#finish")  # with photos that are not answered, which are marked
        yield "all photos"
        for field in page.locator("fieldset").all():
            field.locator("input").first.check()
        page.click("#finish")
    else:
        ready(page)
        if "Practice" in page.locator("#place").text_content():
            yield "practice"
            page.keyboard.press("1")
            if page.locator("#next").is_visible():
                yield "feedback"
                page.click("#next")
            practise(page)
        ready(page)
        if page.locator("#reminder").is_visible():
            page.click("summary")
        yield "photo"
        if design == "timed":
            sync_api.expect(page.locator("#pictures img")).to_be_hidden()
            yield "time over"
        for n in range(4):
            sync_api.expect(page.locator("#place")).to_have_text(f"Photo {n + 1} of 4")
            ready(page)
            if n == 1:
                page.keyboard.press("b")
                ready(page)
                yield "answered"
                key(page, 0)
                ready(page)
            key(page, 0)
    sync_api.expect(page.locator("#end")).to_be_visible()
    page.click("#save")
    page.click("#another")
    yield "end"


@pytest.mark.parametrize("design", ["real", "grade", "together", "grade together"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size[0]))
def test_everything_fits_into_the_width(visit, design, size):
    page = visit(design, viewport=dict(zip(("width", "height"), size)))
    for name in screens(page, design):
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size[0], (name, wide)
        for box in (image.bounding_box() for image in page.locator("img:visible").all()):
            assert box["width"] >= 100 and box["x"] >= 0 and box["x"] + box["width"] <= size[0] + 0.5, name


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const back = (element) => {
    for (; element; element = element.parentElement) {
      const found = rgb(getComputedStyle(element).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
      if (found[3] > 0) throw new Error("half transparent");
    }
    throw new Error("no background");
  };
  const all = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !element.checkVisibility({checkVisibilityCSS: true})) continue;
    const [a, b] = [rgb(getComputedStyle(element).color), back(element)].map(light).sort((x, y) => x - y);
    all.push([(b + 0.05) / (a + 0.05), walk.currentNode.textContent.trim().slice(0, 40)]);
  }
  const area = document.querySelector("textarea");
  if (area && area.checkVisibility()) {
    const [a, b] = [rgb(getComputedStyle(area).color), back(area)].map(light).sort((x, y) => x - y);
    all.push([(b + 0.05) / (a + 0.05), "textarea"]);
  }
  return all;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("design", ["real", "grade", "together", "timed"])
def test_text_keeps_its_contrast(visit, design, scheme):
    page, backs = visit(design, color_scheme=scheme), set()
    for name in screens(page, design):
        found = page.evaluate(CONTRAST)
        assert len(found) >= 3 and min(found)[0] >= 4.5, (name, min(found))
        backs.add(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert backs == {{"light": "rgb(244, 244, 244)", "dark": "rgb(20, 20, 20)"}[scheme]}


CONTROLS = "button, input, textarea, summary, a[href], [tabindex='0']"


@pytest.mark.parametrize("design", ["real", "grade", "together", "grade together"])
def test_every_control_has_a_name_and_is_reached_by_tab(visit, design):
    page = visit(design)
    cdp = page.context.new_cdp_session(page)
    for name in screens(page, design):
        nodes = cdp.send("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "radio", "textbox", "progressbar", "image", "DisclosureTriangle", "group", "radiogroup"}
        for node in nodes:
            if node["role"]["value"] in roles and not node["ignored"]:
                if node["role"]["value"] == "group" and not node.get("name", {}).get("value"):
                    continue  # what a <details> is to a browser
                assert node["name"]["value"].strip(), (name, node["role"])
        visible = page.evaluate(
            f"""() => [...document.querySelectorAll("{CONTROLS}")].filter((e) => e.checkVisibility())
                .map((e) => e.type === "radio" ? e.name : e.textContent + e.id)"""
        )
        page.evaluate("document.activeElement.blur()")
        reached = set()
        for _ in range(len(visible) + 2):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    """() => { const e = document.activeElement;
                      return e.type === "radio" ? e.name : e.textContent + e.id; }"""
                )
            )
            if page.evaluate("document.activeElement !== document.body"):
                ring = page.evaluate(
                    """() => { const e = document.activeElement, s = getComputedStyle(e.closest("label") || e);
                      return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 1; }"""
                )
                assert ring, f"{name}: the focus cannot be seen"
        assert set(visible) <= reached, name
        if design == "real" and name == "photo":
            assert {"Real1", "Coloured2"} <= reached  # with the keys shown


def test_screen_readers_hear_where_they_are(visit):
    page = visit("real")
    start(page)
    ready(page)
    assert page.get_by_role("img", name="Photo 1 of 4").is_visible()
    assert page.get_by_role("button", name="Coloured", exact=True).get_attribute("aria-keyshortcuts") == "2"
    assert page.get_by_role("progressbar", name="answered so far").evaluate("e => [e.value, e.max]") == [0, 4]
    assert page.evaluate("document.activeElement.textContent") == "Photo 1 of 4"  # is read out when it changes
    assert page.get_by_role("group", name=re.compile("Is this photo real")).count() == 1
    key(page, 0)
    ready(page)
    assert page.get_by_role("progressbar").evaluate("e => e.value") == 1
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_and_can_be_read(visit, made, scheme):
    path = scoring.report(made["real"], scoring.simulate(made["real"], 5 * [0.57]), simulated="drawn at random")
    page = visit(path.as_uri(), viewport={"width": 320, "height": 568}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate("[...document.images].every((i) => i.naturalWidth > 0)")


# -- the slider of the notebook --------------------------------------------------------------------------------


def test_the_slider_moves_by_keyboard_and_shows_both_pictures(visit, tmp_path):
    left, right = crops(2, 100, 150)
    (tmp_path / "slider.html").write_text(
        f'<meta charset="utf-8">{widgets.slider(left, right, ("<truth>", "guess"))}', encoding="utf-8"
    )
    page = visit((tmp_path / "slider.html").as_uri(), viewport={"width": 600, "height": 600})

    def sides():
        path = tmp_path / "shot.png"
        page.locator("img").first.screenshot(path=path)
        rgb = photos.open_photo(path).astype(float)
        return rgb[:, : rgb.shape[1] // 10].mean(), rgb[:, -rgb.shape[1] // 10 :].mean()

    handle = page.get_by_role("slider", name="border between <truth>, on the left, and guess, on the right")
    page.keyboard.press("Tab")
    assert handle.evaluate("e => e === document.activeElement")
    page.keyboard.press("End")
    only_left = sides()
    page.keyboard.press("Home")
    only_right = sides()
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    assert handle.input_value() == "50"
    half = sides()
    assert half[0] == pytest.approx(only_left[0], abs=2) and half[1] == pytest.approx(only_right[1], abs=2)
    assert abs(only_left[0] - only_right[0]) + abs(only_left[1] - only_right[1]) > 10
    assert page.get_by_alt_text("<truth>").count() == 1
