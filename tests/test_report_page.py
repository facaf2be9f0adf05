"""The page of a report in a browser, from disk: what it shows, how it is found, by mouse, keyboard and address."""

import io
import re
from dataclasses import replace
from itertools import pairwise
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

import browser
import evidence as simulated
import reports
from symskew.protocols.render import csv_text, latex, markdown
from symskew.protocols.table import Column, ResultTable
from symskew.report import Claim
from symskew.statistics import Estimate, pareto

VIEWS = ["overview", "tradeoff", "diagnosis", "gallery", "provenance"]
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "\"'><svg onload=alert(3)>",
    "لوحة حمراء \u202eabc",
    "👩‍👩‍👧 five 🎨\u2028line",
    "long " * 400,
]
DECODED = """async () => {
    for (let left = 100; ; left--) {
        try {
            return await Promise.all([...document.querySelectorAll(".cells img, .layer img")].map(one => one.decode()));
        } catch (error) {  // an image has become another one meanwhile
            if (!left) throw error;
            await new Promise(requestAnimationFrame);
        }
    }
}"""
SCORE = "metric:ensemble/log-likelihood"
TABLE = ResultTable(
    "table-3",
    "Circulation <b>against</b> vanilla",
    (Column("Setting"), Column("Change", ".2f", sign=True)),
    (("static α=2", Estimate(0.1, -0.1, 0.3, 20, 80, 0.2)), ("</td><script>alert(4)</script>", None)),
    "It may have helped.",
    "Means over 20 prompts.",
    ("Beware of <i>this</i>.",),
)


@pytest.fixture(scope="module")
def chromium():
    with browser.launched() as found:
        yield found


@pytest.fixture(scope="module")
def study():
    found = reports.small(HOSTILE)
    found.frame.loc[[3, 8], "ensemble/log-likelihood"] = np.nan
    return found


@pytest.fixture(scope="module")
def report(study, tmp_path_factory):
    return reports.write(
        tmp_path_factory.mktemp("report") / "report",
        study,
        tables=[TABLE],
        title="A <study> & more",
        claims=[*reports.CLAIMS, Claim(HOSTILE[0], HOSTILE[1], HOSTILE[2])],
        failures=reports.failed(study, 3, HOSTILE[0]),
        maps=reports.conflict,
        provenance={"model": HOSTILE[0], "versions": {"torch": "2", HOSTILE[1]: [1, HOSTILE[2]]}},
    )


@pytest.fixture(scope="module")
def loaded(chromium, report):
    permissions = ["clipboard-read", "clipboard-write"]
    with browser.opened(chromium, report, permissions=permissions) as found:
        found.page.wait_for_selector("html[data-ready]")
        yield found


@pytest.fixture
def visit(loaded):
    """Goes to an address of the report; what went wrong by the end of the test is an error."""
    page, wrong = loaded

    def visit(where="", *, width=1440, scheme="light"):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        for there in ("#overview", where):  # whatever was open is closed first
            page.evaluate(
                """there => new Promise(done => {
                    history.replaceState(null, "", there || "#overview");
                    symskew.route.start();
                    scrollTo(0, 0);
                    requestAnimationFrame(() => requestAnimationFrame(done));
                })""",
                there,
            )
        return page

    yield visit
    assert not wrong


def shown(page):
    """The ids of the samples of the gallery, in order, as far as they are in sight."""
    found = page.eval_on_selector_all(
        ".cells > div",
        "all => all.map(one => [Number(one.ariaPosInSet), one.firstChild.dataset.id]).sort((a, b) => a[0] - b[0])",
    )
    return [name for _, name in found]


def field(page, name):
    return page.get_by_role("combobox", name=name, exact=True)


def address(view, **params):
    return f"#{view}?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in params.items())


JUMPED = """() => new Promise(resolve => {
    let sum = 0;
    new PerformanceObserver(list => { for (const one of list.getEntries()) sum += one.value; })
        .observe({ type: "layout-shift", buffered: true });
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(sum)));
})"""


