// Tables: their numbers for the selection, their order, and the files they can be saved as.

// column of the leaderboard, in the address and in saved files -> field of a cost record
const COST_FIELDS = {
  trained: "trained_parameters", seconds: "seconds_per_cell", amortised: "amortised_seconds", whole: "standalone_seconds",
  bytes: "peak_bytes", done: "num_done", due: "num_due",
};
const sortOrders = {}; // table id -> {column, direction}; that of the leaderboard is in the address

function fillLeaderboard() {
  const scores = getGroupScores();
  const scaleValue = createScale(scores);
  for (const row of selectAll("#t-board tbody tr")) {
    const method = row.dataset.method;
    const score = scores[method];
    const cost = getCost(method);
    fillScore(row, score, method, scaleValue);
    const setText = (field, text) => { selectOne(`[data-field=${field}]`, row).textContent = text; };
    const hasDependencies = cost.standalone_seconds !== null && cost.standalone_seconds !== cost.seconds_per_cell;
    const reasons = score?.unranked_reason ? [score.unranked_reason] : [];
    setText("trained", data.methods[method].is_control ? "" : formatCount(cost.trained_parameters));
    setText("seconds", cost.seconds_per_cell === null ? "" : cost.seconds_per_cell.toFixed(1));
    setText("amortised", hasDependencies ? cost.amortised_seconds.toFixed(1) : "");
    setText("done", `${cost.num_done}/${cost.num_due}`);
    setText("remarks", [...reasons, ...data.cautions[state.shots][method]].join("; "));
  }
}

/** Return a function that scales a value to 0..100 over the range of all intervals of these scores. */
function createScale(scores) {
  const ends = Object.values(scores).flatMap(({ mean, half_width }) => [mean - (half_width ?? 0), mean + (half_width ?? 0)]);
  const low = Math.max(0, Math.min(...ends));
  const high = Math.min(100, Math.max(...ends));
  return (value) => (high > low ? (100 * (Math.min(high, Math.max(low, value)) - low)) / (high - low) : 50).toFixed(1);
}

/** Fill the cells of a row that show a score, those that the table has. */
function fillScore(row, score, method, scaleValue) {
  const setText = (field, text) => {
    const cell = selectOne(`[data-field=${field}]`, row);
    if (cell) cell.textContent = text;
  };
  setText("score", formatScore(score, method));
  setText("difference", formatDifference(score));
  setText("ties", formatTieLetters(score));
  setText("flag", score?.unranked_reason ?? "");
  const whisker = selectOne("[data-field=whisker]", row);
  const halfWidth = score?.half_width ?? 0;
  const positions = score ? { low: score.mean - halfWidth, mean: score.mean, high: score.mean + halfWidth } : {};
  for (const [name, value] of Object.entries(positions)) whisker.style.setProperty(`--${name}`, scaleValue(value));
  whisker.style.display = score ? "" : "none";
}

function fillHeatTable() {
  const selectedTasks = new Set(listSelectedTasks());
  for (const task of Object.keys(data.tasks)) {
    const scores = getScores(task);
    const means = Object.values(scores).map((score) => score.mean);
    const low = Math.min(...means);
    const high = Math.max(...means);
    const isHidden = !selectedTasks.has(task);
    const taskSelector = CSS.escape(task);
    selectOne(`#t-heat th[data-key="${taskSelector}"]`).hidden = isHidden;
    for (const cell of selectAll(`#t-heat td[data-task="${taskSelector}"]`)) {
      const method = cell.parentElement.dataset.method;
      const score = scores[method];
      const heat = high > low ? (score?.mean - low) / (high - low) : 0.5;
      cell.hidden = isHidden;
      selectOne("[data-field=score]", cell).textContent = formatScore(score, method);
      cell.style.setProperty("--heat", score ? heat : 0);
    }
  }
}

function fillTaskTables() {
  for (const table of selectAll("table[data-scores]")) {
    const scores = getScores(table.dataset.scores);
    const scaleValue = createScale(scores);
    for (const row of selectAll("tbody tr", table)) fillScore(row, scores[row.dataset.method], row.dataset.method, scaleValue);
  }
}

function highlightRows() {
  for (const row of selectAll("tr[data-method]")) row.dataset.highlight = getHighlight(row.dataset.method);
}

// -------------------------------------------------------------------- order

/** Return the value of a method by which a table is sorted; null or undefined if it has none. */
function getSortValue(table, method, column) {
  if (column === "method") return method;
  const isHeatTable = table.id === "t-heat";
  const scoreName = table.dataset.scores ?? (isHeatTable && column !== "mean" ? column : getGroupName());
  const score = scoreName === null ? undefined : getScores(scoreName)[method];
  const cost = getCost(method);
  if (isHeatTable || column === "mean") return score?.mean;
  if (column === "difference") return score?.difference;
  if (column === "ties") return formatTieLetters(score) || undefined;
  if (column === "amortised") return cost.standalone_seconds !== cost.seconds_per_cell ? cost.amortised_seconds : undefined;
  if (column === "trained" && data.methods[method].is_control) return undefined;
  return cost[COST_FIELDS[column]];
}

function getSortOrder(table) {
  if (table.id === "t-board") return { column: state.sort, direction: state.direction };
  return sortOrders[table.id] ?? { column: "mean", direction: "down" };
}

