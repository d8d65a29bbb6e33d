// Charts: data rows for each Vega-Lite specification of charts.py. A chart is drawn when it comes into view, and again
// when a filter, the size or the colour scheme changes.

const chartViews = new Map(); // host element -> the view that Vega-Embed created in it
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const MAX_CONTROL_GAP = 8; // controls further below all methods are left out of the trade-off: they would compress its scale
const COLOURS = ["method-a", "method-b", "other", "soft", "line", "phase1", "phase2", "phase3", "phase4", "phase5"];
const readColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Methods in the current order of the leaderboard. */
const listMethodsInOrder = () => selectAll("#t-board tbody tr").map((row) => row.dataset.method);

// -------------------------------------------------------------------- data rows, by the name of the chart

const rowBuilders = {
  "trade-off": buildTradeOffRows,
  shots: buildShotCurveRows,
  ranks: buildRankRows,
  time: buildTimeRows,
  loss: (width, task) => buildLearningCurveRows(task, "loss", "loss_steps", "losses"),
  dev: (width, task) => buildLearningCurveRows(task, "dev", "dev_steps", "dev_scores"),
};

/** Rows of the trade-off chart: one per method, with the place of its label. `width`: of the chart, in pixels. */
function buildTradeOffRows(width) {
  const allRows = Object.entries(getGroupScores()).map(([method, score]) => {
    const cost = getCost(method)[COST_FIELDS[state.cost]];
    const { is_control, has_source_stages } = data.methods[method];
    return { method, mean: score.mean, ...getInterval(score), cost, isControl: is_control, highlight: getHighlight(method),
      labelY: score.mean, kind: has_source_stages ? "with source stages" : "single-task",
      tooltip: `${method}: ${formatScore(score, method)}, ${formatSeedCount(score)}\n${data.cost_titles[state.cost]}: ${formatCost(state.cost, cost)}` };
  });
  const lowest = Math.min(...allRows.filter((row) => !row.isControl).map((row) => row.low ?? row.mean));
  const rows = allRows.filter((row) => !row.isControl || row.mean > lowest - MAX_CONTROL_GAP || lowest === Infinity);
  const trainedRows = rows.filter((row) => !row.isControl && row.cost > 0).sort((x, y) => x.cost - y.cost || y.mean - x.mean);
  markFrontier(trainedRows);
  for (const row of trainedRows) row.hasLabel = width > 560 || row.isOnFrontier || row.highlight !== "other";
  const ends = rows.flatMap((row) => [row.low ?? row.mean, row.high ?? row.mean]);
  const lineHeight = (Math.max(...ends) - Math.min(...ends) || 1) * 0.036;
  placeLabels(trainedRows.filter((row) => row.hasLabel), width, lineHeight);
  return rows.sort((x, y) => (y.highlight === "other") - (x.highlight === "other")); // the two compared are drawn on top
}

/** Mark the rows of the Pareto frontier: no cheaper row has as high a mean. `rows` are sorted by cost. */
function markFrontier(rows) {
  let bestMean = -1;
  for (const row of rows) {
    if (row.mean <= bestMean) continue;
    row.isOnFrontier = true;
    bestMean = row.mean;
  }
}

/**
 * Set labelY and isLabelLeft of the rows: labels of points that lie close together are placed one above the other, those
 * at the right end to the left of their point. `lineHeight`: of a label, in units of the mean.
 */
function placeLabels(rows, width, lineHeight) {
  if (!rows.length) return;
  const logCosts = rows.map((row) => Math.log(row.cost));
  const first = Math.min(...logCosts);
  const last = Math.max(...logCosts);
  const maxLetters = Math.max(...rows.map((row) => row.method.length));
  const labelWidth = ((7 * maxLetters + 12) / width) * (last - first || 1); // in units of the logarithm of the cost
  for (const row of rows) row.isLabelLeft = last > first && Math.log(row.cost) > last - labelWidth * 0.9;
  for (const row of rows) if (row.isOnFrontier) row.labelY += lineHeight * 0.6; // above the line that joins them
  const placedRows = [];
  for (const row of [...rows].sort((x, y) => y.labelY - x.labelY)) {
    const neighbours = placedRows.filter((other) => Math.abs(Math.log(other.cost) - Math.log(row.cost)) < labelWidth);
    const isOverlapping = () => neighbours.some((other) => Math.abs(other.labelY - row.labelY) < lineHeight);
    for (let attempt = 0; attempt < 40 && isOverlapping(); attempt++) row.labelY -= lineHeight / 3;
    placedRows.push(row);
  }
}

/** Rows of the shot curves: one per trained method and number of shots; a mean of null is a gap in the line. */
function buildShotCurveRows() {
  const allShots = Object.keys(data.shots_titles);
  const groupName = getGroupName() ?? "";
  const hasCurve = (method) => !data.methods[method].is_seed_independent
    && allShots.some((shots) => getScores(groupName, shots)[method]);
  const buildRow = (method, shots) => {
    const score = getScores(groupName, shots)[method];
    const row = { method, shots, highlight: getHighlight(method), isLast: shots === allShots.at(-1) };
    if (!score) return { ...row, mean: null };
    return { ...row, mean: score.mean, ...getInterval(score),
      tooltip: `${method}, ${data.shots_titles[shots]}: ${formatScore(score, method)}, ${formatSeedCount(score)}` };
  };
  return Object.keys(data.methods).filter(hasCurve).flatMap((method) => allShots.map((shots) => buildRow(method, shots)));
}