@pytest.mark.parametrize("view", VIEWS)
def test_every_part_opens_by_itself_and_does_not_jump(chromium, report, view):
    with browser.opened(chromium, report, f"#{view}") as (page, _):
        page.wait_for_selector("html[data-ready]")
        assert page.locator("h1:visible").count() == 1
        assert page.locator(f"nav a[href='#{view}'][aria-current=page]").is_visible()
        page.evaluate("scrollTo(0, 1e6)")
        assert page.evaluate(JUMPED) < 0.001


@pytest.mark.parametrize("width", [360, 700, 1440])
def test_every_part_fits(visit, width):
    for view in VIEWS:
        page = visit(f"#{view}", width=width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator(f"nav a[href='#{view}']").bounding_box()
        assert box
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width


def test_without_scripts_there_are_overview_tables_and_provenance(chromium, report):
    with browser.opened(chromium, report, java_script_enabled=False) as (page, _):
        assert page.get_by_role("heading", name="Circulation <b>against</b> vanilla").is_visible()
        assert page.get_by_role("cell", name="+0.10 (−0.10 to +0.30)").is_visible()
        assert page.get_by_role("heading", name="Provenance").is_visible()


def test_words_of_others_stay_words(visit):
    for view in VIEWS:
        page = visit(f"#{view}")
        assert page.title() == "A <study> & more"
        assert page.locator("svg[onload], img[onerror], body script, td b, li i").count() == 0


def test_hostile_prompts_are_shown_as_they_are(visit, study):
    frame = study.frame.drop_duplicates("prompt_id").set_index("prompt")
    page = visit("#gallery")
    for text in HOSTILE:
        name = frame.at[text, "sample_id"]
        visit(address("gallery", open=name))
        page.wait_for_selector(f"dialog[open] dd:text-is('{name}')")
        assert page.locator(".prompt").text_content() == text
        assert page.locator("dialog svg, dialog script, dialog img[src=x]").count() == 0
        assert page.evaluate(
            "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth"
        )


def test_filters_come_from_the_address(visit, study):
    frame = study.frame
    setting = study.settings.iloc[-1]
    wanted = frame[(frame["setting_id"] == setting["setting_id"]) & (frame["prompts"] == "tuning")]
    page = visit(address("gallery", setting=setting["setting_id"], set="tuning", outcome="images"))
    assert shown(page) == wanted["sample_id"].tolist()
    assert (
        page.locator("[data-found]").text_content() == f"{len(wanted)} of {len(frame) + 3} samples, by prompt and seed"
    )
    assert field(page, "Setting").input_value() == setting["setting_id"]
    field(page, "Prompt set").select_option("heldout")
    assert "set=heldout" in page.url
    assert len(set(shown(page)) & set(wanted["sample_id"])) == 0
    page.go_back()
    expect(field(page, "Prompt set")).to_have_value("tuning")
    assert shown(page) == wanted["sample_id"].tolist()


@pytest.mark.parametrize(
    ("params", "fits"),
    [
        ({"family": "static"}, lambda f: f["family"] == "static"),
        ({"role": "placebo"}, lambda f: f["role"] == "placebo"),
        ({"text": "ONERROR"}, lambda f: f["prompt"] == HOSTILE[0]),
        ({"text": "prompt 19"}, lambda f: f["prompt"] == "prompt 19"),
        ({"setting": "nothing known", "role": "select"}, lambda f: f["role"] == "select"),
        ({"by": SCORE, "from": "-5", "to": "-4.5"}, lambda f: f[SCORE[7:]].between(-5, -4.5)),
    ],
)
def test_each_filter(visit, study, params, fits):
    page = visit(address("gallery", size="small", outcome="images", **params))
    wanted = study.frame[fits(study.frame)]["sample_id"].tolist()
    rows = "symskew.filters.find(symskew.filters.wanted(symskew.route.read().params)).map(symskew.store.id)"
    assert sorted(page.evaluate(rows)) == sorted(wanted)
    assert set(shown(page)) <= set(wanted)


def test_failures_are_found_and_say_why(visit):
    page = visit(address("gallery", outcome="failed"))
    assert shown(page) == ["failed0", "failed1", "failed2"]
    page.locator("[data-id=failed1]").click()
    assert page.locator(".failed-why").text_content() == HOSTILE[0]
    visit(address("gallery", text="no prompt has this")).get_by_role("button", name="Clear all filters").click()


@pytest.mark.parametrize("order", ["", "lowest"])
@pytest.mark.parametrize("change", ["", "change"])
def test_samples_are_sorted_by_what_is_asked_for(visit, study, order, change):
    frame = study.frame.assign(value=study.frame[SCORE[7:]].astype(np.float32))
    if change:
        vanilla = frame[frame["family"] == "vanilla"].set_index(["prompt_id", "seed"])["value"]
        base = vanilla.reindex(list(zip(frame["prompt_id"], frame["seed"], strict=True))).to_numpy()
        frame["value"] = np.where(frame["family"] == "vanilla", np.nan, frame["value"] - base)
    wanted = frame.sort_values("value", ascending=bool(order), na_position="last", kind="stable")
    page = visit(address("gallery", by=SCORE, order=order, **{"as": change}))
    assert shown(page) == wanted["sample_id"].tolist()[: len(shown(page))]
    first = page.locator(".cells .value").first.text_content()
    assert float(first.replace("−", "-")) == pytest.approx(wanted["value"].iloc[0], abs=0.06)
    rows = page.evaluate(
        "symskew.filters.find(symskew.filters.wanted(symskew.route.read().params)).map(symskew.store.id)"
    )
    assert rows == [*wanted["sample_id"], "failed0", "failed1", "failed2"]


def test_what_settings_made_of_the_same_noise_stands_together(visit, study):
    page = visit(address("gallery", outcome="images"))
    rows = "symskew.filters.find(symskew.filters.wanted(symskew.route.read().params)).map(symskew.store.id)"
    known = study.frame.set_index("sample_id").loc[page.evaluate(rows)]
    moments = list(zip(known["prompt_id"], known["seed"], strict=True))
    assert len(moments) == len(study.frame)
    assert sum(one != other for one, other in pairwise(moments)) == len(set(moments)) - 1


def test_no_two_families_look_alike(visit):
    marks = "symskew.chart.mark(0, 0, family).outerHTML"
    assert len(set(visit().evaluate(f"Array.from({{ length: 50 }}, (_, family) => {marks})"))) == 50


def test_measures_can_be_sorted_by(visit, study):
    found = study.measures[(study.measures["stage"] == "mid") & (study.measures["branch"] == "unconditional")]
    page = visit("#gallery")
    field(page, "Sort by").select_option("measure:alignment/mid/unconditional")
    assert shown(page)[:5] == found.nlargest(5, "alignment")["sample_id"].tolist()


def focused(page, what="textContent"):
    return page.evaluate(f"document.activeElement.{what}")


def test_all_by_keyboard(visit):
    page = visit()
    page.reload()  # so that the tab key begins at the top
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    assert focused(page, "tagName") == "MAIN"
    page.get_by_role("link", name="Gallery").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".cells a")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.cells a')"):
            break
    order = shown(page)
    columns = page.evaluate(
        "new Set([...document.querySelectorAll('.cells > div')].map(one => one.getBoundingClientRect().left)).size"
    )
    for key, place in [
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("ArrowLeft", columns),
        ("ArrowUp", 0),
        ("ArrowLeft", 0),
    ]:
        page.keyboard.press(key)
        assert focused(page, "dataset.id") == order[place]
    total = page.evaluate("symskew.store.count")
    page.keyboard.press("End")
    assert focused(page, "closest('[aria-posinset]').ariaPosInSet") == str(total)
    page.keyboard.press("PageUp")
    assert int(focused(page, "closest('[aria-posinset]').ariaPosInSet")) < total
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert focused(page, "type") == "range"
    page.keyboard.press("ArrowRight")
    assert focused(page, "value") == "51"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert focused(page, "dataset.id") == order[1]


