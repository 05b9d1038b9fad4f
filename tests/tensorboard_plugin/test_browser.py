"""The tab in a real browser, on a run of a real training and on hostile ones."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from browser import Tab, browser, serve, train
from tensorboard import default, program
from tensorboard.backend import application
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary
from tensorboard_log import card_of, record_of, write_log
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

from lrp_lightning.tensorboard_plugin import schema, summary
from lrp_lightning.tensorboard_plugin.summary import RelevanceSummary

pytestmark = pytest.mark.slow

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'`&amp;${alert(3)} Ω☃😀"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(folder, "first", 4, NAMES)
    train(folder, "second", 2, NAMES)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(runs: Path, chromium: Any) -> str:
    return serve(runs)


@pytest.fixture
def tab(chromium: Any, address: str) -> Iterator[Tab]:
    tab = Tab(chromium, address, "#relevance&p.relevance.run=first").ready()
    yield tab
    tab.close()


@pytest.fixture
def tab_inside(chromium: Any, address: str) -> Iterator[Tab]:
    """The tab with TensorBoard around it, as people see it."""
    tab = Tab(chromium, address, "#relevance&p.relevance.run=first", alone=False).ready()
    yield tab
    tab.close()


def nodes(tab: Tab) -> list[str]:
    return tab(".node").evaluate_all("all => all.map(one => one.dataset.key)")


def graph_now(tab: Tab) -> list[str]:
    """What the graph says of its neurons, which differs from step to step."""
    return tab(".node").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")


def drawn(tab: Tab, selector: str) -> list[bool]:
    """Of each canvas, whether it has more than one colour."""
    return tab(selector).evaluate_all("""all => all.map(canvas => {
        const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
        return new Set(pixels).size > 1;
    })""")


def test_it_shows_the_run_that_was_asked_for(tab_inside: Tab):
    tab = tab_inside
    assert tab("select[aria-label^='Run whose']").input_value() == "first"
    assert tab("output.step").inner_text().startswith("epoch 3 ")
    layers = tab("text.layer").evaluate_all("all => all.map(one => one.textContent)")
    assert layers == ["input", "conv1", "conv2", "head"]
    assert drawn(tab, ".samples canvas").count(True) >= 8
    for words in ("critical neuron", "random", "conservation error"):
        assert tab(".measures", has_text=words).count() == 1
    assert "TopK" not in tab("aside").inner_text(), "settings are folded away"
    tab("aside summary", has_text="Settings").click()
    assert "TopK" in tab("aside").inner_text()
    tab(".headline", has_text="the predicted class beats the runner-up in").wait_for()


def test_slider_play_and_keys(tab: Tab):
    last = graph_now(tab)
    tab(".steps input").fill("0")
    tab.until(lambda: tab("output.step").inner_text().startswith("epoch 0 "), "the slider moves")
    assert graph_now(tab) != last
    assert "p.relevance.step=" in tab.page.url
    tab("button[aria-label='Next step']").click()
    tab.until(lambda: tab("output.step").inner_text().startswith("epoch 1 "), "one step on")
    tab(".steps input").press("ArrowRight")
    tab.until(lambda: tab("output.step").inner_text().startswith("epoch 2 "), "by key")
    tab("button.play").click()
    tab.until(lambda: tab("output.step").inner_text().startswith("epoch 3 "), "it plays")
    tab.until(lambda: tab("button.play").inner_text() == "▶", "it stops at the end")
    assert graph_now(tab) == last


def test_a_neuron_is_looked_at(tab: Tab):
    tab("ol.paths button").first.click()
    tab("aside h3", has_text="Heatmap for").wait_for()
    tab("aside .tile").first.wait_for()
    tab("aside .neuron", has_text="conv2").first.click()
    tab("aside h3", has_text="Heatmaps of this neuron").wait_for()
    tab("aside .tile").first.wait_for()
    assert any(drawn(tab, "aside canvas"))
    for words in ("Comes from", "Goes to", "Reconstruction", "share of the output's relevance", "rank in its layer"):
        assert words in tab("aside").inner_text()
    assert tab(".node.picked").count() == 1
    assert tab("aside polyline").count() == 1
    tab("aside .neuron", has_text="conv1").first.click()
    tab("aside h2", has_text="conv1").wait_for()
    tab("button.close").click()
    tab("aside h3", has_text="Best paths").wait_for()


def test_an_edge_is_looked_at(tab: Tab):
    tab(".hit").last.dispatch_event("click")
    tab("aside", has_text="share of the upper neuron").wait_for()  # the overview's header speaks of edges too
    assert tab(".edge.lit").count() == 1


def test_keyboard_alone(tab: Tab):
    node = tab(".node[tabindex='0']")
    node.focus()
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')").startswith("head :")
    tab.page.keyboard.press("ArrowLeft")
    assert tab.evaluate("document.activeElement.dataset.key").endswith("@conv2")
    tab.page.keyboard.press("ArrowDown")
    key = tab.evaluate("document.activeElement.dataset.key")
    tab.page.keyboard.press("Enter")
    tab(f".node.picked[data-key='{key}']").wait_for()
    tab.page.keyboard.press("Escape")
    tab("aside h3", has_text="Best paths").wait_for()
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("conv1")
    tab("[role=option]").first.wait_for()
    tab.page.keyboard.press("ArrowDown")
    tab.page.keyboard.press("Enter")
    tab("aside h2", has_text="conv1").wait_for()
    unnamed = tab.evaluate("""[...document.querySelectorAll('button, select, input, [role=button], svg[role]')].filter(
        (one) => !one.getAttribute('aria-label') && !one.textContent.trim() && !one.closest('label, [hidden]')).length""")
    assert unnamed == 0


def test_two_runs_are_compared(tab: Tab):
    tab("button", has_text="Compare").click()
    tab("aside h2", has_text="What changed").wait_for()
    shown = tab(".steps input").get_attribute("max")
    disabled = "all => all.map(one => one.disabled)"
    assert tab("select[aria-label='Step to compare with'] option").evaluate_all(disabled) == [False] * int(shown) + [True]
    tab(".steps input").fill("0")
    tab("aside", has_text="This step is the one to compare with").wait_for()
    assert tab(".node.same").count() == 0
    tab(".steps input").fill(shown)
    tab("select[aria-label='Run to compare with']").select_option("second")
    tab.until(lambda: "second" in tab("aside header").inner_text(), "the other run")
    kinds = {kind: tab(f".node.{kind}").count() for kind in ("appeared", "vanished", "grew", "shrank", "same")}
    assert sum(kinds.values()) == len(nodes(tab))
    assert kinds["appeared"] + kinds["vanished"] > 0
    assert "critical neurons in common" in tab("aside").inner_text()
    tab.until(lambda: tab(".samples .tile").first.locator(".over").count() == 2, "heatmap, and the other's")
    tab("aside .neuron").first.click()
    tab("aside dt", has_text="in the compared step").wait_for()


def seen(tab: Tab) -> tuple[bool, bool]:
    """Of the first sample's pair, whether A is seen, and B."""
    sides = tab(".samples .pair").first.locator(".stack")
    a, b = sides.evaluate_all("all => all.map((one) => getComputedStyle(one).visibility === 'visible')")
    return a, b