function buildRankRows() {
  const diagram = getRankDiagram();
  if (!diagram) return [];
  const halfDifference = diagram.critical_difference / 2;
  return diagram.methods.map((method, i) => {
    const rank = diagram.mean_ranks[i];
    return { method, rank, low: rank - halfDifference, high: rank + halfDifference, highlight: getHighlight(method),
      tooltip: `${method}: average rank ${rank.toFixed(2)}` };
  });
}

function buildTimeRows() {
  const rows = [];
  for (const method of listMethodsInOrder())
    data.phases.forEach((phase, phaseIndex) => {
      const seconds = getCost(method).phase_seconds?.[phase];
      if (seconds) rows.push({ method, phase, phaseIndex, seconds, tooltip: `${method}, ${phase}: ${seconds.toFixed(2)} s` });
    });
  return rows;
}

/**
 * Rows of a chart of learning curves: one per step and cell of the two compared methods. `chartField`: name of the value in
 * the chart; `stepField`, `valueField`: lists of a curve record.
 */
function buildLearningCurveRows(task, chartField, stepField, valueField) {
  const isShown = (curve) => curve.task === task && curve.stage === "target" && curve.shots === state.shots
    && getHighlight(curve.method) !== "other";
  return data.curves.filter(isShown).flatMap((curve) => curve[stepField].map((step, i) => {
    const value = curve[valueField][i];
    return { step, [chartField]: value, cell: `${curve.method}/${curve.seed}`, highlight: getHighlight(curve.method),
      tooltip: `${curve.method}, seed ${curve.seed}, step ${step}: ${value}` };
  }));
}

// -------------------------------------------------------------------- drawing

/** Vega configuration in the colours of the page. */
function buildVegaConfig() {
  const text = readColour("text");
  const soft = readColour("soft");
  const rule = readColour("rule");
  return {
    background: null, font: "system-ui, sans-serif", view: { stroke: null },
    axis: { labelColor: soft, titleColor: soft, gridColor: rule, domainColor: rule, tickColor: rule, labelFontSize: 12,
      titleFontSize: 12, titleFontWeight: "normal", gridOpacity: 0.7, labelLimit: 130 },
    legend: { labelColor: text, titleColor: soft, labelFontSize: 12, symbolFillColor: soft, symbolStrokeColor: soft },
    text: { fontSize: 12 }, point: { strokeWidth: 0 },
  };
}

/** Return the specification of a chart with its rows, and with colours and titles in place of its `$` values. */
function buildChartSpec(chartName, rows, width) {
  const values = Object.fromEntries(COLOURS.map((colour) => [colour, readColour(colour)]));
  values["cost-title"] = data.cost_titles[state.cost];
  const text = JSON.stringify(data.charts[chartName]).replace(/"\$([\w-]+)"/g, (match, name) => JSON.stringify(values[name]));
  const spec = JSON.parse(text);
  spec.data = { name: "rows", values: rows };
  if (width < 500 && spec.encoding?.color?.legend) spec.encoding.color.legend.columns = 1; // more columns would be cut off
  if (spec.height.step) spec.height = spec.height.step * new Set(rows.map((row) => row.method)).size;
  return spec;
}

/** Describe a chart for screen readers: its label and, if they are few, the texts of its rows. */
function describeChart(label, rows) {
  const texts = rows.length < 60 ? ` ${rows.map((row) => row.tooltip).filter(Boolean).join("; ")}` : "";
  return `${label}.${texts}`;
}

/** Draw the chart of a host element for the selection. */
async function drawChart(host) {
  const chartName = host.dataset.chart;
  const width = host.clientWidth;
  if (!window.vegaEmbed || !width) return;
  const rows = rowBuilders[chartName](width, host.closest("[data-task]")?.dataset.task);
  chartViews.get(host)?.finalize();
  chartViews.delete(host);
  host.classList.toggle("empty", !rows.length);
  if (!rows.length) {
    host.replaceChildren(createElement("p", { class: "soft" }, "Nothing to draw for this choice."));
    return;
  }
  host.dataset.label ??= host.getAttribute("aria-label");
  host.setAttribute("aria-label", describeChart(host.dataset.label, rows));
  const container = createElement("div"); // of this drawing alone: a later one may overtake it
  host.replaceChildren(container);
  const view = await vegaEmbed(container, buildChartSpec(chartName, rows, width), {
    mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, config: buildVegaConfig(), tooltip: showTooltip, logLevel: 1,
  });
  if (container.isConnected) chartViews.set(host, view);
  else view.finalize();
}

/** Show a text beside the pointer, or hide the tooltip if there is none. The parameters are those of Vega's tooltip handler. */
function showTooltip(handler, event, item, text) {
  const tooltip = selectOne("#tooltip");
  tooltip.hidden = !text;
  if (!text) return;
  tooltip.textContent = text;
  tooltip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tooltip.offsetWidth - 8))}px`;
  tooltip.style.top = `${Math.min(event.clientY + 14, innerHeight - tooltip.offsetHeight - 8)}px`;
}

const visibleHosts = new Set();
const chartObserver = new IntersectionObserver((entries) => {
  for (const { target: host, isIntersecting } of entries) {
    if (!isIntersecting) {
      visibleHosts.delete(host);
      continue;
    }
    visibleHosts.add(host);
    if (host.dataset.stale === "no") continue;
    host.dataset.stale = "no";
    drawChart(host);
  }
}, { rootMargin: "300px" });

/** Draw the charts in view again, and mark the others to be drawn when they come into view. */
function redrawCharts() {
  for (const host of selectAll("[data-chart]")) {
    if (visibleHosts.has(host)) drawChart(host);
    else host.dataset.stale = "yes";
  }
}