def test_the_slider_divides_the_images(visit, study):
    frame = study.frame
    treated = frame[frame["family"] == "adaptive"].iloc[0]
    same = (frame["prompt_id"] == treated["prompt_id"]) & (frame["seed"] == treated["seed"])
    vanilla = frame[same & (frame["family"] == "vanilla")].iloc[0]
    page = visit(address("gallery", open=treated["sample_id"]))
    page.evaluate(DECODED)
    box = page.locator(".compare").bounding_box()
    assert box
    sides = {"left": reports.colour(vanilla.name), "right": reports.colour(treated.name)}

    def seen(share):
        image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        return image.getpixel((round(box["x"] + share * box["width"]), round(box["y"] + 0.1 * box["height"])))

    assert (seen(0.4), seen(0.6)) == (sides["left"], sides["right"])
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 0.9 * box["height"])
    assert (seen(0.6), seen(0.95)) == (sides["left"], sides["right"])
    page.get_by_role("slider", name=re.compile("How much of vanilla")).press("Home")
    assert seen(0.05) == sides["right"]
    cells = page.locator("dialog tr", has_text="log likelihood").first.locator("td").all_text_contents()
    numbers = [vanilla[SCORE[7:]], treated[SCORE[7:]], treated[SCORE[7:]] - vanilla[SCORE[7:]]]
    assert [float(re.sub("[^−+0-9.]", "", cell).replace("−", "-")) for cell in cells] == pytest.approx(
        numbers, abs=0.06
    )