def test_two_steps_of_a_sample_blink_or_slide(chromium: Any, insights: str):
    start = "#relevance&p.relevance.step=30&p.relevance.class=0"
    tab = Tab(chromium, insights, start).ready()
    assert not tab(".samples .pair-controls").is_visible(), "nothing is compared"
    tab("button", has_text="Compare").click()
    tab(".samples .pair").first.wait_for()
    assert "A: step 10, and B: step 30" in tab(".samples").inner_text()
    a, b = (side.bounding_box() for side in tab(".samples .pair").first.locator(".stack").all())
    assert a["x"] + a["width"] < b["x"], "side by side"

    slide = tab(".samples button", has_text="Slide")
    slide.focus()
    tab.page.keyboard.press("Enter")
    tab.until(lambda: slide.get_attribute("aria-pressed") == "true", "by key")
    a, b = (side.bounding_box() for side in tab(".samples .pair").first.locator(".stack").all())
    assert a == b, "one over the other"
    tab(".samples .pair-controls input").focus()
    for _ in range(20):
        tab.page.keyboard.press("ArrowRight")
    tab.until(lambda: "p.relevance.slide=70" in tab.page.url, "the slider is in the link")
    sides = tab(".samples .pair").first.locator(".stack")
    cuts = sides.evaluate_all("all => all.map((one) => getComputedStyle(one).clipPath)")
    assert cuts == ["inset(0px 30% 0px 0px)", "inset(0px 0px 0px 70%)"]

    tab(".samples button", has_text="Blink").click()
    tab.until(lambda: "p.relevance.view=blink" in tab.page.url, "in the link")
    assert seen(tab) == (False, True)
    tab.page.wait_for_timeout(1600)
    assert seen(tab) == (False, True), "who wants little motion switches by hand"
    tab("button[aria-label='show A, step 10']").click()
    assert seen(tab) == (True, False)
    tab(".samples .enlarge").first.click()
    enlarged = tab("dialog .pair .stack").evaluate_all("all => all.map((one) => getComputedStyle(one).visibility)")
    assert enlarged == ["visible", "hidden"]
    assert tab("dialog .pair-controls").is_visible()
    tab.page.keyboard.press("Escape")
    link = tab.page.url
    tab.close()

    moving = Tab(chromium, insights, "#" + link.partition("#")[2], motion="no-preference").ready()
    moving(".samples .pair").first.wait_for()
    for side in ((True, False), (False, True), (True, False)):
        moving.until(lambda side=side: seen(moving) == side, "it blinks")
    moving(".samples .pair-controls .side").click()
    stopped = seen(moving)
    moving.page.wait_for_timeout(1600)
    assert seen(moving) == stopped, "it rests once switched by hand"
    moving(".samples button", has_text="Blink").click()
    moving.until(lambda: seen(moving) == (True, True), "side by side again")
    assert "view=" not in moving.page.url
    moving.close()


def test_samples_that_are_not_the_same_are_not_paired(tmp_path: Path, chromium: Any):
    for seed, run in enumerate(("one", "other")):
        write_log(tmp_path / run, [10], seed=seed)
    link = "#relevance&p.relevance.run=one&p.relevance.againstRun=other&p.relevance.againstStep=10"
    tab = Tab(chromium, serve(tmp_path), link).ready()
    tab(".samples", has_text="The compared step has other samples").wait_for()
    assert tab(".pair").count() == 0
    assert not tab(".samples .pair-controls").is_visible()
    tab.close()


