// Charts: rows for each specification, drawn by Vega when they come into sight, again when a filter or the theme changes.

const drawn = new Map(); // host -> what Vega-Embed made of it
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const NEAR = 8; // points: a control further below all methods than this would only press them together
const COLOURS = ["a", "b", "other", "soft", "line", "phase1", "phase2", "phase3", "phase4", "phase5"];
const order = () => all("#t-board tbody tr").map((row) => row.dataset.method);

const rowsFor = {
  "trade-off"(width) {
    const scores = selection() === null ? {} : scoresOf(selection());
    const every = Object.entries(scores).map(([method, score]) => {
      const cost = costOf(method)[state.cost], control = data.methods[method].control;
      return { method, mean: score[0], ...ends(score), cost, control, who: who(method), place: score[0],
        kind: data.methods[method].sources ? "with source stages" : "single-task",
        tip: `${method}: ${points(score, method)}, ${seedsText(score)}\n${data.costTitles[state.cost]}: ${costText(state.cost, cost)}` };
    });
    const lowest = Math.min(...every.filter((row) => !row.control).map((row) => row.low ?? row.mean));
    const rows = every.filter((row) => !row.control || row.mean > lowest - NEAR || lowest === Infinity);
    const trained = rows.filter((row) => !row.control && row.cost > 0).sort((x, y) => x.cost - y.cost || y.mean - x.mean);
    let best = -1;
    for (const row of trained) if (row.mean > best) { row.frontier = true; best = row.mean; }
    for (const row of trained) row.label = width > 560 || row.frontier || row.who !== "other";
    const heights = rows.flatMap((row) => [row.low ?? row.mean, row.high ?? row.mean]);
    spreadOut(trained.filter((row) => row.label), width, (Math.max(...heights) - Math.min(...heights) || 1) * 0.036);
    return rows.sort((x, y) => (y.who === "other") - (x.who === "other")); // the two compared are drawn on top
  },
  shots() {
    const shots = Object.keys(data.titles), rows = [];
    const curved = (method) => !data.methods[method].fixed && shots.some((k) => scoresOf(selection() ?? "", k)[method]);
    for (const method of Object.keys(data.methods).filter(curved))
      for (const k of shots) {
        const score = scoresOf(selection(), k)[method], row = { method, shots: k, who: who(method), last: k === shots.at(-1) };
        if (!score) rows.push({ ...row, mean: null }); // a gap in the line
        else rows.push({ ...row, mean: score[0], ...ends(score),
          tip: `${method}, ${data.titles[k]}: ${points(score, method)}, ${seedsText(score)}` });
      }
    return rows;
  },
  ranks() {
    const found = ranksOf();
    if (!found) return [];
    return found.methods.map((method, i) => ({ method, rank: found.mean[i], low: found.mean[i] - found.gap / 2,
      high: found.mean[i] + found.gap / 2, who: who(method), tip: `${method}: average rank ${found.mean[i].toFixed(2)}` }));
  },
  time() {
    const phases = ["train", "dev", "test", "start and end", "sources' share"], rows = [];
    for (const method of order())
      phases.forEach((phase, place) => {
        const seconds = costOf(method).phases?.[phase];
        if (seconds) rows.push({ method, phase, place, seconds, tip: `${method}, ${phase}: ${seconds.toFixed(2)} s` });
      });
    return rows;
  },
  loss: (width, task) => curves(task, "loss"),
  dev: (width, task) => curves(task, "dev"),
};

const ends = (score) => (score[1] === null ? {} : { low: score[0] - score[1], high: score[0] + score[1] });

function curves(task, field) {
  const own = data.curves.filter((one) => one.t === task && one.g === "target" && one.k === state.shots && who(one.m) !== "other");
  return own.flatMap((one) => one[field].map(([step, value]) => ({ step, [field]: value, cell: `${one.m}/${one.s}`,
    who: who(one.m), tip: `${one.m}, seed ${one.s}, step ${step}: ${value}` })));
}

// labels of points that lie close together go one above the other; those at the right end go to the left of their point
function spreadOut(rows, width, line) {
  if (!rows.length) return;
  const logs = rows.map((row) => Math.log(row.cost)), first = Math.min(...logs), last = Math.max(...logs);
  const letters = Math.max(...rows.map((row) => row.method.length));
  const reach = ((7 * letters + 12) / width) * (last - first || 1);
  for (const row of rows) row.left = last > first && Math.log(row.cost) > last - reach * 0.9;
  const placed = [];
  for (const row of rows) if (row.frontier) row.place += line * 0.6; // above the line that joins them
  for (const row of [...rows].sort((x, y) => y.place - x.place)) {
    const near = placed.filter((other) => Math.abs(Math.log(other.cost) - Math.log(row.cost)) < reach);
    for (let tries = 0; tries < 40 && near.some((other) => Math.abs(other.place - row.place) < line); tries++) row.place -= line / 3;
    placed.push(row);
  }
}

// -------------------------------------------------------------------- drawing

function look() {
  const text = colour("text"), soft = colour("soft"), line = colour("rule");
  return {
    background: null, font: "system-ui, sans-serif", view: { stroke: null },
    axis: { labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12,
      titleFontSize: 12, titleFontWeight: "normal", gridOpacity: 0.7, labelLimit: 130 },
    legend: { labelColor: text, titleColor: soft, labelFontSize: 12, symbolFillColor: soft, symbolStrokeColor: soft },
    text: { fontSize: 12 }, point: { strokeWidth: 0 },
  };
}

async function draw(host) {
  const name = host.dataset.chart, width = host.clientWidth;
  if (!window.vegaEmbed || !width) return;
  const values = rowsFor[name](width, host.closest("[data-task]")?.dataset.task);
  drawn.get(host)?.finalize();
  drawn.delete(host);
  host.classList.toggle("empty", !values.length);
  if (!values.length) return void host.replaceChildren(element("p", { class: "soft" }, "Nothing to draw for this choice."));
  const words = { costTitle: data.costTitles[state.cost], ...Object.fromEntries(COLOURS.map((one) => [one, colour(one)])) };
  const spec = JSON.parse(JSON.stringify(data.charts[name]).replace(/"\$(\w+)"/g, (_, word) => JSON.stringify(words[word])));
  spec.data = { name: "rows", values };
  if (width < 500 && spec.encoding?.color?.legend) spec.encoding.color.legend.columns = 1; // beside each other it would be cut
  if (spec.height.step) spec.height = spec.height.step * new Set(values.map((row) => row.method)).size;
  host.dataset.label ??= host.getAttribute("aria-label");
  host.setAttribute("aria-label", `${host.dataset.label}.${values.length < 60 ? ` ${values.map((row) => row.tip).filter(Boolean).join("; ")}` : ""}`);
  const place = element("div"); // of this drawing alone: a later one may overtake it
  host.replaceChildren(place);
  const made = await vegaEmbed(place, spec, { mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, config: look(), tooltip: tip, logLevel: 1 });
  if (place.isConnected) drawn.set(host, made);
  else made.finalize();
}

function tip(handler, event, item, value) {
  const box = one("#tip");
  box.hidden = !value;
  if (!value) return;
  box.textContent = value;
  box.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8)}px`;
}

const seen = new Set();
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) { seen.delete(target); continue; }
    seen.add(target);
    if (target.dataset.stale !== "no") { target.dataset.stale = "no"; draw(target); }
  }
}, { rootMargin: "300px" });

function redraw() {
  for (const host of all("[data-chart]")) {
    if (seen.has(host)) draw(host);
    else host.dataset.stale = "yes";
  }
}