def test_the_dialog_goes_on_compares_with_others_and_closes_by_going_back(visit, study):
    page = visit("#gallery")
    first, second = shown(page)[:2]
    page.locator(f"[data-id='{first}']").click()
    page.get_by_role("button", name="Next →").click()
    page.wait_for_selector(f"dialog dd:text-is('{second}')")
    assert focused(page) == "Next →"
    assert page.get_by_role("button", name="← Previous").is_enabled()
    page.get_by_role("button", name="Close").click()
    page.wait_for_selector("dialog[open]", state="detached")
    assert page.url.endswith("#gallery")
    treated = study.frame[study.frame["family"] == "adaptive"].iloc[-1]
    visit(address("gallery", open=treated["sample_id"]))
    field(page, "Compare with").select_option(label="static α=2 β=3")
    assert page.locator(".names .left").text_content() == "static α=2 β=3"
    page.reload()
    page.wait_for_selector("dialog[open]")
    assert page.locator(".names .left").text_content() == "static α=2 β=3"
    page.mouse.click(5, 5)
    page.wait_for_selector("dialog[open]", state="detached")
    assert page.url.endswith("#gallery")


def test_maps_are_laid_over_when_asked_for(visit, study):
    treated = study.frame[study.frame["family"] == "adaptive"].iloc[0]
    page = visit(address("gallery", open=treated["sample_id"]))
    assert page.locator(".layer canvas").count() == 0
    field(page, "Conflict map").select_option("up")
    page.wait_for_selector(".layer.right canvas")
    assert page.locator(".layer canvas").count() == 2
    assert page.locator(".scale").text_content() == "00.60Share of features in conflict (λ < 0); 0.50 is chance"
    pixels = page.evaluate(
        "[...document.querySelector('.layer.right canvas').getContext('2d').getImageData(0, 0, 8, 1).data]"
    )
    assert pixels[:4] == [252, 255, 164, 255]  # the most conflict is pale yellow
    assert pixels[-4:] == [0, 0, 4, 255]  # none is black
    field(page, "Conflict map").select_option("")
    page.wait_for_selector(".layer canvas", state="detached")


