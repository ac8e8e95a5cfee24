"use strict";
// Draw the figures that lie beside the page's empty plots, in the colours of the reader's scheme.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = {
    displaylogo: false,
    responsive: true,
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["sendDataToCloud", "select2d", "lasso2d"],
  };
  const narrow = 600;  // pixels of a plot below which it is a phone's

  function colours(isDark) {
    const ink = isDark ? "#e4e7eb" : "#1d2126";
    const line = isDark ? "#343a42" : "#e3e6ea";
    return { ink, line };
  }

  function dressed(layout, isDark, width) {
    const { ink, line } = colours(isDark);
    const result = {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { ...layout.font, color: ink, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: { bgcolor: isDark ? "#1c2026" : "#ffffff", font: { color: ink } },
      modebar: { color: ink, bgcolor: "rgba(0,0,0,0)" },
      autosize: true,
    };
    delete result.width;  // as wide as the page gives room
    for (const key of Object.keys(result)) {
      if (/^[xy]axis\d*$/.test(key)) result[key] = { ...result[key], gridcolor: line, linecolor: line };
    }
    if (width < narrow) {
      result.margin = { ...layout.margin, t: 30, l: 42, r: 16 };
      result.font = { ...result.font, size: 10 };
      if (layout.legend?.orientation !== "h") {
        result.legend = { ...layout.legend, orientation: "h", x: 0, xanchor: "left", y: -0.15, yanchor: "top" };
      }
      for (const key of Object.keys(result)) {
        if (/^yaxis\d*$/.test(key)) result[key] = { ...result[key], title: undefined };
      }
    }
    return result;
  }

  function draw(figure, isDark) {
    const plot = figure.querySelector(".plot");
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    const width = plot.clientWidth;
    return Plotly.react(plot, data, dressed(layout, isDark, width), { ...config, displayModeBar: width >= narrow });
  }

  const visible = () => [...document.querySelectorAll("figure")].filter((figure) => !figure.closest("details:not([open])"));
  const drawAll = (isDark) => Promise.all(visible().map((figure) => draw(figure, isDark)));

  // One after the other at first, so that the page can be read and scrolled while its figures are drawn.
  async function drawInTurn() {
    for (const figure of visible()) {
      await draw(figure, dark.matches);
      await new Promise((resume) => setTimeout(resume));
    }
  }

  for (const details of document.querySelectorAll("details.more")) {
    details.addEventListener("toggle", () => {
      if (!details.open) return;
      for (const figure of details.querySelectorAll("figure")) draw(figure, dark.matches);
    });
  }
  dark.addEventListener("change", () => drawAll(dark.matches));
  window.addEventListener("beforeprint", () => drawAll(false));
  window.addEventListener("afterprint", () => drawAll(dark.matches));
  drawInTurn().then(() => document.documentElement.setAttribute("data-drawn", "yes"));
})();
