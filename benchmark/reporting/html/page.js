// The page as a whole: a change of the selection is written to the address, then shown everywhere.

const filters = selectOne("#filters");
const FILTER_NAMES = ["role", "family", "shots", "method_a", "method_b", "cost"]; // form controls, named as fields of the state

function changeState(changes) {
  Object.assign(state, changes);
  writeAddress();
  renderPage();
}

/** Show the state in all parts of the page. */
function renderPage() {
  for (const name of FILTER_NAMES) filters.elements[name].value = state[name];
  fillLeaderboard();
  fillHeatTable();
  fillTaskTables();
  highlightRows();
  selectAll("table.sortable").forEach(sortTable);
  fillRankTable();
  fillTimeTable();
  fillTexts();
  for (const section of selectAll("details.task")) {
    section.hidden = !listSelectedTasks().includes(section.dataset.task);
    fillTaskSection(section);
  }
  redrawCharts();
}

// -------------------------------------------------------------------- texts

/** Describe the selected tasks, e.g. "all 5 tasks". */
function describeGroup() {
  const tasks = listSelectedTasks();
  const groupName = getGroupName();
  if (groupName === null) return "no task matches";
  if (tasks.length === 1) return groupName;
  return groupName === "all tasks" ? `all ${tasks.length} tasks` : `${tasks.length} ${groupName}`;
}

/** Fill the sentences and captions that depend on the selection. */
function fillTexts() {
  const title = data.shots_titles[state.shots];
  const group = describeGroup();
  const seeds = `${data.num_seeds} seed${data.num_seeds > 1 ? "s" : ""}`;
  const texts = {
    over: getGroupName() === null ? "over no task" : `over ${group}`,
    where: `${group} at ${title}, ${seeds}`,
    shots: title,
    headline: data.headlines[state.shots],
    friedman: describeFriedmanTest(),
  };
  for (const [name, text] of Object.entries(texts))
    for (const target of selectAll(`[data-text=${name}]`)) target.textContent = text;
  selectOne("#selection").textContent = `${group}, ${title}`;
  const crossings = selectOne("#crossings");
  if (crossings) crossings.textContent = describeCrossings();
}

function describeFriedmanTest() {
  const pValue = getRankDiagram()?.p_value;
  if (isMissing(pValue)) return "";
  return `Friedman test that all methods are equal: ${pValue < 0.001 ? "p < 0.001" : `p = ${pValue.toFixed(3)}`}.`;
}

/** Describe where the shot curves of the two compared methods cross. */
function describeCrossings() {
  const { method_a, method_b } = state;
  const groupName = getGroupName();
  if (method_a === method_b || groupName === null) return "";
  const comparedMethods = [method_a, method_b];
  const crossings = data.crossings.filter((crossing) => crossing.group_name === groupName
    && comparedMethods.includes(crossing.method_a) && comparedMethods.includes(crossing.method_b));
  const tasks = listSelectedTasks();
  const where = tasks.length > 1 ? `over these ${tasks.length} tasks` : `on ${groupName}`;
  if (!crossings.length) return `The curves of ${method_a} and ${method_b} do not cross ${where}.`;
  return crossings.map((crossing) => describeCrossing(crossing, where)).join(" ");
}

function describeCrossing(crossing, where) {
  const { method_a, method_b, is_first_above, crossing_shots } = crossing;
  const [upper, lower] = is_first_above ? [method_a, method_b] : [method_b, method_a];
  const before = data.shots_titles[crossing.shots_before];
  const after = data.shots_titles[crossing.shots_after];
  const place = crossing_shots === null ? "" : `, at about ${crossing_shots.toFixed(0)}`;
  const doubt = crossing.is_significant ? "" : "; the difference is not significant on at least one side, so this may be chance";
  return `${upper} overtakes ${lower} between ${before} and ${after}${place}, ${where}${doubt}.`;
}

// -------------------------------------------------------------------- tables under the charts

const createNumberCell = (text) => createElement("td", { class: "number" }, text);
const createMethodHeader = (method) => createElement("th", { scope: "row" }, method);

/** Fill the table of average ranks; methods of the same clique share a letter. */
function fillRankTable() {
  const diagram = getRankDiagram();
  const letters = "abcdefghijklmnopqrstuvwxyz";
  const rows = (diagram?.methods ?? []).map((method, i) => {
    const cliqueLetters = diagram.cliques.map((clique, j) => (clique.first_index <= i && i <= clique.last_index ? letters[j] : ""));
    const rank = `${diagram.mean_ranks[i].toFixed(2)} ±${(diagram.critical_difference / 2).toFixed(2)}`;
    return createElement("tr", { "data-method": method }, createMethodHeader(method), createNumberCell(rank),
      createElement("td", { class: "" }, cliqueLetters.join("")));
  });
  selectOne("#t-ranks tbody")?.replaceChildren(...rows);
}

function fillTimeTable() {
  const headers = ["method", ...data.phases].map((text, i) => createElement("th", { scope: "col", class: i ? "number" : "" }, text));
  const rows = listMethodsInOrder().map((method) => createElement("tr", { "data-method": method }, createMethodHeader(method),
    ...data.phases.map((phase) => createNumberCell(getCost(method).phase_seconds?.[phase]?.toFixed(2) ?? ""))));
  selectOne("#t-time thead").replaceChildren(createElement("tr", {}, ...headers));
  selectOne("#t-time tbody").replaceChildren(...rows);
}

// -------------------------------------------------------------------- events

/** Move to the target of a link within the page; the address keeps the selection. */
function followLink(link) {
  const target = selectOne(link.getAttribute("href"));
  target.scrollIntoView();
  target.setAttribute("tabindex", "-1");
  target.focus({ preventScroll: true });
}

filters.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("change", ({ target }) => {
  if (target.form === filters) changeState({ [target.name]: target.value });
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const header = button?.closest("th[data-key]");
  const link = event.target.closest('a[href^="#"]');
  if (button?.dataset.export) saveTable(button.dataset.table, button.dataset.export);
  else if (header) toggleSort(header.closest("table"), header.dataset.key);
  else if (link) {
    event.preventDefault();
    followLink(link);
  }
});
for (const section of selectAll("details.task"))
  section.addEventListener("toggle", () => {
    const task = section.dataset.task;
    if (section.open) {
      fillTaskSection(section);
      changeState({ task });
    } else if (state.task === task) changeState({ task: "" });
  });
addEventListener("hashchange", () => { readAddress(); renderPage(); });
darkScheme.addEventListener("change", redrawCharts);
new ResizeObserver(() => redrawCharts()).observe(selectOne("main"));

// -------------------------------------------------------------------- start

readAddress();
renderPage();
for (const host of selectAll("[data-chart]")) chartObserver.observe(host);
const openSection = selectAll("details.task").find((section) => section.dataset.task === state.task);
if (openSection) {
  openSection.open = true;
  openSection.scrollIntoView({ behavior: "instant" });
}
document.documentElement.dataset.ready = "yes";