/** Sort a table by its order; rows without a value come last in both directions. */
function sortTable(table) {
  const { column, direction } = getSortOrder(table);
  const sign = direction === "up" ? 1 : -1;
  const entries = selectAll("tbody tr", table).map((row) => ({ row, value: getSortValue(table, row.dataset.method, column) }));
  entries.sort((x, y) => (isMissing(x.value) ? 1 : 0) - (isMissing(y.value) ? 1 : 0)
    || (x.value < y.value ? -sign : x.value > y.value ? sign : 0));
  selectOne("tbody", table).append(...entries.map((entry) => entry.row));
  for (const header of selectAll("th[data-key]", table)) {
    if (header.dataset.key === column) header.setAttribute("aria-sort", direction === "up" ? "ascending" : "descending");
    else header.removeAttribute("aria-sort");
  }
}

/** Sort a table by a column, or reverse its order if it is sorted by this column. */
function toggleSort(table, column) {
  const current = getSortOrder(table);
  const isText = column === "method" || column === "ties";
  const reversed = current.direction === "up" ? "down" : "up";
  const direction = current.column === column ? reversed : isText ? "up" : "down";
  if (table.id === "t-board") return changeState({ sort: column, direction });
  sortOrders[table.id] = { column, direction };
  sortTable(table);
}

// -------------------------------------------------------------------- files

const roundForFile = (value) => (isMissing(value) ? "" : Number(value.toFixed(4)));

/** Return the ends of an interval as two cells of a file; empty without an interval. */
const formatIntervalCells = (mean, halfWidth) =>
  (isMissing(halfWidth) ? ["", ""] : [mean - halfWidth, mean + halfWidth].map(roundForFile));

/** Rows of a saved table, the header first; unlike the table on the page, with interval ends and all costs. */
function buildExportRows(tableId) {
  const methods = selectAll(`#${tableId} tbody tr`).map((row) => row.dataset.method);
  return tableId === "t-heat" ? buildHeatExportRows(methods) : buildLeaderboardExportRows(methods);
}

function buildHeatExportRows(methods) {
  const tasks = listSelectedTasks();
  const header = ["method", ...tasks.flatMap((task) => [task, `${task}_low`, `${task}_high`, `${task}_seeds`])];
  const buildCells = (score) => (score
    ? [score.mean, ...formatIntervalCells(score.mean, score.half_width), score.num_seeds] : ["", "", "", 0]);
  return [header, ...methods.map((method) => [method, ...tasks.flatMap((task) => buildCells(getScores(task)[method]))])];
}

function buildLeaderboardExportRows(methods) {
  const groupName = getGroupName() ?? "";
  const scores = getScores(groupName);
  const header = ["method", "tasks", "shots", "mean", "low", "high", "seeds", "reference", "difference", "difference_low",
    "difference_high", "p", "ties", "flag", ...Object.keys(COST_FIELDS)];
  const rows = methods.map((method) => {
    const score = scores[method] ?? {};
    const cost = getCost(method);
    return [method, groupName, state.shots, score.mean ?? "", ...formatIntervalCells(score.mean, score.half_width),
      score.num_seeds ?? 0, data.references[state.shots], score.difference ?? "",
      ...formatIntervalCells(score.difference, score.difference_half_width), score.corrected_p_value ?? "",
      score.tie_letters ?? "", score.unranked_reason ?? "", ...Object.values(COST_FIELDS).map((field) => cost[field] ?? "")];
  });
  return [header, ...rows];
}

/** Format a table as CSV; cells with a comma, quote or line break are quoted. */
function formatCsv(tableId) {
  const formatCell = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  return `${buildExportRows(tableId).map((row) => row.map(formatCell).join(",")).join("\n")}\n`;
}

const LATEX_ESCAPES = {
  "\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}", "†": "\\dag{}", "‡": "\\ddag{}", "±": "$\\pm$",
};

/** Format a table, as it is on the page without the remarks, as a LaTeX table with booktabs rules. */
function formatLatex(tableId) {
  const escapeText = (text) => text.replace(/[\\{}$&#%_^~†‡±]/g, (character) => LATEX_ESCAPES[character] ?? `\\${character}`);
  const listShownCells = (row) => [...row.children].filter((cell) => !cell.hidden && !cell.classList.contains("remarks"));
  const formatLine = (cells) => `${cells.map((cell) => escapeText(cell.textContent.trim())).join(" & ")} \\\\`;
  const caption = selectOne(`#${tableId} caption`).textContent.trim();
  const headers = listShownCells(selectOne(`#${tableId} thead tr`)).filter((cell) => cell.textContent.trim() !== "Remarks");
  const lines = selectAll(`#${tableId} tbody tr`).map((row) => formatLine(listShownCells(row)));
  return [`% ${caption}; booktabs`, `\\begin{tabular}{l${"r".repeat(headers.length - 1)}}`,
    "\\toprule", formatLine(headers), "\\midrule", ...lines, "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

/** Save a table as a file of this format, "csv" or "tex". */
function saveTable(tableId, format) {
  const text = format === "csv" ? formatCsv(tableId) : formatLatex(tableId);
  const link = createElement("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain" })) });
  const tableName = tableId.slice("t-".length);
  link.download = `${tableName}-${state.shots}-${getGroupName() ?? "none"}.${format}`.replaceAll(" ", "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
