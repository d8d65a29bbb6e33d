// Tables: what the filters leave of them, the order a reader asks for, and the files they can be saved as.

const sortings = {}; // table -> [column, direction]; the leaderboard's is in the address

function fillBoard() {
  const scores = selection() === null ? {} : scoresOf(selection()), scale = scaleOf(scores);
  for (const row of all("#t-board tbody tr")) {
    const method = row.dataset.method, score = scores[method], cost = costOf(method);
    fillScore(row, score, method, scale);
    const field = (name) => one(`[data-f=${name}]`, row);
    field("trained").textContent = data.methods[method].control ? "" : count(cost.trained);
    field("seconds").textContent = cost.seconds === null ? "" : cost.seconds.toFixed(1);
    field("amortised").textContent = cost.whole !== null && cost.whole !== cost.seconds ? cost.amortised.toFixed(1) : "";
    field("done").textContent = `${cost.done}/${cost.due}`;
    const remarks = [...(score?.[7] ? [score[7]] : []), ...data.cautions[state.shots][method]];
    field("remarks").textContent = remarks.join("; ");
  }
}

// from the lowest end of an interval in the table to the highest
function scaleOf(scores) {
  const ends = Object.values(scores).flatMap((score) => [score[0] - (score[1] ?? 0), score[0] + (score[1] ?? 0)]);
  const low = Math.max(0, Math.min(...ends)), high = Math.min(100, Math.max(...ends));
  return (value) => (high > low ? (100 * (Math.min(high, Math.max(low, value)) - low)) / (high - low) : 50).toFixed(1);
}

function fillScore(row, score, method, scale) {
  const put = (name, text) => { const at = one(`[data-f=${name}]`, row); if (at) at.textContent = text; };
  put("points", points(score, method));
  put("apart", apart(score));
  put("ties", ties(score));
  put("flag", score?.[7] ?? "");
  const whisker = one("[data-f=whisker]", row), spread = score?.[1] ?? 0;
  const at = score ? { low: score[0] - spread, mean: score[0], high: score[0] + spread } : {};
  for (const [name, value] of Object.entries(at)) whisker.style.setProperty(`--${name}`, scale(value));
  whisker.style.display = score ? "" : "none";
}

function fillHeat() {
  const shown = new Set(chosenTasks());
  for (const task of Object.keys(data.tasks)) {
    const scores = scoresOf(task), means = Object.values(scores).map((score) => score[0]);
    const low = Math.min(...means), high = Math.max(...means);
    const hide = !shown.has(task), name = CSS.escape(task);
    one(`#t-heat th[data-key="${name}"]`).hidden = hide;
    for (const cell of all(`#t-heat td[data-task="${name}"]`)) {
      const method = cell.parentElement.dataset.method, score = scores[method];
      cell.hidden = hide;
      one("[data-f=points]", cell).textContent = points(score, method);
      cell.style.setProperty("--heat", score ? (high > low ? (score[0] - low) / (high - low) : 0.5) : 0);
    }
  }
}

function fillTasks() {
  for (const table of all("table[data-scores]")) {
    const scores = scoresOf(table.dataset.scores), scale = scaleOf(scores);
    for (const row of all("tbody tr", table)) fillScore(row, scores[row.dataset.method], row.dataset.method, scale);
  }
}

function mark() {
  for (const row of all("tr[data-method]")) row.dataset.who = who(row.dataset.method);
}

// -------------------------------------------------------------------- order

function valueOf(table, method, key) {
  if (key === "method") return method;
  const name = table.dataset.scores ?? (table.id === "t-heat" && key !== "mean" ? key : selection());
  const score = name === null ? undefined : scoresOf(name)[method], cost = costOf(method);
  if (table.id === "t-heat" || key === "mean") return score?.[0];
  if (key === "difference") return score?.[3];
  if (key === "ties") return ties(score) || undefined;
  if (key === "amortised") return cost.whole !== cost.seconds ? cost.amortised : undefined;
  if (key === "trained" && data.methods[method].control) return undefined;
  return cost[key];
}