@pytest.fixture(scope="module")
def insights(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> str:
    """Strategies and cards at every step but the last; two classes of the first step have no shortcut."""
    folder = tmp_path_factory.mktemp("insights")
    writer = SummaryWriter(str(folder / "run"))
    log = RelevanceSummary(writer)
    full = record_of(20)
    log.write(record_of(10, strategies=[s for s in full.strategies if not s.shortcut]), 10)
    log.write(full, 20)
    log.write(record_of(30, strategies=full.strategies[1:2]), 30)
    log.write(record_of(40, strategies=[], cards=[]), 40)
    writer.close()
    return serve(folder)


def box(tab: Tab, selector: str) -> dict[str, float]:
    return tab(selector).first.bounding_box()


def test_a_shortcut_is_told_in_words(chromium: Any, insights: str):
    tab = Tab(chromium, insights, "#relevance&p.relevance.step=20&p.relevance.class=1").ready()
    tab(".strategy[data-class='1'] canvas").first.wait_for()
    assert tab(".headline [role=status] p").first.inner_text() == (
        "Likely shortcut: the network decides 40% of class ankle boot by the upper left corner; copied into samples of "
        "other "
        "classes, this region turns 31% of them into class ankle boot (controls 2%)."
    )
    first = [box(tab, selector)["y"] for selector in (".headline", ".strategies", ".graph-view")]
    assert first == sorted(first), "what was found stands on top, then strategies, then the graph"
    assert tab(".strategy[data-class]").count() == 1

    tab(".suspects button").focus()
    tab.page.keyboard.press("Enter")
    tab(".strategy[data-class='0'] canvas").first.wait_for()
    assert tab("select[aria-label='Class']").input_value() == "0"
    assert tab.evaluate("document.activeElement.dataset.class") == "0", "the focus stays"
    assert tab(".strategy[data-class]").count() == 2
    assert "likely shortcut" in tab(".strategy[data-class]").first.inner_text(), "shortcuts stand first"
    assert "2 %): no shortcut found" in tab(".strategy[data-class]").last.inner_text().replace("\u00a0", " ")
    assert drawn(tab, ".strategy canvas:not(.over)") == [True] * 14

    wrong = tab(".strategy[data-class] .prototype.wrong")
    assert [text.split("\n") for text in wrong.all_inner_texts()] == [["✗", "coat"]] * 2
    assert tab(".strategy.shortcut > .prototype").evaluate_all("all => all.map(one => one.classList.contains('wrong'))") == [
        *[False] * 5, True,
    ], "right ones first"  # fmt: skip
    assert "92 % of them classified correctly" in tab(".strategy.shortcut").inner_text().replace("\u00a0", " ")

    slot, frame = box(tab, ".strategy.shortcut .prototype .slot"), box(tab, ".strategy.shortcut .prototype .frame")
    assert abs(slot["x"] - frame["x"]) + abs(slot["y"] - frame["y"]) < 2
    for side in ("width", "height"):
        assert abs(frame[side] - slot[side] * 4 / 12) < 2

    for blend, seen in (("0", ["1", "0"]), ("50", ["1", "1"]), ("100", ["0", "1"])):
        tab(".strategies input.blend").fill(blend)
        opacity = "all => all.map((one) => getComputedStyle(one).opacity)"
        opacities = tab(".strategy .stack").first.locator("canvas").evaluate_all(opacity)
        assert opacities == seen, "image, and heatmap over it"
    assert tab(".samples input.blend").input_value() == "100", "one slider for all"
    tab("label", has_text="show all classes").locator("input").check()
    tab(".strategy[data-class='1'] canvas").first.wait_for()
    assert tab(".strategy[data-class]").evaluate_all("all => all.map(one => one.dataset.class)") == ["0", "0", "1"]
    tab.close()


def test_steps_have_strategies_or_none(chromium: Any, insights: str):
    tab = Tab(chromium, insights, "#relevance&p.relevance.step=20&p.relevance.class=0").ready()
    tab(".strategy canvas").first.wait_for()
    graph = box(tab, ".graph-view")
    tab(".steps input").fill("2")
    tab.until(lambda: tab(".strategy[data-class]").count() == 1, "one strategy")
    assert box(tab, ".graph-view") == graph, "the graph stays where it is"
    tab(".steps input").fill("3")
    tab(".strategies").wait_for(state="hidden")
    assert tab("aside h3", has_text="Best paths").is_visible()
    tab(".steps input").fill("0")
    tab(".headline", has_text="No likely shortcut was found among the 2 strategies of 2 classes.").wait_for()
    assert tab(".suspects").count() == 0
    tab.close()


def test_words_stand_where_pictures_cannot_be_had(chromium: Any, insights: str):
    tab = Tab(chromium, insights, "#relevance&p.relevance.step=40").ready()
    tab.page.route("**/picture?*", lambda route: route.abort())
    tab(".steps input").fill("1")
    tab(".strategy .problem", has_text="TensorBoard does not answer").first.wait_for()
    assert "40% of class ankle boot" in tab(".headline").inner_text()
    tab.page.unroute("**/picture?*")
    tab("select[aria-label='Order of the samples']").select_option("error")  # anything that draws again
    tab(".strategy canvas").first.wait_for()
    assert not tab(".strategy .problem").first.is_visible()
    tab.complaints = [text for text in tab.complaints if "net::ERR_FAILED" not in text]
    tab.close()


def test_a_neuron_has_a_card(chromium: Any, insights: str):
    tab = Tab(chromium, insights, "#relevance&p.relevance.step=20&p.relevance.class=0").ready()
    named = tab(".node[aria-label*='relevant for bag\u00a0.62, ankle boot\u00a0.38']")
    key = named.first.get_attribute("data-key")
    named.first.dispatch_event("click")
    tab("aside .card").wait_for()
    said = tab("aside .card").inner_text().replace("\u00a0", " ")
    assert "Relevant for: bag .62, ankle boot .38" in said
    assert "of its layer's relevance, over 48 samples" in said
    assert "Drives it most" in said
    assert "Most relevant" in said
    assert "among mistakes" not in said, "there are none"
    tab("aside .patches canvas").last.wait_for()
    assert drawn(tab, "aside .patches canvas") == [True] * 12
    for patch in tab("aside .patches canvas").all():
        size = patch.bounding_box()
        assert abs(size["width"] - size["height"]) < 1
    titles = tab("aside .patches li").evaluate_all("all => all.map(one => one.title)")
    assert titles == ["ankle boot", "bag", "bag, predicted as ankle boot"] * 2
    order = tab("aside h3").evaluate_all("all => all.map(one => one.textContent)")
    assert order.index("Drives it most") < order.index("Similar neurons") < order.index("Heatmaps of this neuron")
    tab("aside .similar button").click()
    neuron, _, layer = key.partition("@")
    tab("aside h2", has_text=f"{layer} : {int(neuron) + 1}").wait_for()
    tab.close()


def test_neurons_with_cards_are_pictures(chromium: Any, insights: str):
    tab = Tab(chromium, insights, "#relevance&p.relevance.step=20&p.relevance.class=0&p.relevance.neurons=99").ready()
    pictured = tab(".node.pictured")
    tab.until(lambda: pictured.count() == 13, "twelve cards, and a sample for the input")
    addresses = tab(".node.pictured image").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert len({*addresses}) == 13
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert not tab(".node.pictured .disc").first.is_visible()
    speaking = tab(".node.speaking")
    assert speaking.count() == 12
    assert re.fullmatch(r"\d+ bag", speaking.first.text_content())
    assert speaking.first.locator(".voice").is_visible()
    assert tab(".node:not(.pictured) .disc").first.is_visible()
    tab(".steps input").fill("3")  # a step without cards
    tab.until(lambda: tab(".node.pictured").count() == 1, "circles again, but for the input")
    tab.close()


def test_a_panel_tells_of_the_neuron_at_the_pointer(chromium: Any, insights: str):
    tab = Tab(chromium, insights, "#relevance&p.relevance.step=20&p.relevance.class=0").ready()
    tab(".node.pictured.speaking").first.hover()
    panel = tab(".graph-view > .told")
    assert panel.is_visible()
    said = panel.inner_text().replace("\u00a0", " ")
    for words in ("of its layer's relevance, rank ", "bag 62 %", "ankle boot 38 %", "comes from, for", "goes to, for"):
        assert words in said, words
    assert "against" not in said, "all edges are positive"
    assert 1 <= panel.locator(".neighbours > div").first.locator(".row").count() <= 3
    assert panel.locator(".thumbnail").count() == 1
    inside = panel.bounding_box()
    assert inside["x"] >= 0
    assert inside["x"] + inside["width"] <= 1440
    tab("header h3", has_text="Samples").hover()
    assert not panel.is_visible()
    tab(".node[tabindex='0']").focus()
    tab.page.keyboard.press("ArrowLeft")
    assert panel.is_visible(), "for the keyboard too"
    tab(".hit").last.dispatch_event("pointerover")
    assert "of the upper neuron's relevance" in panel.inner_text()
    assert tab(".edge.lit").count() == 1
    tab(".hit").last.dispatch_event("pointerout")
    assert not panel.is_visible()
    tab.close()


def test_few_neurons_at_first_and_more_when_asked(chromium: Any, insights: str):
    start = "#relevance&p.relevance.step=40&p.relevance.class=0"
    tab = Tab(chromium, insights, start).ready()
    slider = tab(".amount input")

    def drawn_now() -> tuple[int, int]:
        return len(nodes(tab)), tab(".edge").count()

    few = drawn_now()
    assert "neurons=" not in tab.page.url
    slider.fill(slider.get_attribute("max"))
    tab.until(lambda: "p.relevance.neurons=12" in tab.page.url, "the amount is in the link")
    many = drawn_now()
    assert many[0] > 1.5 * few[0]
    assert many[1] > 3 * few[1]
    again = Tab(chromium, insights, "#" + tab.page.url.partition("#")[2]).ready()
    assert again(".node").count() == many[0]
    again.close()
    slider.fill("0")
    tab.until(lambda: drawn_now() < few, "best paths alone")
    alone = set(nodes(tab))
    tab("input[type=search]").fill("block")
    tab("[role=option]").first.wait_for()
    tab("input[type=search]").press("ArrowUp")  # the last hit, which no path has
    tab("input[type=search]").press("Enter")
    tab(".node.picked").wait_for()
    assert tab(".node.picked").get_attribute("data-key") not in alone, "what is looked at is drawn"
    slider.fill("3")
    tab.until(lambda: "neurons=" not in tab.page.url, "as at the start")
    tab.close()


def test_a_neuron_gets_a_name_of_ones_own(chromium: Any, insights: str):
    tab = Tab(chromium, insights, "#relevance&p.relevance.step=40&p.relevance.class=0&p.relevance.neurons=12").ready()
    assert not tab(".naming").is_visible()
    key = tab(".node[data-key*='block']").last.get_attribute("data-key")
    tab(f".node[data-key='{key}']").dispatch_event("click")
    tab(".naming").fill(HOSTILE[:30])
    tab(".naming").press("Enter")
    named = tab(f".node[data-key='{key}'] .own")
    named.wait_for()
    tab(".amount input").fill("0")
    tab("button.close").click()
    tab.until(lambda: "neurons=0" in tab.page.url and "p.relevance.neuron=" not in tab.page.url, "all is in the link")
    assert named.is_visible(), "a neuron with a name is drawn, however few are"
    again = Tab(chromium, insights, "#" + tab.page.url.partition("#")[2]).ready()
    assert f"“{HOSTILE[:30]}”" in again(f".node[data-key='{key}']").get_attribute("aria-label")
    again(f".node[data-key='{key}']").dispatch_event("click")
    assert again(".naming").input_value() == HOSTILE[:30]
    again(".naming").fill("")
    again(".naming").press("Enter")
    again.until(lambda: "names=" not in again.page.url, "it loses its name")
    for one in (tab, again):
        one.close()


def test_a_neuron_is_pinned(chromium: Any, insights: str, tmp_path: Path):
    tab = Tab(chromium, insights, "#relevance&p.relevance.step=40&p.relevance.class=0&p.relevance.neurons=12").ready()
    key = tab(".node[data-key*='block']").last.get_attribute("data-key")
    assert not tab(".pinning").is_visible()
    tab(f".node[data-key='{key}']").dispatch_event("click")
    tab(".pinning").focus()
    tab.page.keyboard.press("Enter")
    tab(f".node.pinned[data-key='{key}']").wait_for()
    tab(".naming").fill("edges")
    tab(".naming").press("Enter")
    tab.until(lambda: "names=" in tab.page.url and "pinned=" in tab.page.url, "both are in the link")
    tab("summary", has_text="Export").click()
    with tab.page.expect_download() as started:
        tab(".choices button", has_text="JSON").click()
    started.value.save_as(tmp_path / "step.json")
    marked = [node for node in json.loads((tmp_path / "step.json").read_text())["nodes"] if node["pinned"]]
    assert [(f"{node['neuron']}@{node['layer']}", node["name"]) for node in marked] == [(key, "edges")]
    tab(".naming").fill("")
    tab(".naming").press("Enter")
    tab(".amount input").fill("0")
    tab("button.close").click()
    tab.until(lambda: "neurons=0" in tab.page.url and "p.relevance.neuron=" not in tab.page.url, "all is in the link")
    again = Tab(chromium, insights, "#" + tab.page.url.partition("#")[2]).ready()
    pinned = again(f".node[data-key='{key}']")
    assert pinned.is_visible(), "however few are drawn"
    assert ", pinned" in pinned.get_attribute("aria-label")
    pinned.dispatch_event("click")
    again(".pinning[aria-pressed=true]").click()
    again.until(lambda: "pinned=" not in again.page.url, "no longer")
    for one in (tab, again):
        one.close()


def test_neurons_are_grouped(chromium: Any, insights: str, tmp_path: Path):
    tab = Tab(chromium, insights, "#relevance&p.relevance.step=40&p.relevance.class=0&p.relevance.neurons=12").ready()
    keys = tab(".node[data-key*='block']").evaluate_all("all => all.map(one => one.dataset.key)")
    layer = keys[0].partition("@")[2]
    first, second, third = sorted(
        (key for key in keys if key.endswith(f"@{layer}")), key=lambda key: int(key.partition("@")[0])
    )[:3]
    elsewhere = next(key for key in keys if not key.endswith(f"@{layer}"))
    count = tab(".node").count()
    tab(f".node[data-key='{first}']").dispatch_event("click", {"shiftKey": True})
    tab(".toast", has_text="select a neuron").wait_for()
    tab(f".node[data-key='{first}']").dispatch_event("click")
    tab(".node.picked").wait_for()
    assert not tab(".opening").is_visible()
    tab(f".node[data-key='{elsewhere}']").dispatch_event("click", {"shiftKey": True})
    tab(".toast", has_text="same layer").wait_for()
    assert tab(".node").count() == count, "a group has neurons of one layer"
    tab(f".node[data-key='{second}']").dispatch_event("click", {"shiftKey": True})
    tab(".node.grouped").wait_for()
    assert tab(".node").count() == count - 1
    tab(f".node[data-key='{third}']").focus()
    tab.page.keyboard.press("g")
    key = ",".join(one.partition("@")[0] for one in (first, second, third)) + f"@{layer}"
    group = tab(f".node.grouped.picked[data-key='{key}']")
    group.wait_for()
    assert tab(".node").count() == count - 2
    tab.until(lambda: tab.evaluate("document.activeElement.dataset.key") == key, "the keyboard goes on at the group")
    assert "group of 3 neurons" in group.get_attribute("aria-label")
    assert tab(".legend .grouped").is_visible()
    tab("aside .picked p", has_text=f"group of 3 neurons of {layer}").wait_for()
    assert tab("aside .neurons li").count() == 3
    tab("aside .chart polyline").first.wait_for()
    tab(".naming").fill(HOSTILE[:30])
    tab(".naming").press("Enter")
    tab(f".node[data-key='{key}'] .own").wait_for()
    tab("aside h2", has_text=HOSTILE[:30]).wait_for()
    said = group.get_attribute("aria-label")

    for kind in ("JSON", "GraphML"):
        tab("summary", has_text="Export").click()
        with tab.page.expect_download() as started:
            tab(".choices button", has_text=kind).click()
        started.value.save_as(tmp_path / kind)
    saved = json.loads((tmp_path / "JSON").read_text())
    numbers = [int(one.partition("@")[0]) for one in (first, second, third)]
    assert saved["groups"] == [{"key": key, "name": HOSTILE[:30], "neurons": [[layer, number] for number in numbers]}]
    of_group = [node for node in saved["nodes"] if node.get("group") == key]
    assert sorted(node["neuron"] for node in of_group) == numbers
    assert f"relevance {sum(node['relevance'] for node in of_group):.2g}"[:12] in said.replace("\u2212", "-"), "a sum"
    graph = nx.read_graphml(tmp_path / "GraphML")
    assert {node for node, about in graph.nodes(data=True) if about.get("group") == HOSTILE[:30]} == {first, second, third}

    tab(".amount input").fill("0")
    tab("aside .neurons button").first.click()
    assert group.is_visible(), "of a neuron in a group, the group is selected"
    tab("button.close").click()
    tab.until(lambda: "neurons=0" in tab.page.url and "p.relevance.neuron=" not in tab.page.url, "all is in the link")
    again = Tab(chromium, insights, "#" + tab.page.url.partition("#")[2]).ready()
    kept = again(f".node.grouped[data-key='{key}']")
    assert kept.get_attribute("aria-label") == said
    kept.focus()
    again.page.keyboard.press("Enter")
    again(".opening").focus()
    again.page.keyboard.press("Enter")
    again.until(lambda: "groups=" not in again.page.url, "it is opened")
    assert again(".node.grouped").count() == 0
    assert "names=" not in again.page.url
    assert again(".legend .grouped").count() == 0
    for one in (tab, again):
        one.close()


def test_zoom_and_full_screen(tab: Tab):
    svg = tab("svg.graph")

    def width() -> float:
        return svg.bounding_box()["width"]

    plain = width()
    tab(".node[tabindex='0']").focus()
    tab.page.keyboard.press("+")
    tab.page.keyboard.press("+")
    glyph = tab(".node .room").first.bounding_box()["width"]
    tab.page.keyboard.press("0")
    assert width() == plain
    assert tab(".node .room").first.bounding_box()["width"] < glyph / 1.4
    box = tab(".scroller").bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.page.keyboard.down("Control")
    for _ in range(8):
        tab.page.mouse.wheel(0, -100)
    tab.page.keyboard.up("Control")
    tab.until(lambda: width() > 1.1 * plain, "the wheel zooms")
    left = tab.evaluate("document.querySelector('.scroller').scrollLeft")
    assert left > 0, "about the pointer"
    tab.page.mouse.move(box["x"] + 60, box["y"] + box["height"] - 30)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 160, box["y"] + box["height"] - 30, steps=4)
    tab.page.mouse.up()
    assert tab.evaluate("document.querySelector('.scroller').scrollLeft") < left, "the pointer pans"

    tab(".node[tabindex='0']").focus()
    tab.page.keyboard.press("f")
    tab.until(lambda: not tab(".samples").is_visible(), "the graph alone")
    assert tab("button[aria-pressed=true]", has_text="Full screen").is_visible()
    assert not tab("aside").is_visible()
    tab.page.keyboard.press("Enter")
    tab("aside h2").wait_for()
    assert tab("aside").is_visible(), "what is looked at stands beside it"
    tab.page.keyboard.press("Escape")
    tab.until(lambda: tab(".samples").is_visible(), "and back")


