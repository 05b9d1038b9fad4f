"""The report: one file that needs nothing else, in which text is text and numbers are those of the trace."""

from __future__ import annotations

import base64
import io
import re
import warnings
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
import torch
from browser import browser
from PIL import Image
from small_networks import mlp
from tensorboard_log import strategy_of
from torch import Tensor, nn

from lrp_lightning import (
    EpsilonPlus,
    SelectiveLRP,
    TopK,
    Trace,
    ZPlus,
    build_graph,
    contest,
    k_best_paths,
    masked_forward,
    neuron_heatmaps,
)
from lrp_lightning import Path as Chain
from lrp_lightning.drawing import ClassGraph, Curves, Report, relevance_as_images, report_of, write_report
from lrp_lightning.errors import InputError

EVIL = "<script>alert('x')</script>&\"</td>"


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its text, and the data in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.data: list[str] = []
        self.scripts: list[str] = []
        self._in = ""
        self.source = path.read_text("utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._in = "data" if dict(attrs).get("type") == "application/json" else "script"
            (self.data if self._in == "data" else self.scripts).append("")
        elif tag == "style":
            self._in = "style"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._in = ""

    def handle_data(self, data: str) -> None:
        if not self._in:
            self.text.append(data)
        elif self._in != "style":
            (self.data if self._in == "data" else self.scripts)[-1] += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            given for name, given in self.elements if name == tag and all(given.get(k) == v for k, v in attributes.items())
        ]

    @property
    def sections(self) -> list[str | None]:
        return [given["id"] for given in self.all("section")]

    @property
    def images(self) -> list[np.ndarray]:
        sources = [str(given["src"]) for given in self.all("img")]
        return [pixels_of(source) for source in sources if not source.startswith("data:image/svg+xml")]

    def table(self, head: str) -> list[list[str]]:
        """The cells of the table whose first column is headed so, row by row."""
        [table] = re.findall(rf"<tr><th>{head}</th>.*?</table>", self.source, re.DOTALL)
        return [re.findall("<td>(.*?)</td>", row) for row in table.split("</tr>")[1:-1]]


def pixels_of(source: str) -> np.ndarray:
    kind, _, data = source.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trace(model: nn.Module, images: Tensor) -> Trace:
    return SelectiveLRP(model, selection=TopK(0.5)).trace(images, target=lambda output: output.argmax(1), edges=True)


@pytest.fixture(scope="module")
def whole(trace: Trace, images: Tensor, model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("report")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = write_report(trace, folder / "new" / "report.html", images, model, class_names=["cat", "dog", "emu", "fox"])
    return Page(path)


# One file


def test_it_is_one_file_that_asks_for_nothing(whole: Page) -> None:
    assert len(whole.source.encode()) < 4e5
    assert whole.source.startswith("<!DOCTYPE html>")
    assert len(whole.scripts) == 1
    for tag, given in whole.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "srcset"):
            assert (given.get(name) or "data:").startswith(("data:", "#")), given
    assert "@import" not in whole.source.partition("<script>")[0]
    assert "url(" not in whole.source.partition("<script>")[0]
    assert whole.all("meta", name="viewport")
    assert "prefers-color-scheme: dark" in whole.source
    assert plt.get_fignums() == []


def test_all_sections_of_a_trace_with_its_model(whole: Page) -> None:
    assert whole.sections == ["heatmaps", "graph", "reconstructions", "curves", "conservation", "settings"]
    links = [given["href"] for given in whole.all("a") if "neuron" not in str(given["href"])]
    assert links == [f"#{name}" for name in whole.sections]


def test_what_is_left_out(trace: Trace, images: Tensor, model: nn.Module, tmp_path: Path) -> None:
    assert Page(write_report(trace, tmp_path / "1.html")).sections == ["graph", "conservation", "settings"]
    with_images = Page(write_report(trace, tmp_path / "2.html", images))
    assert with_images.sections == ["heatmaps", "graph", "conservation", "settings"]
    plain = SelectiveLRP(model).trace(images, target=1)
    page = Page(write_report(plain, tmp_path / "3.html", images))
    assert page.sections == ["heatmaps", "conservation", "settings"]
    empty = Page(write_report(Report(title="nothing"), tmp_path / "4.html"))
    assert empty.sections == []
    assert len(empty.source) < 20_000


