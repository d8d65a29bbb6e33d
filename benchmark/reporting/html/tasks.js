// The section of a task: answers of the two compared methods, and each cell with the command that runs it again.

const CHINESE_CHARACTER = /[\u3400-\u9fff]/;

/** Attributes that tell screen readers the language of a text. */
const getLanguageAttributes = (text) => (CHINESE_CHARACTER.test(text) ? { lang: "zh" } : {});
const createSoftParagraph = (text) => createElement("p", { class: "soft" }, text);

/** Elements that compare the answers of the two compared methods on a task. */
function buildAnswerComparison(task) {
  const { method_a, method_b } = state;
  const section = data.examples[task];
  const comparison = section?.comparisons[state.shots];
  const missing = [method_a, method_b].filter((method) => !comparison?.answers[method]);
  if (missing.length)
    return [createSoftParagraph(`No stored predictions of ${missing.join(" and ")} at ${data.shots_titles[state.shots]}.`)];
  const answersA = comparison.answers[method_a];
  const answersB = comparison.answers[method_b];
  const getRank = (i) => (answersA.is_correct[i] !== answersB.is_correct[i] ? 0 : answersA.is_correct[i] ? 2 : 1);
  const shownIndices = section.examples.map((_, i) => i).filter((i) => getRank(i) < 2).sort((i, j) => getRank(i) - getRank(j));
  return [
    buildCorrectCounts(section, comparison),
    createSoftParagraph(`Seed ${section.seed}; among the examples on which methods differ most, those that at least one of these two got wrong.`),
    ...(section.note ? [createSoftParagraph(section.note)] : []),
    ...(shownIndices.length ? [] : [createSoftParagraph("Both are right on all examples shown here.")]),
    ...shownIndices.map((i) => buildExample(section.examples[i], comparison.answers, i)),
  ];
}

/** A list of how many test examples both, one or none of the two compared methods answer correctly. */
function buildCorrectCounts(section, comparison) {
  const { method_a, method_b } = state;
  const indexA = comparison.methods.indexOf(method_a);
  const indexB = comparison.methods.indexOf(method_b);
  const numBoth = comparison.num_both_correct[indexA][indexB];
  const numOnlyA = comparison.num_both_correct[indexA][indexA] - numBoth;
  const numOnlyB = comparison.num_both_correct[indexB][indexB] - numBoth;
  const counts = [
    { title: "both right", count: numBoth },
    { title: `only ${method_a} right`, count: numOnlyA },
    { title: `only ${method_b} right`, count: numOnlyB },
    { title: "both wrong", count: section.num_examples - numBoth - numOnlyA - numOnlyB },
  ];
  return createElement("dl", { class: "facts" }, ...counts.map(({ title, count }) =>
    createElement("div", {}, createElement("dt", {}, title), createElement("dd", {}, `${count} of ${section.num_examples}`))));
}

/** An example with the expected answer and those of the two compared methods. `exampleIndex`: its place in their answers. */
function buildExample(example, answersByMethod, exampleIndex) {
  const buildAnswer = (method, highlight) => {
    const prediction = answersByMethod[method].predictions[exampleIndex];
    const isCorrect = answersByMethod[method].is_correct[exampleIndex];
    const texts = prediction === null ? [] : [createElement("span", getLanguageAttributes(prediction), prediction || "(nothing)"), " "];
    return createElement("div", { class: `answer method-${highlight} ${isCorrect ? "right" : "wrong"}` },
      createElement("dt", {}, method), createElement("dd", {}, ...texts, isCorrect ? "✓ right" : "✗ wrong"));
  };
  const { expected_answer, prompt, uid } = example;
  const expected = expected_answer === null ? null : createElement("div", { class: "answer" },
    createElement("dt", {}, "expected"),
    createElement("dd", {}, createElement("span", getLanguageAttributes(expected_answer), expected_answer)));
  return createElement("article", { class: "example" },
    prompt ? createElement("pre", { ...getLanguageAttributes(prompt), tabindex: "0" }, prompt) : createSoftParagraph(uid),
    createElement("dl", {}, expected, buildAnswer(state.method_a, "a"), buildAnswer(state.method_b, "b")));
}

/** A folded table of the cells of a task at the selected shots, with the commands that run them again. */
function buildCellTable(task) {
  const isShown = (cell) => cell.task === task && cell.stage === "target" && [state.shots, "0"].includes(String(cell.shots));
  const cells = data.cells.filter(isShown);
  const headers = ["Cell", "State", "Score", "Seconds", "Command to repeat"];
  const table = createElement("table", {},
    createElement("caption", {}, `Cells of ${task} at ${data.shots_titles[state.shots]}, one row per seed`),
    createElement("thead", {}, createElement("tr", {}, ...headers.map((text) => createElement("th", { scope: "col" }, text)))),
    createElement("tbody", {}, ...cells.map(buildCellRow)));
  return createElement("details", {}, createElement("summary", {}, `${cells.length} cells`),
    createElement("div", { class: "scroll", role: "region", "aria-label": `Cells of ${task}`, tabindex: "0" }, table));
}

function buildCellRow(cell) {
  const { method, task, shots, seed } = cell;
  const seedFlags = shots === 0 ? "" : ` --shots ${shots} --seeds ${seed}`;
  const command = `${data.rerun_command} --methods ${method} --tasks ${task}${seedFlags}`;
  const reason = cell.failure_reason ? `: ${cell.failure_reason}` : "";
  return createElement("tr", { "data-method": method, "data-highlight": getHighlight(method) },
    createElement("th", { scope: "row", title: `identity ${cell.identity}` }, `${method}/${task}/${shots}/${seed}`),
    createElement("td", {}, cell.state + reason),
    createElement("td", { class: "number" }, cell.score === null ? "" : cell.score.toFixed(1)),
    createElement("td", { class: "number" }, cell.seconds.toFixed(1)),
    createElement("td", {}, createElement("code", {}, command)));
}

/** Name the method with the highest score in the heading of a task's section. */
function fillTaskHeading(section) {
  const trained = Object.entries(getScores(section.dataset.task)).filter(([method]) => !data.methods[method].is_control);
  trained.sort(([, x], [, y]) => y.mean - x.mean);
  const describe = ([method, score]) => `highest: ${method} ${formatScore(score, method)}, ${formatSeedCount(score)}`;
  selectOne("[data-field=best]", section).textContent = trained.slice(0, 1).map(describe).join("");
}

/** Fill the section of a task; its contents only if it is open. */
function fillTaskSection(section) {
  const task = section.dataset.task;
  fillTaskHeading(section);
  if (!section.open) return;
  selectOne("[data-field=answers]", section).replaceChildren(...buildAnswerComparison(task));
  selectOne("[data-field=cells]", section).replaceChildren(buildCellTable(task));
}