def test_tables_leave_as_text(visit):
    page = visit("#overview")
    for name, kind, text in [("CSV", "csv", csv_text), ("LaTeX", "tex", latex), ("Markdown", "md", markdown)]:
        page.get_by_role("button", name=f"Copy {name}").click()
        expect(page.locator(f"[data-copy={kind}]")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == text(TABLE)
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {name}").click()
        assert download.value.suggested_filename == f"table-3.{kind}"
        assert download.value.path().read_text(encoding="utf-8") == text(TABLE)


def test_settings_in_the_plane(visit, study):
    page = visit(address("tradeoff", set="heldout"))
    dots = page.locator(".point")
    assert dots.count() == len(study.settings)
    some = study.on("heldout")
    means = {
        name: [
            np.mean([own.mean() for own in some.by_prompt(SCORE[7:], name).values()]),
            np.mean(list(some.diversity("diversity/features", name).values())),
        ]
        for name in study.settings["setting_id"]
    }
    best = pareto(*zip(*means.values(), strict=True))
    front = page.eval_on_selector_all(".point.front", "all => all.map(one => one.dataset.setting)")
    assert set(front) == {name for name, on in zip(means, best, strict=True) if on}
    dots.first.hover()
    assert page.locator("#tip").is_visible()
    page.mouse.move(0, 0)
    dots.first.focus()
    page.keyboard.press("ArrowRight")
    told = focused(page, "getAttribute('aria-label')")
    assert page.locator("#tip strong").text_content() == told.split(". ")[0]
    assert re.search(r"log likelihood ↑ −\d+\.\d+ \(−\d+\.\d+ to −\d+\.\d+\)", told)
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    field(page, "Up").select_option("passes")
    assert "y=passes" in page.url
    expect(page.locator(".axes .title").last).to_have_text("Denoiser passes per step ↓")
    field(page, "Shown as").select_option("change")
    expect(page.locator(".axes .title").first).to_have_text("Change of features ↑")


def test_the_grid_of_alpha_and_beta(visit, study):
    page = visit(address("tradeoff", set="heldout", family="static"))
    assert page.locator(".heats thead th").all_text_contents() == ["β \\ α", "α = 1.5", "α = 2"]
    some = study.on("heldout")
    pair = some.paired(SCORE[7:], some.named("static α=2 β=3"))
    gap = np.mean([own.mean() for own in some.grouped(pair.treated - pair.baseline, pair.prompts).values()])
    cell = page.get_by_role("img", name=re.compile("^static α=2 β=3:"))
    assert float(cell.text_content().replace("−", "-")) == pytest.approx(gap, abs=0.006)
    page.locator(".heat").first.focus()
    page.keyboard.press("ArrowDown")
    assert focused(page, "getAttribute('aria-label')").startswith("static α=1.5 β=1: ")
    page.keyboard.press("End")
    assert focused(page, "getAttribute('aria-label')").startswith("static α=2 β=1: ")
    assert re.fullmatch(r"14 prompts · the interval .*", page.locator("#tip span").last.text_content())


def test_correlations_and_quantiles(visit):
    page = visit("#diagnosis")
    cell = page.get_by_role("img", name=re.compile(r"alignment, up layers, and log likelihood: \+0\.\d\d \("))
    cell.hover()
    assert re.fullmatch(r"ρ = \+0\.\d\d \([+−]0\.\d\d to \+0\.\d\d\)", page.locator("#tip span").first.text_content())
    field(page, "Branch of guidance").focus()
    field(page, "Branch of guidance").select_option("unconditional")
    assert "branch=unconditional" in page.url
    assert focused(page, "value") == "unconditional"
    expect(page.locator(".curve")).to_have_count(2)
    expect(page.locator("#diagnosis .point")).to_have_count(10)
    assert page.locator(".warning").count() == 0
    field(page, "Chosen by").select_option("naive")
    assert page.locator(".warning").text_content().startswith("Selection-biased")


def test_five_thousand_samples_scroll_by_and_each_is_the_right_one(chromium, tmp_path):
    found = reports.hashed(
        simulated.simulate(
            [simulated.Knob("static α=2 β=1", "static", 2, 1)],
            prompts={"heldout": 250}, seeds={"eval": 10}, metrics=simulated.METRICS[:1], diagnosed=[],
        )
    )  # fmt: skip
    assert len(found.frame) == 5000
    page_file = reports.write(tmp_path / "many", found)
    with browser.opened(chromium, page_file, address("gallery", by=SCORE), width=1000) as (page, _):
        page.wait_for_selector("html[data-ready]")
        expect(page.locator("[data-found]")).to_have_text("5,000 of 5,000 samples, by log likelihood, highest first")
        wanted = found.frame.astype({SCORE[7:]: np.float32}).sort_values(SCORE[7:], ascending=False, kind="stable")
        seen = set()
        for share in np.linspace(0, 1, 6):
            page.evaluate("share => scrollTo(0, share * document.documentElement.scrollHeight)", share)
            page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            expect(page.locator(".cells img:not([src])")).to_have_count(0)
            page.evaluate(DECODED)
            assert page.locator(".cells > div").count() < 150
            image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            cells = page.eval_on_selector_all(
                ".cells > div",
                """all => all.map(one => {
                    const { x, y } = one.getBoundingClientRect();
                    return [Number(one.ariaPosInSet), one.firstChild.dataset.id, x, y];
                })""",
            )
            inside = [cell for cell in cells if 80 < cell[3] < 780]
            assert len(inside) > 10
            for place, name, x, y in inside:
                sample = wanted.iloc[place - 1]
                assert name == sample["sample_id"]
                assert image.getpixel((round(x) + 9, round(y) + 9)) == reports.colour(sample.name)
            seen.add(max(place for place, *_ in cells))
        assert max(seen) == 5000


@pytest.mark.parametrize("lacks", ["vanilla", "all but one sample"])
def test_what_is_not_there_is_said_to_be_missing(chromium, study, tmp_path, lacks):
    frame = study.frame[study.frame["family"] != "vanilla"] if lacks == "vanilla" else study.frame.tail(1)
    bare = replace(study, frame=frame, measures=study.measures.head(0), pairs=study.pairs.head(0))
    with browser.opened(chromium, reports.write(tmp_path / "bare", bare)) as (page, _):
        page.wait_for_selector("html[data-ready]")
        for view, said in [
            ("tradeoff", "No setting of this family" if lacks == "vanilla" else "There are no means"),
            ("diagnosis", "No vanilla sample was diagnosed"),
            ("gallery", f"{len(frame)} of {len(frame)} samples"),
        ]:
            page.evaluate("view => { location.hash = view; }", view)
            expect(page.locator(f"#{view}")).to_contain_text(said)
        page.locator(".cells a").first.click()
        page.wait_for_selector("dialog[open]")


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(visit, scheme):
    page = visit("#overview", scheme=scheme)

    def colour(name):
        return page.evaluate(
            "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()", f"--{name}"
        )

    def contrast(one, other):
        a, b = sorted((luminance(colour(one)), luminance(colour(other))))
        return (b + 0.05) / (a + 0.05)

    for behind in ("paper", "surface"):
        for words in ("ink", "faint", "accent", "good", "bad", "warn"):
            assert contrast(words, behind) >= 4.5, (words, behind)
        for mark in ("firm", *(f"c{number}" for number in range(10))):
            assert contrast(mark, behind) >= 3, (mark, behind)
    assert contrast("warn", "warn-tint") >= 4.5
    assert contrast("accent", "tint") >= 4.5
    # 85 of 100 parts of these, the rest being surface, are behind the numbers of a heat map.
    assert min(contrast("ink", "plus"), contrast("ink", "minus")) >= 4