def test_it_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("old")
    assert write_report(Report(title="new"), str(file)) == file
    assert "old" not in file.read_text()


# What it shows


def test_images_beside_heatmaps_of_their_critical_neurons_and_of_all(
    whole: Page, trace: Trace, model: nn.Module, images: Tensor
) -> None:
    assert isinstance(trace.inputs, Tensor)
    through_all = SelectiveLRP(model).attribute(images, target=trace.output.argmax(1))
    shares = [100 * of / of.sum(1, keepdim=True).abs().sum((2, 3), keepdim=True) for of in (trace.inputs, through_all)]
    heat = relevance_as_images(torch.cat(shares)).permute(0, 2, 3, 1).numpy().astype(int)
    for n in range(3):
        shown, *maps = whole.images[3 * n : 3 * n + 3]
        least, most = images[n].min(), images[n].max()
        np.testing.assert_allclose(shown, 255 * ((images[n] - least) / (most - least)).permute(1, 2, 0), atol=1)
        for drawn, expected in zip(maps, (heat[n], heat[3 + n]), strict=True):
            assert np.abs(drawn.astype(int) - expected).max() <= 4  # to a step of the scale
        strongest = np.unravel_index(int(trace.inputs[n].sum(0).argmax()), (20, 20))
        assert np.ptp(maps[0][strongest].astype(int)) > 60  # a person sees colour there
        held = [float(of[n].sum() / trace.explained[n]) for of in (trace.inputs, through_all)]
        at = whole.text.index(f"critical neurons {held[0]:.0%}")
        assert f"all neurons {held[1]:.0%}" in whole.text[at:]


