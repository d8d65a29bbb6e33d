// The page as a whole: a change of the selection is written to the address, then shown everywhere.

const filters = one("#filters");

function change(changes) {
  Object.assign(state, changes);
  writeAddress();
  show();
}

function show() {
  for (const name of ["role", "family", "shots", "a", "b", "cost"]) filters.elements[name].value = state[name];
  fillBoard();
  fillHeat();
  fillTasks();
  mark();
  all("table.sortable").forEach(sort);
  fillSmall();
  say();
  for (const section of all("details.task")) {
    section.hidden = !chosenTasks().includes(section.dataset.task);
    fillTask(section);
  }
  redraw();
}

function say() {
  const tasks = chosenTasks(), title = data.titles[state.shots], name = selection();
  const counted = name === "all tasks" ? `all ${tasks.length} tasks` : `${tasks.length} ${name}`;
  const group = name === null ? "no task matches" : tasks.length > 1 ? counted : name;
  for (const at of all("[data-said=over]")) at.textContent = name === null ? "over no task" : `over ${group}`;
  for (const at of all("[data-said=where]")) at.textContent = `${group} at ${title}, ${data.seeds} seed${data.seeds > 1 ? "s" : ""}`;
  for (const at of all("[data-said=shots]")) at.textContent = title;
  one("[data-said=headline]").textContent = data.headlines[state.shots];
  one("#said").textContent = `${group}, ${title}`;
  const ranks = ranksOf(), chance = ranks?.p < 0.001 ? "p < 0.001" : `p = ${ranks?.p?.toFixed(3)}`;
  for (const at of all("[data-said=friedman]")) at.textContent = ranks && ranks.p !== null ? `Friedman test that all methods are equal: ${chance}.` : "";
  const crossings = one("#crossings");
  if (crossings) crossings.textContent = crossed();
}

function crossed() {
  const pair = [state.a, state.b].sort().join();
  const own = (data.crossings[selection()] ?? []).filter(([a, b]) => [a, b].sort().join() === pair);
  if (state.a === state.b || selection() === null) return "";
  const tasks = chosenTasks(), where = tasks.length > 1 ? `over these ${tasks.length} tasks` : `on ${selection()}`;
  if (!own.length) return `The curves of ${state.a} and ${state.b} do not cross ${where}.`;
  return own.map(([a, b, before, after, place, firstAbove, clear]) => {
    const [up, down] = firstAbove ? [a, b] : [b, a];
    const at = place === null ? "" : `, at about ${place.toFixed(0)}`;
    const doubt = clear ? "" : "; the difference is not significant on at least one side, so this may be chance";
    return `${up} overtakes ${down} between ${data.titles[before]} and ${data.titles[after]}${at}, ${where}${doubt}.`;
  }).join(" ");
}

// the tables under the charts
function fillSmall() {
  const found = ranksOf(), letters = "abcdefghijklmnopqrstuvwxyz";
  const cell = (text, kind = "number") => element("td", { class: kind }, text);
  one("#t-ranks tbody")?.replaceChildren(...(found?.methods ?? []).map((method, i) => {
    const bars = found.bars.map(([first, last], n) => (first <= i && i <= last ? letters[n] : "")).join("");
    return element("tr", { "data-method": method }, element("th", { scope: "row" }, method),
      cell(`${found.mean[i].toFixed(2)} ±${(found.gap / 2).toFixed(2)}`), cell(bars, ""));
  }));
  const phases = ["train", "dev", "test", "start and end", "sources' share"];
  one("#t-time thead").replaceChildren(element("tr", {}, ...["method", ...phases].map((text, i) =>
    element("th", { scope: "col", class: i ? "number" : "" }, text))));
  one("#t-time tbody").replaceChildren(...order().map((method) => element("tr", { "data-method": method },
    element("th", { scope: "row" }, method),
    ...phases.map((phase) => cell(costOf(method).phases?.[phase]?.toFixed(2) ?? "")))));
}

// -------------------------------------------------------------------- what a reader does

filters.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("change", ({ target }) => {
  if (target.form === filters) change({ [target.name]: target.value });
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button"), link = event.target.closest('a[href^="#"]');
  if (button?.dataset.export) save(button.dataset.table, button.dataset.export);
  else if (button?.closest("th[data-key]")) ask(button.closest("table"), button.closest("th").dataset.key);
  else if (link) { // the address keeps the selection
    event.preventDefault();
    const place = one(link.getAttribute("href"));
    place.scrollIntoView();
    place.setAttribute("tabindex", "-1");
    place.focus({ preventScroll: true });
  }
});
for (const section of all("details.task")) {
  section.addEventListener("toggle", () => {
    if (section.open) {
      fillTask(section);
      change({ task: section.dataset.task });
    } else if (state.task === section.dataset.task) change({ task: "" });
  });
}
addEventListener("hashchange", () => { readAddress(); show(); });
dark.addEventListener("change", redraw);
new ResizeObserver(() => redraw()).observe(one("main"));

readAddress();
show();
for (const host of all("[data-chart]")) sight.observe(host);
const asked = all("details.task").find((section) => section.dataset.task === state.task && state.task);
if (asked) { asked.open = true; asked.scrollIntoView({ behavior: "instant" }); }
document.documentElement.dataset.ready = "yes";