def test_many_layers_have_names_that_can_be_read(tmp_path: Path, chromium: Any):
    from tensorboard_log import graph_of

    from lrp_lightning.graphs.class_graph import ClassGraph
    from lrp_lightning.graphs.paths import k_best_paths

    inside = [f"encoder.layers.encoder_layer_{i}.{name}" for i in range(8) for name in ("attention", "mlp.0", "mlp.3")]
    names = ["input", "conv_proj", *inside, "heads.head"]
    graph = graph_of(1, (1, *[6] * (len(names) - 2), 3), names)
    graphs = [ClassGraph(1, graph, k_best_paths(graph, 2), 4)]
    write_log(tmp_path / "run", [1], graphs=graphs, neuron_heatmaps={}, reconstructions={}, cards=[])
    tab = Tab(chromium, serve(tmp_path), width=1024).ready()
    said = tab("text.layer").evaluate_all("all => all.map(one => one.textContent)")
    assert said == ["input", "conv_proj", *["attention", "mlp.0", "mlp.3"] * 8, "head"]
    blocks = tab(".block text").evaluate_all("all => all.map(one => one.textContent)")
    assert blocks == [*(f"encoder_layer_{i}" for i in range(8)), "heads"]
    boxes = [text.bounding_box() for text in tab("text.layer").all()]
    assert all(a["x"] + a["width"] < b["x"] for a, b in itertools.pairwise(boxes)), "names do not overlap"
    assert boxes[-1]["x"] + boxes[-1]["width"] <= 1024, "the class is in sight first"
    assert boxes[0]["x"] < 0
    tab(".node[tabindex='0']").focus()
    tab.page.keyboard.press("0")
    assert tab.evaluate(
        "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(document.querySelector('.scroller'))"
    )
    tab.close()