def test_without_a_selection_there_is_one_heatmap_an_image(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    page = Page(write_report(SelectiveLRP(model).trace(images, target=1), tmp_path / "report.html", images, model))
    assert "through all neurons" not in page.source
    assert "Each image beside its heatmap" in page.source
    assert "Critical neurons are" not in page.source


def test_predictions_are_named(whole: Page, trace: Trace) -> None:
    share, best = trace.output.softmax(1).max(1)
    for n in range(3):
        assert f"{['cat', 'dog', 'emu', 'fox'][best[n]]} ({share[n]:.0%})" in whole.text


def towards(model: nn.Module, images: Tensor, sign: int) -> int:
    """A class that no image is predicted to be, with logits of one sign."""
    model[-1].bias.data[:] = torch.tensor([9.0, 0.0, 0.0, 0.0])
    model[-1].bias.data[3] = 5.0 * sign
    assert (model(images)[:, 3] * sign > 0).all()
    return 3


def test_another_class_than_the_predicted_is_named_and_its_neurons_keep_no_prediction(
    images: Tensor, tmp_path: Path
) -> None:
    model = network()
    chosen = towards(model, images, 1)
    lrp = SelectiveLRP(model, selection=TopK(0.5))
    trace = lrp.trace(images, chosen, edges=True)
    report = report_of(trace, images, model, class_names=["cat", "dog", "emu", "fox"])
    share = trace.output.softmax(1)
    assert list(report.titles) == [
        f"predicted cat ({s[0]:.0%}), explained fox ({s[3]:.0%}, logit {y[3]:.3g})"
        for s, y in zip(share, trace.output, strict=True)
    ]
    assert "predictions kept with critical neurons alone" not in report.measures
    (layer, neuron), heat = next(iter(report.neuron_heatmaps.items()))
    torch.testing.assert_close(heat, neuron_heatmaps(model, images, layer, [neuron], chosen)[0])
    page = Page(write_report(report, tmp_path / "report.html"))
    assert "negative" not in " ".join(page.text)


def test_a_negative_output_is_said_to_be_one_and_to_have_no_paths(images: Tensor, tmp_path: Path) -> None:
    model = network()
    trace = SelectiveLRP(model, selection=TopK(0.5)).trace(images, towards(model, images, -1), edges=True)
    text = " ".join(Page(write_report(trace, tmp_path / "report.html", images)).text)
    assert "The explained output is negative. Red still raises it" in text
    assert "No path is shown: paths carry shares of a positive output" in text


def test_signs_of_a_negative_output_are_turned_by_z_plus_alone(images: Tensor) -> None:
    """What the report says of them."""
    model = network()
    chosen = towards(model, images, -1)
    parts = (model[:-1](images) * model[-1].weight[chosen]).detach()
    assert (parts > 0).any()
    assert (parts < 0).any()
    for name in ("epsilon", "epsilon_plus", "epsilon_alpha2_beta1"):
        torch.testing.assert_close(SelectiveLRP(model, name).trace(images, chosen).relevance["5"], parts)
    turned = SelectiveLRP(model, ZPlus()).trace(images, chosen).relevance["5"]
    assert (turned <= 0).all()
    assert (turned[parts > 0] < 0).all()


def test_figures_are_those_that_the_functions_give(whole: Page, trace: Trace, images: Tensor, model: nn.Module) -> None:
    with_critical = masked_forward(model, images, trace.masks).argmax(1) == trace.output.argmax(1)
    assert f"{with_critical.double().mean():.4g}" in whole.text
    budgets = {float(cells[0]): [float(cell) for cell in cells[1:]] for cells in whole.table("share of each layer&#39;s.*?")}
    assert budgets[1.0] == [1, 1, 0], "with all neurons"
    held = contest(SelectiveLRP(model, EpsilonPlus(), TopK(0.2)), images)
    at = whole.text.index("contest won with 20% of the neurons")
    assert whole.text[at + 1] == f"{held.accuracy:.4g}" == f"{budgets[0.2][0]:.4g}"


def test_it_says_of_how_many_samples_it_is_and_which_class_each_path_explains(whole: Page, trace: Trace) -> None:
    assert whole.text[whole.text.index("samples") + 1] == str(len(trace.output))
    ends = [path.nodes[-1][1] for path in k_best_paths(build_graph(trace, min_share=1e-4), 5)]
    heads = [text for text in whole.text if re.match(r"path \d to ", text)][:5]
    names = ["cat", "dog", "emu", "fox"]
    assert [head.split(",")[0] for head in heads] == [f"path {i} to {names[c]}" for i, c in enumerate(ends, 1)]
    assert f"the class at a path's end ({', '.join(dict.fromkeys(names[c] for c in ends))})" in " ".join(whole.text)


def test_neurons_on_paths_have_heatmaps_to_click(whole: Page, trace: Trace) -> None:
    on_paths = {node for path in k_best_paths(build_graph(trace), 5) for node in path.nodes if node[0] != "9"}
    linked = re.findall(r'<a href="#(neuron-\d+)">\s*<circle[^>]*><title>(.*?), neuron (\d+),', whole.source)
    assert {(layer, int(neuron)) for _, layer, neuron in linked} == on_paths
    for place, layer, neuron in linked:
        [shown] = re.findall(rf'<div id="{place}">(.*?)</figure>', whole.source, re.DOTALL)
        assert f"<figcaption>{layer}, neuron {neuron}</figcaption>" in shown
        assert shown.count("<img") == 3


def test_the_graph_is_drawn_as_it_is(whole: Page, trace: Trace) -> None:
    graph = build_graph(trace, min_share=1e-4)
    for (layer, neuron), relevance in list(graph.nodes(data="relevance"))[:5]:
        assert f"<title>{layer}, neuron {neuron}, relevance {relevance:.4g}" in whole.source
    assert whole.source.count('<path class="path"') == 5
    told = re.findall(r"<title>(\S+), (\d+) → (\S+), (\S+): (.*?)% of the upper", whole.source)
    names = {name: str(i) for i, name in enumerate(["cat", "dog", "emu", "fox"])}
    assert told
    for lower, i, upper, o, share in told:
        edge = graph.edges[(lower, int(i)), (upper, int(names.get(o, o)))]
        assert float(share) == pytest.approx(100 * edge["share"], abs=0.051)


def test_reconstructions_show_what_the_neuron_sees(whole: Page, trace: Trace) -> None:
    top = trace.relevance["0"].sum(0).topk(2).indices
    text = " ".join(whole.text)
    assert f"0, neuron {top[0]}: activation" in text
    alts = [given["alt"] for given in whole.all("img") if given.get("class") != "lrp-curves"]
    assert alts.count("image patch") == alts.count("what the neuron responds to") == 3 * 6
    sees = [image for image, alt in zip(whole.images, alts, strict=True) if alt == "image patch"]
    assert max(sees[0].shape[:2]) <= 3  # the first convolution


def test_conservation_adds_up(whole: Page, trace: Trace) -> None:
    rows = whole.table("sample")
    assert len(rows) == 3
    for n, (_, output, *parts, error) in enumerate(rows):
        assert float(output) == pytest.approx(float(trace.explained[n]), rel=1e-3)
        assert sum(map(float, parts)) == pytest.approx(float(output), rel=5e-3, abs=5e-4)
        assert float(error) < 1e-3


def test_large_images_and_batches_are_bounded(tmp_path: Path) -> None:
    x = torch.rand(40, 3, 500, 400)
    page = Page(write_report(Report(images=x, relevance=torch.randn_like(x)), tmp_path / "r.html"))
    assert len(page.images) == 2 * 24
    assert max(max(image.shape) for image in page.images) == 320
    assert "The first 24 of 40 are shown." in page.source
    assert len(page.source) < 8e6


# How it is read


def test_the_heading_says_of_what_it_is(trace: Trace, images: Tensor, tmp_path: Path) -> None:
    how = {"model": "VGG", "data": "photographs", "date": "2026-01-31", "composite": EpsilonPlus(), "selection": TopK(0.5)}
    page = Page(write_report(trace, tmp_path / "r.html", images, title="What it sees", headline=["It won."], settings=how))
    line = "VGG · photographs, 3 images · 2026-01-31 · rules: epsilon_plus · critical: 50% of each layer's neurons"
    shown = [text.strip() for text in page.text if text.strip()]
    assert shown[1:5] == ["What it sees", line, "It won.", "samples"]  # the first is the window's title
    page = Page(write_report(Report(settings={"selection": "by hand"}), tmp_path / "r.html"))
    assert f"{date.today()} · by hand" in page.text


def test_small_parts_are_no_powers_of_ten(images: Tensor, tmp_path: Path) -> None:
    maps = torch.rand_like(images)
    report = Report(images=images, relevance=maps, all_neurons=maps, logit_shares=[(3e-9, 0.25), (-1e-7, 0.5), (0.004, 1.0)])
    text = Page(write_report(report, tmp_path / "r.html")).text
    parts = [part for part in text if part.startswith(("critical neurons ", "all neurons "))]
    assert [part.rpartition(" ")[2] for part in parts] == ["<0.01%", "25%", ">-0.01%", "50%", "0.4%", "100%"]


def test_each_class_has_its_own_graph_and_paths_and_few_are_drawn(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    names = ["cat", "<b>dog</b>", "emu", "fox", "gnu", "hen"]
    graph = build_graph(SelectiveLRP(model).trace(images, target=lambda output: output.argmax(1), edges=True))
    paths = k_best_paths(graph, 2)
    maps = torch.rand(len(paths), 3, 20, 20)
    maps[:, 1] = torch.nan
    graphs = [ClassGraph(c, graph, paths, n_samples=7, path_heatmaps=maps.numpy()) for c in range(6)]
    report = Report(images=images, titles=["one", "two", "three"], class_names=names, graphs=graphs)
    page = Page(write_report(report, tmp_path / "r.html"))
    assert page.sections == ["graph", "graph-2", "graph-3", "graph-4"]
    assert page.source.count("<svg") == 4
    assert page.source.count('<path class="path"') == 4 * len(paths) > 0
    assert [text for text in page.text if text.startswith("Graph of")][:4] == [f"Graph of {name}" for name in names[:4]]
    assert "To keep this file small, these graphs are not drawn: gnu, hen." in page.text
    assert page.text.count("Summed over 7 images.") == 4
    assert len(page.images) == 4 * 2 * (1 + len(paths)), "none of the image that has no heatmaps"
    assert page.source.count("Each column is a layer") == 1
    with pytest.raises(InputError, match="2 paths and 2 images"):
        write_report(replace(report, images=images[:2], titles=()), tmp_path / "r.html")


def test_that_layers_are_left_out_is_said(tmp_path: Path) -> None:
    layers = [layer for i in range(14) for layer in (nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))]
    deep = nn.Sequential(*(nn.Sequential(*layers[at : at + 6]) for at in range(0, 42, 6)))
    for weight in deep.parameters():
        nn.init.uniform_(weight, 0, 0.5)  # so that relevance arrives
    for model, said in ((deep, True), (deep[:2], False)):
        graph = build_graph(SelectiveLRP(model).trace(torch.rand(2, 3), target=0, edges=True))
        text = " ".join(Page(write_report(Report(graph=graph), tmp_path / "r.html")).text)
        assert "Each column is a layer" in text
        assert ("the last of each block is shown" in text) == said


def test_a_click_enlarges_and_arrow_keys_go_through_samples(whole: Page, trace: Trace, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(whole.source, "utf-8")
    with browser() as chromium:
        page = chromium.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "report.html").as_uri())
        large = page.locator("dialog img").first
        sources = [image.get_attribute("src") for image in page.locator("#heatmaps figure img:first-child").all()][::3]
        assert len(set(sources)) == 3
        page.locator("#heatmaps figure").first.click()
        assert large.get_attribute("src") == sources[0]
        assert large.bounding_box()["width"] > 200
        for key, at in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowRight", 0), ("ArrowLeft", 2)):
            page.keyboard.press(key)
            assert large.get_attribute("src") == sources[at]
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()
        page.locator("#graph svg a").first.click()
        assert ", neuron " in str(page.locator("dialog figcaption").text_content())
        page.locator("dialog").get_by_label("close").click()
        assert not page.locator("dialog").is_visible()
        assert complaints == []


