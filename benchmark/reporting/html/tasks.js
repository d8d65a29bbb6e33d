// A task's section: what two methods answered, how they learned, and each cell with the command that runs it again.

const CHINESE = /[\u3400-\u9fff]/;
const speak = (text) => (CHINESE.test(text) ? { lang: "zh" } : {});

function errors(task) {
  const found = data.examples[task], at = found?.shots[state.shots];
  const gone = [state.a, state.b].filter((method) => !at?.said[method]);
  if (gone.length) return [element("p", { class: "soft" }, `No stored predictions of ${gone.join(" and ")} at ${data.titles[state.shots]}.`)];
  const place = (method) => at.methods.indexOf(method), right = (x, y) => at.both[place(x)][place(y)];
  const both = right(state.a, state.b), onlyA = right(state.a, state.a) - both, onlyB = right(state.b, state.b) - both;
  const counts = [[`both right`, both], [`only ${state.a} right`, onlyA], [`only ${state.b} right`, onlyB],
    ["both wrong", found.n - both - onlyA - onlyB]];
  const list = element("dl", { class: "facts" }, ...counts.map(([name, number]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, `${number} of ${found.n}`))));
  const rank = (i) => (at.said[state.a][i][1] !== at.said[state.b][i][1] ? 0 : at.said[state.a][i][1] ? 2 : 1);
  const shown = found.examples.map((_, i) => i).filter((i) => rank(i) < 2).sort((i, j) => rank(i) - rank(j));
  const why = found.why ? [element("p", { class: "soft" }, found.why)] : [];
  const none = shown.length ? [] : [element("p", { class: "soft" }, "Both are right on all examples shown here.")];
  const seed = element("p", { class: "soft" }, `Seed ${found.seed}; among the examples on which methods differ most, those that at least one of these two got wrong.`);
  return [list, seed, ...why, ...none, ...shown.map((i) => example(found.examples[i], at.said, i))];
}

function example(shown, said, place) {
  const answer = (method, letter) => {
    const [text, right] = said[method][place];
    return element("div", { class: `answer ${letter} ${right ? "right" : "wrong"}` }, element("dt", {}, method),
      element("dd", {}, ...(text === null ? [] : [element("span", speak(text), text || "(nothing)"), " "]), right ? "✓ right" : "✗ wrong"));
  };
  const target = shown.target === null ? null : element("div", { class: "answer" }, element("dt", {}, "expected"),
    element("dd", {}, element("span", speak(shown.target), shown.target)));
  return element("article", { class: "example" },
    shown.prompt ? element("pre", { ...speak(shown.prompt), tabindex: "0" }, shown.prompt) : element("p", { class: "soft" }, shown.uid),
    element("dl", {}, target, answer(state.a, "a"), answer(state.b, "b")));
}

function cells(task) {
  const own = data.cells.filter(([, of, shots, , stage]) => of === task && stage === "target" && [state.shots, "0"].includes(String(shots)));
  const heads = ["Cell", "State", "Score", "Seconds", "Command to repeat"];
  const rows = own.map(([method, , shots, seed, , what, score, seconds, identity, reason]) => {
    const place = shots === 0 ? "" : ` --shots ${shots} --seeds ${seed}`;
    const command = `${data.command} --methods ${method} --tasks ${task}${place}`;
    return element("tr", { "data-method": method, "data-who": who(method) },
      element("th", { scope: "row", title: `identity ${identity}` }, `${method}/${task}/${shots}/${seed}`),
      element("td", {}, what + (reason ? `: ${reason}` : "")), element("td", { class: "number" }, score === null ? "" : score.toFixed(1)),
      element("td", { class: "number" }, seconds.toFixed(1)), element("td", {}, element("code", {}, command)));
  });
  const table = element("table", {}, element("caption", {}, `Cells of ${task} at ${data.titles[state.shots]}, one row per seed`),
    element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)))), element("tbody", {}, ...rows));
  const fold = element("details", {}, element("summary", {}, `${own.length} cells`),
    element("div", { class: "scroll", role: "region", "aria-label": `Cells of ${task}`, tabindex: "0" }, table));
  return [fold];
}

function fillTask(section) {
  const task = section.dataset.task;
  const best = Object.entries(scoresOf(task)).filter(([method]) => !data.methods[method].control).sort((x, y) => y[1][0] - x[1][0])[0];
  one("[data-f=best]", section).textContent = best ? `highest: ${best[0]} ${points(best[1], best[0])}, ${seedsText(best[1])}` : "";
  if (!section.open) return;
  one("[data-f=errors]", section).replaceChildren(...errors(task));
  one("[data-f=cells]", section).replaceChildren(...cells(task));
}
