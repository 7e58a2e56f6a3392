"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  /** The colours and the fonts of the page, as a configuration of Vega-Lite. */
  function theme(width) {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      background: null,
      font: style.getPropertyValue("--sans").trim(),
      view: { stroke: null },
      axis: {
        labelColor: color("soft"), titleColor: color("ink"), titleFontWeight: "normal",
        gridColor: color("line"), domainColor: color("soft"), tickColor: color("soft"),
        labelFontSize: 11, titleFontSize: 12, titlePadding: 8,
      },
      axisY: { labelLimit: Math.max(80, width * 0.42) },
      legend: {
        labelColor: color("ink"), labelFontSize: 12, labelLimit: width * 0.8,
        columns: Math.max(1, Math.floor(width / 130)),
      },
    };
  }

  /** The specification of a chart with the switches that are pressed. */
  function specification(name, pressed) {
    const chart = charts[name];
    const base = pressed.has("time") ? { ...chart.time, data: chart.spec.data } : chart.spec;
    const spec = structuredClone(base);
    const largest = Math.max(...spec.data.values.map((row) => Math.abs(row.mean)));
    for (const { encoding } of spec.layer ?? [spec]) {
      if (pressed.has("logx")) encoding.x.scale = { nice: false, type: "log" };
      // Returns may be negative, where logarithms end. Near 0, this scale is linear.
      const symmetric = { type: "symlog", constant: largest / 50 || 1 };
      if (pressed.has("logy")) encoding.y.scale = { ...encoding.y.scale, ...symmetric };
    }
    return spec;
  }

  const shown = new Map();

  async function draw(place) {
    const switches = place.parentElement.querySelectorAll("[aria-pressed=true]");
    const pressed = new Set([...switches].map((button) => button.dataset.switch));
    const result = await vegaEmbed(place, specification(place.dataset.chart, pressed), {
      actions: false, renderer: "svg", config: theme(place.clientWidth),
      tooltip: { theme: dark.matches ? "dark" : "light" },
    });
    shown.get(place)?.finalize();
    shown.set(place, result);
  }

  const places = [...document.querySelectorAll("[data-chart]")];
  const drawAll = () => Promise.all(places.map(draw));

  for (const button of document.querySelectorAll("[data-switch]")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      draw(button.closest("figure").querySelector("[data-chart]"));
    });
  }
  dark.addEventListener("change", drawAll);
  drawAll().then(() => { document.documentElement.dataset.drawn = "true"; });
})();