# Filled by hand, as a monitor does


def test_a_report_filled_by_hand(tmp_path: Path, images: Tensor) -> None:
    graph = nx.DiGraph()
    graph.add_node(("input", 0), relevance=1.0, order=0, kind="input")
    graph.add_node(("out", 2), relevance=1.0, order=1, kind="linear", output=True)
    graph.add_edge(("input", 0), ("out", 2), relevance=1.0, share=1.0)
    path = Chain((("input", 0), ("out", 2)), 0.25)
    report = Report(
        title="epoch 3",
        measures={"accuracy": 0.9871, "samples": 12},
        images=images,
        relevance=torch.randn_like(images),
        titles=["one", "two", "three"],
        graph=graph,
        paths=[path, path],
        path_heatmaps=torch.randn(2, *images.shape),
        curves=[Curves("over epochs", {"critical": [0.1, 0.5], "random": [0.1, 0.1]}, xlabel="epoch")],
        settings={"selection": TopK(0.1)},
    )
    page = Page(write_report(report, tmp_path / "report.html"))
    assert page.sections == ["heatmaps", "graph", "curves", "settings"]
    assert {"0.9871", "12", "epoch 3", "over epochs", "path 1 to class 2, 25\N{NO-BREAK SPACE}%", repr(TopK(0.1))} <= {
        t.strip() for t in page.text
    }
    assert len(page.images) == 2 * 3 + 3 * (1 + 2)