def test_a_log_of_the_first_version_still_opens(tmp_path: Path, chromium: Any):
    (tmp_path / "run").mkdir()
    shutil.copy(Path(__file__).parent / "logs" / "events.out.tfevents.1.version1", tmp_path / "run")
    tab = Tab(chromium, serve(tmp_path)).ready()
    tab("aside h3", has_text="Best paths").wait_for()
    assert not tab(".strategies").is_visible()
    tab(".node").first.dispatch_event("click")
    tab("aside dt", has_text="rank in its layer").wait_for()
    assert tab("aside .card").count() == 0
    tab.close()


def test_runs_share_the_charts(tab: Tab):
    tab("summary", has_text="Runs").click()
    tab(".choices label", has_text="second").locator("input").check()
    tab(".measures figcaption span", has_text="second").first.wait_for()


def test_samples_are_sorted_by_error_right_and_wrong_apart(tab: Tab):
    tab("select[aria-label='Order of the samples']").select_option("error")

    def groups() -> list[list[float]]:
        titles = tab(".samples .group").evaluate_all(
            "all => all.map(group => [...group.querySelectorAll('.tile')].map(one => one.title))"
        )
        return [[float(title.rpartition("error ")[2]) for title in group] for group in titles]

    tab.until(lambda: groups() == [sorted(group, reverse=True) for group in groups()], "worst first")
    assert sum(map(len, groups())) == 6
    assert tab(".group[aria-label='Right'] .wrong").count() == 0
    assert tab(".group[aria-label='Wrong'] .tile:not(.wrong)").count() == 0


