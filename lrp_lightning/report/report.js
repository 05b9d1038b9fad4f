"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const lighter = { "#b2182b": "#ef6a72", "#2166ac": "#6aa9e0", "#0072b2": "#4aa3df", "black": "#f2f2f2", "#000000": "#f2f2f2" };
  const read = (element) => JSON.parse(element.textContent);

  // plotly knows nothing of the page's colours
  function themed(figure) {
    const data = structuredClone(figure.data);
    for (const trace of data) {
      if (trace.line && dark.matches && lighter[trace.line.color]) trace.line.color = lighter[trace.line.color];
      if (trace.textfont && trace.textfont.color) trace.textfont.color = colour("--ink");
    }
    const layout = structuredClone(figure.layout);
    const lines = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line") };
    Object.assign(layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { ...layout.font, color: colour("--ink") },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      modebar: { ...layout.modebar, bgcolor: "rgba(0,0,0,0)", color: colour("--quiet") },
      xaxis: { ...layout.xaxis, ...lines }, yaxis: { ...layout.yaxis, ...lines },
    });
    if (touch.matches) layout.dragmode = false;  // a finger scrolls the page
    return [data, layout, { responsive: true, displaylogo: false, displayModeBar: !touch.matches }];
  }

  for (const plot of document.querySelectorAll(".plot")) {
    const figure = read(plot.parentElement.querySelector("script"));
    Plotly.newPlot(plot, ...themed(figure));
    dark.addEventListener("change", () => Plotly.react(plot, ...themed(figure)));
    const aside = plot.closest("section").querySelector(".neuron");
    if (aside) plot.on("plotly_click", (event) => show(aside, event.points[0].customdata));
  }

  // a neuron of the graph that was clicked
  function show(aside, neuron) {
    if (!Array.isArray(neuron)) return;
    const [layer, number] = neuron;
    const found = read(aside.querySelector("script")).find((n) => n.layer === layer && n.neuron === number);
    aside.querySelector("output").textContent =
      found ? `${layer} [${number}]: the relevance that runs through it` : `${layer} [${number}] is on no path shown here`;
    const cards = aside.querySelector(".cards");
    cards.replaceChildren(...(found ? found.images : []).map((source) => {
      const image = new Image();
      image.src = source;
      image.alt = `heatmap of ${layer} [${number}]`;
      image.className = found.small ? "small" : "";
      return image;
    }));
  }
})();