@pytest.mark.parametrize("where", ["title", "titles", "class_names", "settings", "measures", "curves", "layer", "paths"])
def test_text_from_data_is_never_markup(where: str, tmp_path: Path) -> None:
    model = nn.Sequential()
    layer = EVIL.replace(".", "") if where in ("layer", "paths") else "first"
    model.add_module(layer, nn.Conv2d(1, 2, 3))
    model.add_module("flat", nn.Flatten())
    model.add_module("last", nn.Linear(72, 2))
    x = torch.rand(2, 1, 8, 8)
    trace = SelectiveLRP(model).trace(x, target=0, edges=True)
    given: dict = {
        "title": {"title": EVIL}, "titles": {"titles": [EVIL] * 2}, "settings": {"settings": {EVIL: EVIL}},
        "measures": {"measures": {EVIL: 1.0}}, "curves": {"curves": [Curves(EVIL, {EVIL: [1.0]}, None, EVIL, EVIL)]},
        "class_names": {"class_names": [EVIL, EVIL]}, "layer": {}, "paths": {},
    }[where]  # fmt: skip
    page = Page(write_report(report_of(trace, x, model if where == "layer" else None, **given), tmp_path / "r.html"))
    [script] = page.scripts  # the page's own
    assert "alert" not in script
    assert "<script>alert" not in page.source
    assert not [given for _, given in page.elements if set(given) & {"onerror", "onload", "onclick"}]
    assert "alert" in " ".join(page.text)  # it is shown, as text