function sort(table) {
  const [key, direction] = table.id === "t-board" ? [state.sort, state.dir] : sortings[table.id] ?? ["mean", "down"];
  const body = one("tbody", table), sign = direction === "up" ? 1 : -1;
  const rows = all("tr", body).map((row) => [valueOf(table, row.dataset.method, key), row]);
  const missing = (value) => value === undefined || value === null;
  rows.sort(([a], [b]) => (missing(a) ? 1 : 0) - (missing(b) ? 1 : 0) || (a < b ? -sign : a > b ? sign : 0));
  body.append(...rows.map(([, row]) => row)); // those without a number stay last whichever way
  for (const head of all("th[data-key]", table)) {
    if (head.dataset.key === key) head.setAttribute("aria-sort", direction === "up" ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  }
}

function ask(table, key) {
  const [now, direction] = table.id === "t-board" ? [state.sort, state.dir] : sortings[table.id] ?? ["mean", "down"];
  const words = key === "method" || key === "ties";
  const next = now === key ? (direction === "up" ? "down" : "up") : words ? "up" : "down";
  if (table.id === "t-board") return change({ sort: key, dir: next });
  sortings[table.id] = [key, next];
  sort(table);
}

// -------------------------------------------------------------------- files

function rowsOf(id) {
  const methods = all(`#${id} tbody tr`).map((row) => row.dataset.method);
  const tasks = chosenTasks(), round = (value) => (value === undefined || value === null ? "" : Number(value.toFixed(4)));
  const ends = (mean, spread) => (spread === null || spread === undefined ? ["", ""] : [mean - spread, mean + spread].map(round));
  if (id === "t-heat")
    return [["method", ...tasks.flatMap((task) => [task, `${task}_low`, `${task}_high`, `${task}_seeds`])],
      ...methods.map((method) => [method, ...tasks.flatMap((task) => {
        const score = scoresOf(task)[method];
        return score ? [score[0], ...ends(score[0], score[1]), score[2]] : ["", "", "", 0];
      })])];
  const costs = ["trained", "seconds", "amortised", "whole", "bytes", "done", "due"];
  return [["method", "tasks", "shots", "mean", "low", "high", "seeds", "reference", "difference", "difference_low",
    "difference_high", "p", "ties", "flag", ...costs], ...methods.map((method) => {
    const score = scoresOf(selection() ?? "")[method] ?? [], cost = costOf(method);
    return [method, selection() ?? "", state.shots, score[0] ?? "", ...ends(score[0], score[1]), score[2] ?? 0,
      data.reference[state.shots], score[3] ?? "", ...ends(score[3], score[4]), score[5] ?? "", score[6] ?? "",
      score[7] ?? "", ...costs.map((name) => cost[name] ?? "")];
  })];
}

const csv = (id) => rowsOf(id).map((row) => row.map((value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value)).join(",")).join("\n") + "\n";

function tex(id) {
  const escape = (text) => text.replace(/[\\{}$&#%_^~†‡±]/g, (c) => ({
    "\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}", "†": "\\dag{}", "‡": "\\ddag{}", "±": "$\\pm$",
  })[c] ?? `\\${c}`);
  const shown = (row) => [...row.children].filter((cell) => !cell.hidden && !cell.classList.contains("remarks"));
  const heads = shown(one(`#${id} thead tr`)).filter((cell) => cell.textContent.trim() !== "Remarks");
  const line = (cells) => `${cells.map((cell) => escape(cell.textContent.trim())).join(" & ")} \\\\`;
  const body = all(`#${id} tbody tr`).map((row) => line(shown(row)));
  return [`% ${one(`#${id} caption`).textContent.trim()}; booktabs`, `\\begin{tabular}{l${"r".repeat(heads.length - 1)}}`,
    "\\toprule", line(heads), "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

function save(id, kind) {
  const text = kind === "csv" ? csv(id) : tex(id);
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain" })) });
  link.download = `${id.slice(2)}-${state.shots}-${selection() ?? "none"}.${kind}`.replaceAll(" ", "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