def test_a_sample_is_enlarged(tab: Tab):
    first = tab(".samples .enlarge").first
    first.focus()
    tab.page.keyboard.press("Enter")
    tab("dialog.viewer[open]").wait_for()
    assert drawn(tab, "dialog canvas") == [True] * 5, "image, and two heatmaps over it"
    heading = tab("dialog h2").inner_text()
    tab.page.keyboard.press("ArrowRight")
    assert tab("dialog h2").inner_text() != heading
    assert "2 of 6" in tab("dialog footer").inner_text()
    tab.page.keyboard.press("ArrowLeft")
    tab.page.keyboard.press("ArrowLeft")
    assert "6 of 6" in tab("dialog footer").inner_text()
    tab.page.keyboard.press("Escape")
    tab("dialog").wait_for(state="detached")
    assert first.evaluate("one => one === document.activeElement"), "the focus is back"


def test_a_measure_says_what_it_is(tab: Tab):
    ask = tab("button[aria-label='What is predicted class against runner-up?']")
    ask.focus()
    tab.page.keyboard.press("Enter")
    note = tab(".help-note:popover-open")
    note.wait_for()
    assert "beats the runner-up" in note.inner_text()
    seen = note.bounding_box()
    assert seen["x"] >= 0
    assert seen["y"] >= 0
    assert seen["x"] + seen["width"] <= 1440
    assert seen["y"] + seen["height"] <= 900
    tab.page.keyboard.press("Escape")
    note.wait_for(state="detached")
    assert tab(".measures .help").count() == tab(".measures figure").count()


def test_measures_have_the_epochs_without_records(tmp_path: Path, chromium: Any):
    writer = SummaryWriter(str(tmp_path / "run"))
    for step in (10, 15, 20):
        writer.add_scalar("relevance/contest_accuracy", step / 40, step)
        writer.add_scalar("relevance/samples", 32, step)
    log = RelevanceSummary(writer)
    for step in (10, 20):
        log.write(record_of(step, measures={"contest_accuracy": step / 40}), step)
    writer.flush()
    tab = Tab(chromium, serve(tmp_path)).ready()

    def points() -> list[int]:
        return tab(".measures polyline").evaluate_all("all => all.map(one => one.getAttribute('points').split(' ').length)")

    assert points() == [3]
    assert tab(".measures .bars").count() == 1
    assert "on 32 samples" in tab(".measures").inner_text()
    writer.add_scalar("relevance/contest_accuracy", 0.9, 25)
    writer.flush()
    tab.until(lambda: points() == [4], "a later epoch comes by itself")
    writer.close()
    tab.close()