def test_without_images_of_two_dimensions(tmp_path: Path) -> None:
    model = mlp(5, 8, 3)
    x = torch.randn(4, 5)
    trace = SelectiveLRP(model, selection=TopK(2)).trace(x, target=1, edges=True)
    page = Page(write_report(trace, tmp_path / "r.html", x, model))
    assert page.sections == ["graph", "curves", "conservation", "settings"]


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (Report(images=torch.rand(2, 1, 4, 4), relevance=torch.rand(3, 1, 4, 4)), "same N"),
        (Report(images=torch.rand(2, 1, 4, 4), relevance=torch.rand(2, 1, 4, 4), titles=["one"]), "1 titles"),
        (Report(images=torch.rand(2, 1, 4, 4), relevance=torch.full((2, 1, 4, 4), torch.nan)), "NaN"),
        ("trace", "takes a Trace or a Report, got str"),
    ],
)
def test_reports_that_cannot_be_written(report: Report, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        write_report(report, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_images_of_another_trace(trace: Trace, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be those that were traced"):
        write_report(trace, tmp_path / "r.html", images[:2])


def test_the_model_is_left_as_it_was(trace: Trace, images: Tensor) -> None:
    model = network().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    rng = torch.get_rng_state()
    report_of(trace, images, model)
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_tokens_of_texts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(24, 3)).eval()
    ids = torch.randint(0, 20, (2, 4))
    trace = SelectiveLRP(model).trace(ids, target=lambda output: output.argmax(1))
    page = Page(write_report(trace, tmp_path / "report.html", tokens=[["a", "<b>fine</b>", "film", "."], ["dull", "Ġone"]]))
    assert page.sections[0] == "tokens"
    spans = [given for given in page.all("span") if "of the greatest" in (given.get("title") or "")]
    assert len(spans) == 6
    assert sum(given["title"] in ("+100% of the greatest", "-100% of the greatest") for given in spans) >= 1
    assert "<b>fine" not in page.source
    assert {"a", "<b>fine</b>", "one"} <= {text.strip() for text in page.text}
    with pytest.raises(InputError, match=r"\(N, L\) for 1 texts"):
        write_report(trace, tmp_path / "report.html", tokens=[["a"]])


def test_strategies_say_where_the_network_is_wrong(tmp_path: Path):
    right = strategy_of(0, 1, 0)
    texts = []
    for predictions in (right.predictions, torch.zeros(12, dtype=torch.long), None):
        report = Report(strategies=[replace(right, predictions=predictions)], class_names=["boot", "bag", "coat"])
        texts.append(" ".join(Page(write_report(report, tmp_path / "report.html")).text))
    assert ["misclassified ones come last" in text for text in texts] == [True, False, False]
