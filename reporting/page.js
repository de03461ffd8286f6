"use strict";
// Draws the charts of a page from the data in it, on the axis and for the estimators that its reader chooses.
(() => {
  const ERRORS = 1; // are told; warnings are not, such as of a layer without rows
  const { charts, config, tasks, axes } = JSON.parse(document.getElementById("data").textContent);

  // Rows as the chart wants them: of curves from columns, without estimators that are hidden.
  function rowsOf(chart, labels, axis, hidden) {
    if (chart.kind === "still") return [{}];
    if (chart.kind === "points") return chart.rows.filter((row) => !hidden.has(row.label));
    const c = chart.columns[axis];
    const rows = [];
    c.x.forEach((x, i) => {
      const label = labels[c.label[i]];
      if (hidden.has(label)) return;
      const limit = c.limit[i] === 1;
      rows.push({
        label, x, mean: c.mean[i], low: c.low[i], high: c.high[i], runs: c.runs[i],
        line: limit ? null : c.mean[i], limit, mark: c.mark[i] === 1,
      });
    });
    return rows;
  }

  // As numpy's quantile, of sorted values.
  function quantile(values, share) {
    const place = share * (values.length - 1);
    const below = Math.floor(place);
    return values[below] + (place - below) * (values[Math.min(below + 1, values.length - 1)] - values[below]);
  }

  // As axis_limits in charts.py.
  function axisLimits(rows, log, better, BEGINNING = 0.1, FAR = 3) {
    const places = rows.map((row) => row.x);
    const first = Math.min(...places);
    const start = first + BEGINNING * (Math.max(...places) - first);
    let values = rows.filter((row) => log || row.x >= start).flatMap((row) => [row.low, row.mean, row.high]).filter((v) => v !== null);
    if (log) values = values.filter((v) => v > 0).map(Math.log10);
    values.sort((a, b) => a - b);
    const [lower, upper] = [quantile(values, 0.25), quantile(values, 0.75)];
    const reach = FAR * (upper - lower) || Infinity;
    let low = Math.max(values[0], lower - reach);
    let high = Math.min(values.at(-1), upper + reach);
    const ends = [...new Map(rows.map((row) => [row.label, row.mean])).values()].filter((v) => !log || v > 0);
    if (better && ends.length) {
      const best = better * Math.max(...ends.map((v) => better * v));
      low = Math.min(low, log ? Math.log10(best) : best);
      high = Math.max(high, log ? Math.log10(best) : best);
    }
    const margin = 0.05 * (high - low) || 0.05 * Math.abs(low) || 1;
    return [low - margin, high + margin].map((end) => (log ? 10 ** end : end));
  }

  // As cut_rows in charts.py.
  function cutRows(rows, [bottom, top], PARTS = 12) {
    const places = rows.map((row) => row.x);
    const first = Math.min(...places);
    const width = (Math.max(...places) - first) / PARTS || 1;
    const found = new Map();
    for (const { label, x, mean } of rows) {
      const above = mean > top;
      const beyond = above ? mean - top : bottom - mean;
      const key = `${above} ${Math.floor((x - first) / width)} ${label}`;
      if (beyond > 0 && beyond > (found.get(key)?.beyond ?? 0)) found.set(key, { label, x, y: above ? top : bottom, mean, above, beyond });
    }
    return [...found.values()];
  }

  async function draw(place, looks, axis, hidden) {
    const chart = charts[Number(place.dataset.chart)];
    const rows = rowsOf(chart, looks.label, axis, hidden);
    if (place.view) place.view.finalize();
    place.view = null;
    if (!rows.length) {
      place.innerHTML = '<p class="empty">nothing to show</p>';
      return;
    }
    const spec = structuredClone(chart.spec);
    const limits = chart.kind === "curves" ? axisLimits(rows, chart.log, chart.better) : null;
    const cut = limits ? cutRows(rows, limits) : [];
    for (const { encoding } of spec.layer) {
      if (chart.kind === "curves") {
        for (const channel of [encoding.x, ...(encoding.tooltip || [])]) if (channel.field === "x") channel.title = axes[axis];
      }
      for (const channel of ["color", "shape", "strokeDash"]) {
        if (encoding[channel]?.field === "label") encoding[channel].scale = { domain: looks.label, range: looks[channel] };
      }
      if (limits) encoding.y.scale.domain = limits;
    }
    Object.assign(spec, { width: "container", height: chart.height ?? 260, datasets: { ...spec.datasets, rows, cut }, config });
    spec.autosize = { type: "fit-x", contains: "padding" };
    const renderer = rows.length > 5000 ? "canvas" : "svg";
    place.view = (await vegaEmbed(place, spec, { actions: false, renderer, logLevel: ERRORS })).view;
  }

  document.querySelectorAll(".task").forEach((task, number) => {
    const hidden = new Set();
    let axis = "steps";
    let turn = Promise.resolve();
    const seen = (place) => place.closest("[hidden], details:not([open])") === null;

    // One after the other, so that a second click does not overtake the first.
    function redraw(places) {
      const chosen = [...places].filter(seen);
      turn = turn.then(() => Promise.all(chosen.map((place) => draw(place, tasks[number], axis, hidden))));
      return turn;
    }

    const all = task.querySelectorAll(".plot");
    const buttons = task.querySelectorAll(".legend button[data-label]");

    function show(button, shown) {
      button.setAttribute("aria-pressed", String(shown));
      hidden[shown ? "delete" : "add"](button.dataset.label);
    }

    for (const button of buttons) {
      button.addEventListener("click", () => {
        show(button, button.getAttribute("aria-pressed") === "false");
        redraw(all);
      });
    }
    for (const [name, shown] of [["all", true], ["none", false]]) {
      task.querySelector(`.legend .${name}`)?.addEventListener("click", () => {
        for (const button of buttons) show(button, shown);
        redraw(all);
      });
    }
    task.querySelectorAll(".axis input").forEach((input) => {
      input.name = `axis-${task.id}`;
      input.checked = input.value === axis;
      input.addEventListener("change", () => {
        axis = input.value;
        redraw(all);
      });
    });
    task.querySelector("details.more")?.addEventListener("toggle", (event) => redraw(event.target.querySelectorAll(".plot")));
    task.querySelector("select.comparison")?.addEventListener("change", (event) => {
      task.querySelectorAll("[class*='charts comparison-']").forEach((part) => {
        part.hidden = !part.classList.contains(`comparison-${event.target.value}`);
        redraw(part.querySelectorAll(".plot"));
      });
    });
    task.querySelectorAll("select.budget").forEach((select) => {
      const show = () => {
        for (const part of select.closest("section").querySelectorAll(".at")) part.hidden = part.dataset.at !== select.value;
      };
      select.addEventListener("change", show);
      show(); // a browser may have kept what was chosen before
    });
    redraw(all);
  });
})();