def test_a_link_brings_back_what_was_seen(tab_inside: Tab, chromium: Any, address: str):
    tab = tab_inside
    tab(".steps input").fill("1")
    tab.until(lambda: "p.relevance.step=" in tab.page.url, "the step is in the address")
    before = tab.page.url
    tab("select[aria-label='Class']").select_option(index=1)
    tab.until(lambda: tab.page.url != before, "the class is in the address, and its graph is drawn")
    tab(".node[data-key$='@conv2']").first.click()
    tab("aside h2", has_text="conv2").wait_for()
    tab("button", has_text="Share").click()
    tab(".toast", has_text="Link copied").wait_for()
    link = tab.page.evaluate("navigator.clipboard.readText()")
    assert link == tab.page.url
    other = Tab(chromium, link, "", alone=False).ready()
    other("aside h2", has_text="conv2").wait_for()
    for selector in ("output.step", "aside h2"):
        assert other(selector).inner_text() == tab(selector).inner_text()
    assert graph_now(other) == graph_now(tab)
    other.close()


def test_dark_as_tensorboard_is(tab_inside: Tab):
    tab = tab_inside

    def background() -> int:
        return sum(tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"))

    assert background() > 3 * 200
    tab.page.locator("app-header-dark-mode-toggle button").click()
    tab.page.locator("[mat-menu-item]", has_text="Dark").click()
    tab.until(lambda: background() < 3 * 70, "it turns dark")
    assert any(drawn(tab, ".samples canvas"))


@pytest.mark.parametrize("kind", ["PNG", "SVG", "JSON", "GraphML"])
def test_exports(tab: Tab, kind: str, tmp_path: Path):
    tab.page.emulate_media(color_scheme="dark")
    tab(".amount input").fill(tab(".amount input").get_attribute("max"))  # files of data have all neurons of the record
    tab("summary", has_text="Export").click()
    with tab.page.expect_download() as started:
        tab(".choices button", has_text=kind).click()
    path = tmp_path / started.value.suggested_filename
    started.value.save_as(path)
    assert path.name.startswith("relevance-first-")
    if kind == "PNG":
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000
    elif kind == "SVG":
        drawing = path.read_text()
        for words in ("Critical neurons for", "first · epoch 3 · step ", " sample", "relevance for the class", "best paths"):
            assert words in drawing, words
        assert 'fill="rgb(255, 255, 255)"' in drawing
        assert 'fill="rgb(33, 33, 33)"' in drawing, "ink for white, whatever the page's theme"
        assert not re.search("class=|style=|var\\(|color\\(|http(?!://www.w3.org/2000/svg)", drawing), "it stands by itself"
    elif kind == "JSON":
        saved = json.loads(path.read_text())
        assert {f"{node['neuron']}@{node['layer']}" for node in saved["nodes"]} == set(nodes(tab))
        assert "critical_neuron_accuracy" in saved["measures"]
    else:
        graph = nx.read_graphml(path)
        assert set(graph) == set(nodes(tab))
        assert all(isinstance(data["relevance"], float) for *_, data in graph.edges(data=True))


def test_the_page_is_saved_as_one_file(chromium: Any, insights: str, tmp_path: Path):
    link = "#relevance&p.relevance.step=20&p.relevance.class=0&p.relevance.againstRun=run&p.relevance.againstStep=10"
    tab = Tab(chromium, insights, link).ready()
    tab(".strategy canvas").first.wait_for()
    tab(".node.pictured").first.wait_for()
    tab(".samples .pair").first.wait_for()
    canvases, svgs = tab(".board canvas").count(), tab(".board svg").count()
    said = [tab(selector).first.inner_text() for selector in (".headline [role=status]", "aside h2", ".facts")]
    tab("summary", has_text="Export").click()
    with tab.page.expect_download() as started:
        tab(".choices button", has_text="Page as HTML").click()
    path = tmp_path / "page.html"
    started.value.save_as(path)
    tab.close()
    assert started.value.suggested_filename == "relevance-run-ankle_boot-step20.html"
    source = path.read_text()
    assert source.startswith("<!DOCTYPE html>")
    addresses = set(re.findall(r"https?://[^\s\"'`)<]*", source))
    assert addresses <= {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"}, "names, never fetched"

    context = chromium.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert page.title() == "Relevance of “ankle boot”"
    about = page.locator("header.saved").inner_text()
    for words in ("run run", "epoch 2", "step 20", "from step 10 to step 20", "red supports the class"):
        assert words in about, words
    for text in said:
        assert text in page.locator("body").inner_text()
    assert page.locator("script, button, input, select, canvas, iframe, link").count() == 0
    assert page.locator(".board img").count() == canvases
    assert page.locator(".board svg").count() == svgs
    wide = "all => all.every((one) => one.complete && one.naturalWidth > 1 && one.getBoundingClientRect().width > 10)"
    assert page.locator(".board img").evaluate_all(wide)
    assert "epsilon" in page.locator("footer.saved").inner_text().lower()
    assert page.locator(".node > title").count() == page.locator(".node").count()
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"))
    assert min(colours[0]) > 200
    assert max(colours[1][:3]) < 70
    page.set_viewport_size({"width": 700, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "on small screens too"
    context.close()


def test_narrow_windows_are_legible(chromium: Any, address: str):
    tab = Tab(chromium, address, width=1024, height=768).ready()
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    overflowing = tab.evaluate("""[...document.querySelectorAll('.toolbar > *, .panel, aside')].filter((one) => !one.hidden
        && one.getBoundingClientRect().right > window.innerWidth + 1).map((one) => one.className)""")
    assert overflowing == []
    tab.close()


def test_it_opens_fast_and_fetches_little(tmp_path: Path, chromium: Any):
    """Fifty epochs. A generous limit in time, for machines that do other things; the log's kB are exact."""
    write_log(tmp_path / "long", range(0, 500, 10))
    address = serve(tmp_path)
    Tab(chromium, address).ready().close()  # TensorBoard has read its log
    tab = Tab(chromium, address).ready()
    opened = tab.evaluate("performance.now()")
    fetched = tab.evaluate("""performance.getEntriesByType('resource').filter((one) => one.name.includes('?'))
        .reduce((sum, one) => sum + one.transferSize, 0)""")
    assert opened < 4000
    assert 0 < fetched < 200_000
    asked = len(tab.asked)
    for place in (20, 21, 20, 21, 20):
        tab(".steps input").fill(str(place))
        tab.until(lambda place=place: tab("output.step").inner_text().endswith(f"step {place * 10}"), "the slider moves")
    again = [url for url in tab.asked[asked:] if "/step?" in url]
    assert len(again) == len(set(again)) <= 4  # two steps and those beside them, each once
    tab.close()


def test_what_a_run_says_is_never_markup(tmp_path: Path, chromium: Any):
    from tensorboard_log import graph_of

    from lrp_lightning.graphs.class_graph import ClassGraph

    names = ["input", HOSTILE, "block" + "y" * 10_000, "head"]
    graph = graph_of(0, names=names)
    from lrp_lightning.graphs.paths import k_best_paths

    graphs = [ClassGraph(1, graph, k_best_paths(graph, 3), 4)]
    hostile = {"class_names": [HOSTILE, HOSTILE + "x" * 10_000, "c"], "settings": {HOSTILE: HOSTILE * 50}, "graphs": graphs,
               "measures": {HOSTILE: 1.0, "a" * 10_000: 2.0}, "neuron_heatmaps": {}, "reconstructions": {},
               "cards": [card_of(HOSTILE, neuron, 0) for neuron in range(20)]}  # fmt: skip
    # TensorBoard's data server has no pictures of a run with a quotation mark in its name
    write_log(tmp_path / HOSTILE.replace("/", "_").replace('"', ""), **hostile)
    write_log(tmp_path / ("r" * 200), [1], **hostile)
    tab = Tab(chromium, serve(tmp_path)).ready()
    elements = "document.querySelectorAll('img, script[src], body script, iframe, style').length"
    assert tab.evaluate(elements) == 0
    assert HOSTILE in tab("aside").text_content()
    assert HOSTILE in tab(".headline").inner_text()
    assert HOSTILE[:39] in tab(".suspects button").inner_text()
    tab("label", has_text="show all classes").locator("input").check()
    tab(".strategy[data-class='1']").wait_for()
    tab(".node[data-key*='onerror']").first.click()
    tab("aside h2", has_text="onerror").wait_for()
    assert HOSTILE[:39] in tab("aside .speaks").inner_text()
    tab(".node[data-key*='onerror']").first.hover()
    tab("button", has_text="Compare").click()
    tab("button.close").click()
    tab("aside h2", has_text="What changed").wait_for()
    tab("input[type=search]").fill("onerror")
    tab("[role=option]").first.wait_for()
    assert tab.evaluate(elements) == 0
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    tab.close()


def test_new_steps_come_by_themselves(tmp_path: Path, chromium: Any):
    writer = SummaryWriter(str(tmp_path / "live"))
    live = RelevanceSummary(writer)
    live.write(record_of(10), 10)
    writer.flush()
    tab = Tab(chromium, serve(tmp_path), alone=False).ready()
    live.write(record_of(20), 20)
    writer.flush()
    tab.until(lambda: tab("output.step").inner_text().endswith("step 20"), "the last step is followed")
    tab(".steps input").fill("0")
    tab.until(lambda: tab("output.step").inner_text().endswith("step 10"), "back")
    live.write(record_of(30), 30)
    writer.flush()
    tab.page.wait_for_timeout(1500)  # TensorBoard reads its log again every second here
    tab.page.locator("app-header-reload button").click()  # word of that reaches the tab
    tab.until(lambda: tab(".steps input").get_attribute("max") == "2", "a third step")
    assert tab("output.step").inner_text().endswith("step 10"), "who looks at an earlier step stays there"
    tab.close()


def test_without_records_it_says_what_to_add(tmp_path: Path, chromium: Any):
    SummaryWriter(str(tmp_path)).add_scalar("loss", 1.0, 0)
    tab = Tab(chromium, serve(tmp_path))
    tab(".empty", has_text="callbacks=[RelevanceMonitor()]").wait_for()
    assert not tab(".board").is_visible()
    tab.close()


def test_what_cannot_be_read_is_a_message(tmp_path: Path, chromium: Any):
    writer = SummaryWriter(str(tmp_path))
    RelevanceSummary(writer).write(record_of(0), 0)
    for step, head in enumerate([schema.pack({"version": 99}), b"broken"], start=1):
        value = summary._value(schema.RECORD, DATA_CLASS_TENSOR, [head])
        writer._get_file_writer().add_summary(Summary(value=[value]), step)
    writer.close()
    tab = Tab(chromium, serve(tmp_path))
    tab("aside [role=alert]", has_text="broken").wait_for()
    tab("button[aria-label='Previous step']").click()
    tab("aside [role=alert]", has_text="update lrp-lightning").wait_for()
    tab("button[aria-label='Previous step']").click()
    tab("aside h3", has_text="Best paths").wait_for()
    tab.close()


def test_a_server_that_is_gone_is_told_and_tried_again(chromium: Any, address: str):
    tab = Tab(chromium, address, "#relevance&p.relevance.run=first").ready()
    tab.page.route("**/relevance/st*", lambda route: route.abort())
    tab(".steps input").fill("0")
    tab(".notice", has_text="TensorBoard does not answer").wait_for()
    tab.page.unroute("**/relevance/st*")
    tab(".notice button").click()
    tab.until(lambda: tab("output.step").inner_text().startswith("epoch 0 "), "it goes on")
    assert not tab(".notice").is_visible()
    tab.complaints = [text for text in tab.complaints if "net::ERR_FAILED" not in text]
    tab.close()


def test_a_tensorboard_without_the_plugin_shows_the_rest(runs: Path):
    board = program.TensorBoard(plugins=default.get_static_plugins())
    board.configure(argv=["", "--logdir", str(runs)])
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(runs))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(runs))
    client = Client(application.TensorBoardWSGIApp(board.flags, board.plugin_loaders, provider, board.assets_zip_provider))
    listed = client.get("/data/plugins_listing").json
    assert "relevance" not in listed
    for name in ("scalars", "images", "histograms", "text"):
        assert listed[name]["enabled"], name
    scalars = client.get("/data/plugin/scalars/tags").json["first"]
    assert {"relevance/critical_neuron_accuracy", "relevance/random_accuracy"} <= set(scalars)
    images = client.get("/data/plugin/images/tags").json["first"]
    assert "relevance/heatmaps" in images
    assert any(tag.startswith("relevance/critical_paths/") for tag in images)
    histograms = client.get("/data/plugin/histograms/tags").json["first"]
    assert any(tag.startswith("relevance/shares/") for tag in histograms)
