"""The gallery's page in a headless browser, opened from the disk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dhpf.pipelines.gallery.front_end import FILES, WEB, copy_front_end, write_data
from dhpf.pipelines.gallery.tables import shown_tables
from dhpf.pipelines.gallery.writer import write_gallery
from dhpf.storage import location_of
from tests.pipelines.gallery.browser import Browser
from tests.pipelines.gallery.made_up_run import HOSTILE, many_rows, write_images, write_matches

LIST = "document.querySelectorAll('.card').length"


def opened(page: Browser, gallery: Path, fragment: str = "") -> None:
    page.problems.clear()
    page.open(gallery / "index.html", fragment)
    page.wait("document.querySelector('.card, .panel, .note:not(:has(a))')?.textContent !== 'Loading …'")


def numbers(page: Browser) -> list[int]:
    """The numbers of the pairs whose cards are shown."""
    found: list[int] = page.value("[...document.querySelectorAll('.card')].map(card => Number(card.dataset.number))")
    return found


def test_the_policy_allows_no_script_but_those_beside_the_page() -> None:
    page = (WEB / "index.html").read_text()
    policy = re.search(r'content="(default-src[^"]*)"', page)
    assert policy is not None
    assert policy[1].split("; ") == [
        "default-src 'none'",
        *(f"{kind}-src 'self' file:" for kind in ("script", "style", "img")),
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert re.findall(r"<script[^>]*>(.*?)</script>", page) == ["", ""] and " style=" not in page


def test_the_script_makes_no_markup_of_text_and_fetches_nothing() -> None:
    script = (WEB / "gallery.js").read_text()
    unsafe = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch(", "http:")
    assert [word for word in unsafe if word in script.replace("http://www.w3.org/2000/svg", "")] == []
    assert "https:" not in script + (WEB / "gallery.css").read_text() + (WEB / "index.html").read_text()


def test_files_and_data_of_the_page(tmp_path: Path) -> None:
    copy_front_end(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    write_data(tmp_path, "table-0/list", {"name": "</script>\u2028猫"})
    text = (tmp_path / "data" / "table-0" / "list.js").read_text(encoding="ascii")
    assert text == 'gallery.take("table-0/list",{"name":"</script>\\u2028\\u732b"});\n'
    with pytest.raises(ValueError, match="Out of range float"):
        write_data(tmp_path, "n", float("nan"))


def test_names_are_text_and_never_markup(page: Browser, hostile_gallery: Path) -> None:
    for fragment in ("o=best", "v=pair&n=1", "v=pair&n=2", "v=overview", "v=graph", "t=1&v=overview"):
        opened(page, hostile_gallery, fragment)
        assert page.value("document.title") == "<b>run</b> – gallery"
        assert page.texts("#title") == ["<b>run</b>"]
        assert (
            page.value("document.querySelectorAll('b:not(.tile b), img[onerror], main i > *, main script').length") == 0
        )
        assert page.problems == []
    opened(page, hostile_gallery, "o=best")
    assert set(HOSTILE) < set(page.texts(".card .names .name"))
    opened(page, hostile_gallery, "v=pair&n=1")
    names = page.texts("h2 .name")
    assert len(names) == 2 and any("<" in name for name in names)
    assert "<i>1</i>" in page.texts(".facts dd")
    assert page.value("document.querySelector('.matches').getAttribute('aria-label')").startswith(f"source {names[0]}")


def test_the_page_may_not_run_scripts_of_others(page: Browser, hostile_gallery: Path) -> None:
    opened(page, hostile_gallery)
    page.value("""(() => {
        const script = document.createElement('script');
        script.textContent = 'document.title = "HACKED"';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="document.title=\\'HACKED\\'">');
    })()""")
    page.wait("document.querySelector('body > img').complete")
    assert page.value("document.title") == "<b>run</b> – gallery"
    assert any("Content Security Policy" in problem for problem in page.problems)


def test_orders_and_pages(page: Browser, hostile_gallery: Path) -> None:
    scores = "[...document.querySelectorAll('.card .score')].map(score => Number(score.textContent))"
    opened(page, hostile_gallery)
    assert page.value(LIST) == 100 and page.texts("[role=status]") == ["150 pairs "]
    assert page.value(scores) == sorted(page.value(scores))
    page.move(".segments button:nth-child(2)", click=True)
    page.wait("location.hash.includes('o=best')")
    assert page.value(scores) == sorted(page.value(scores), reverse=True)
    first = numbers(page)
    page.move("[aria-label='next page']", click=True)
    page.wait("location.hash.includes('p=1')")
    page.wait(f"{LIST} === 50")
    assert not set(numbers(page)) & set(first) and len({*numbers(page), *first}) == 150
    assert numbers(page)[-1] == 40  # a pair without a score comes last in either order
    page.move(".segments button:nth-child(3)", click=True)
    page.wait("location.hash.includes('o=random')")
    once = numbers(page)
    assert once != sorted(once)
    page.move(".segments button:nth-child(3)", click=True)
    page.wait("location.hash.includes('r=3')")
    assert numbers(page) != once


def test_filters(page: Browser, hostile_gallery: Path) -> None:
    def choose(label: str, text: str) -> None:
        page.value(f"""(() => {{
            const labels = [...document.querySelectorAll('.filters label')];
            const select = labels.find(l => l.firstChild.textContent === {json.dumps(label)}).querySelector('select');
            select.value = [...select.options].find(o => o.textContent === {json.dumps(text)}).value;
            select.dispatchEvent(new Event('change'));
        }})()""")

    opened(page, hostile_gallery)
    choose("Status", "image broken")
    page.wait(f"{LIST} === 1")
    assert numbers(page) == [40] and page.texts(".card .failed") == ["failed"]
    page.move("[role=status] a", click=True)
    page.wait(f"{LIST} === 100")
    choose("Class", "<i>1</i>")
    page.wait("document.querySelector('[role=status]').textContent.startsWith('7')")
    assert all(number % 2 for number in numbers(page) if number != 41)
    page.value("""(() => {
        const input = document.querySelector('input[aria-label="from score"]');
        input.value = '0.85';
        input.dispatchEvent(new Event('change'));
    })()""")
    page.wait(f"{LIST} === 15")
    assert {number % 10 for number in numbers(page)} == {9}
    opened(page, hostile_gallery)
    page.move("#layer-filter summary", click=True)
    page.move("#layer-filter button:nth-child(34)", click=True)
    page.wait("location.hash.includes('l=33')")
    assert page.texts("#layer-filter summary") == ["Layers: 33"]
    assert all(number % 2 == 0 for number in numbers(page))
    opened(page, hostile_gallery)
    page.value("document.querySelector('#search').focus()")
    page.ask("Input.insertText", text="КОШКА")
    page.wait("location.hash.includes('q=')")
    assert all(any("кошка" in name for name in card) for card in pairs_of_names(page))
    assert page.value("document.activeElement.id") == "search"


def pairs_of_names(page: Browser) -> list[list[str]]:
    names = page.texts(".card .names .name")
    return [names[k : k + 2] for k in range(0, len(names), 2)]


def test_a_pair_by_click_and_keyboard_and_back(page: Browser, hostile_gallery: Path) -> None:
    opened(page, hostile_gallery, "o=best&c=0")
    first, second, *_ = numbers(page)
    page.move(".card", click=True)
    page.wait("document.querySelector('.matches image')")
    assert page.value("location.hash") == f"#o=best&c=0&v=pair&n={first}"
    page.press("ArrowRight")
    page.wait(f"location.hash.includes('n={second}')")
    page.wait("document.querySelector('.steps .number').textContent.startsWith('2 of')")
    page.press("ArrowLeft")
    page.wait("document.querySelector('.steps .number').textContent.startsWith('1 of')")
    page.press("ArrowRight")
    page.wait("document.querySelector('.steps .number').textContent.startsWith('2 of')")
    page.press("Escape")
    page.wait(f"document.activeElement.dataset.number === '{second}'")
    page.press("ArrowLeft")
    assert page.value("document.activeElement.dataset.number") == str(first)
    page.press("Enter")
    page.wait(f"location.hash.includes('n={first}')")


def test_a_point_shows_its_partner_and_its_confidence(page: Browser, hostile_gallery: Path) -> None:
    opened(page, hostile_gallery, "v=pair&n=1")
    page.wait("document.querySelectorAll('g.mark').length === 4")
    page.move("g.mark:last-child circle.hit")
    page.wait("document.querySelector('g.mark.strong')")
    assert page.texts(".panel > .readout")[:1] == ["(10, 35) → (13, 35), confidence 0.400"]
    assert page.texts(".matches .label") == ["0.40"]
    assert page.value("document.querySelectorAll('g.mark.faint').length") == 3
    page.move("h2")
    page.wait("!document.querySelector('g.mark.strong')")


def test_the_warp_is_more_or_less_opaque(page: Browser, hostile_gallery: Path) -> None:
    listed = json.loads(
        (hostile_gallery / "data/table-0/list.js").read_text()[len('gallery.take("table-0/list",') : -3]
    )
    pictured = listed["number"][next(k for k, warp in enumerate(listed["warp"]) if warp >= 0)]
    opened(page, hostile_gallery, f"v=pair&n={pictured}")
    page.wait("document.querySelectorAll('.stack img').length === 2")
    page.wait("[...document.querySelectorAll('.stack img')].every(image => image.complete && image.naturalWidth)")
    page.value("""(() => {
        const slider = document.querySelector('#opacity');
        slider.value = 90;
        slider.dispatchEvent(new Event('input'));
    })()""")
    assert page.value("document.querySelectorAll('.stack img')[1].style.opacity") == "0.9"
    page.value("document.querySelector('#opacity').focus()")
    page.press("ArrowLeft")  # moves the slider, and not to another pair
    assert page.value("location.hash") == f"#v=pair&n={pictured}"


def test_what_failed_and_what_is_gone_is_said_in_place(page: Browser, hostile_gallery: Path) -> None:
    opened(page, hostile_gallery, "v=pair&n=40")
    assert page.texts(".panel.failed") == ["This pair could not be matched: image broken"]
    opened(page, hostile_gallery, "v=pair&n=41")
    assert page.texts("p.failed")[0].endswith("gone.jpg: no such file")
    assert "no picture" in page.texts(".matches text")
    opened(page, hostile_gallery, "q=gone.jpg")
    assert page.texts(".card .gone")[0].endswith("gone.jpg: no such file")
    opened(page, hostile_gallery, "v=pair&n=99999")
    assert page.texts(".note")[0].startswith("This pair is not in the gallery")


def test_an_evaluation_shows_the_truth_and_bars_that_lead_to_a_class(page: Browser, hostile_gallery: Path) -> None:
    opened(page, hostile_gallery, "t=1&v=pair&n=0")
    page.wait("document.querySelectorAll('circle.truth').length === 4")
    assert page.texts("g.mark title")[2].endswith("wrong, confidence 0.60; true: (50, 30)")
    assert page.texts("g.mark title")[3].startswith("(10, 35) → no prediction")
    opened(page, hostile_gallery, "t=1&v=overview")
    assert page.texts(".bars .number") == ["70 %", "70 %"]
    page.move(".bars a", click=True)
    page.wait(f"{LIST} === 5")
    assert page.texts("#views a") == ["Pairs", "Overview"]


def test_the_overview_shows_how_often_layers_are_used(page: Browser, hostile_gallery: Path) -> None:
    opened(page, hostile_gallery, "v=overview")
    rows = page.value("[...document.querySelectorAll('.heat tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    by_name = {name: cells for name, *cells in rows}
    assert by_name["all pairs"][0] == "100" and by_name["all pairs"][1] == ""
    assert by_name["<i>0</i>"][33:] == ["100", ""] and by_name["<i>1</i>"][33:] == ["", "100"]


def test_the_graph_leads_to_an_images_pairs(page: Browser, hostile_gallery: Path) -> None:
    opened(page, hostile_gallery, "v=graph")
    assert 2 <= page.value("document.querySelectorAll('.node').length") <= 7
    assert page.value("document.querySelectorAll('.edge').length") <= 14
    page.move(".node", click=True)
    page.wait("location.hash.includes('i=')")
    page.wait(f"{LIST} > 0")
    assert page.texts("[role=status]")[0].startswith("with ")


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_screen(page: Browser, hostile_gallery: Path, width: int) -> None:
    page.resize(width, 900)
    for fragment in ("", "v=pair&n=1", "v=overview", "v=graph", "t=1&v=pair&n=0"):
        opened(page, hostile_gallery, fragment)
        assert page.value("document.documentElement.scrollWidth") <= width, fragment
    page.ask("Emulation.clearDeviceMetricsOverride")


def test_every_picture_has_a_text_and_every_control_a_name(page: Browser, hostile_gallery: Path) -> None:
    for fragment in ("", "v=pair&n=1", "v=graph", "t=1&v=overview"):
        opened(page, hostile_gallery, fragment)
        assert page.value("[...document.images].every(image => image.alt)")
        tree = page.ask("Accessibility.getFullAXTree")["nodes"]
        roles = ("button", "link", "slider", "combobox", "searchbox", "spinbutton", "image")
        of_controls = [node for node in tree if node.get("role", {}).get("value") in roles and not node["ignored"]]
        nameless = [node for node in of_controls if not node.get("name", {}).get("value", "").strip()]
        assert of_controls and nameless == []


def test_ten_thousand_pairs_are_listed_a_hundred_at_a_time(page: Browser, tmp_path: Path) -> None:
    images = [f"{n}.jpg" for n in range(60)]
    digests = write_images(tmp_path / "images", images)
    write_matches(tmp_path / "run", many_rows(10_000, images, digests), tmp_path / "images", part=500)
    tables = shown_tables(location_of(tmp_path / "run"))
    write_gallery(tables, tmp_path / "g", title="many", limit=10_000, num_pictured=0, code_version="1")
    opened(page, tmp_path / "g")
    assert page.value(LIST) == 100 and page.texts("[role=status]") == ["10,000 pairs "]
    assert page.value("performance.getEntriesByType('resource').filter(r => r.name.includes('pairs-')).length") == 0
    assert (tmp_path / "g" / "data" / "table-0" / "list.js").stat().st_size < 500_000
    assert page.problems == []
