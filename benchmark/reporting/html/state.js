"use strict";
// The selection, kept in the address so that it can be shared, and access to the numbers it selects.

const data = JSON.parse(document.getElementById("data").textContent);
const state = { ...data.default };
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null)); // strings become text, never markup
  return made;
}

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const known = {
    shots: Object.keys(data.titles), cost: Object.keys(data.costTitles), dir: ["up", "down"],
    a: Object.keys(data.methods), b: Object.keys(data.methods), task: ["", ...Object.keys(data.tasks)],
  };
  for (const [key, usual] of Object.entries(data.default)) {
    const value = asked.get(key) ?? usual;
    state[key] = known[key] && !known[key].includes(value) ? usual : value;
  }
}

function writeAddress() {
  const changed = Object.entries(state).filter(([key, value]) => value !== data.default[key]);
  const address = changed.length ? `#${new URLSearchParams(changed)}` : location.pathname + location.search;
  history.replaceState(null, "", address);
}

// -------------------------------------------------------------------- numbers

const selection = () => data.asked[`${state.role}/${state.family}`] ?? null;
const chosenTasks = () => (selection() === null ? [] : data.groups[selection()] ?? [selection()]);
const scoresOf = (name, shots = state.shots) => data.scores[shots]?.[name] ?? {};
const ranksOf = () => data.ranks[state.shots]?.[selection()];
const costOf = (method, shots = state.shots) => data.costs[shots]?.[method] ?? {};
const who = (method) => (method === state.a ? "a" : method === state.b ? "b" : "other");

// a score is [mean, half, seeds, difference, its half, p, letters, flag]
const due = (method) => (data.methods[method].fixed ? 1 : data.seeds);
// as Python rounds: an exact quarter goes to the even digit, where toFixed goes up, and two views would differ
const tenth = (value) => (Math.abs(value * 4) % 4 === 1 ? value - Math.sign(value) / 100 : value).toFixed(1);
const signed = (value) => (value < 0 ? "" : "+") + tenth(value);
const half = (value) => (value === null ? "" : ` ±${tenth(value)}`);

function points(score, method) {
  if (!score) return "";
  const short = score[2] < due(method) ? ` (${score[2]}/${due(method)})` : "";
  return tenth(score[0]) + half(score[1]) + short;
}

const apart = (score) => (!score || score[3] === null ? "" : signed(score[3]) + half(score[4]));
const ties = (score) => (!score ? "" : score[7] ? "‡" : score[6]);

function count(number) {
  for (const [size, unit] of [[1e9, " B"], [1e6, " M"], [1e3, " k"]])
    if (number >= size) return Number((number / size).toPrecision(3)) + unit;
  return number === null ? "" : String(Math.round(number));
}

const costText = (kind, value) =>
  value === null || value === undefined ? "" : kind === "trained" ? count(value)
    : kind === "bytes" ? `${Math.round(value / 2 ** 20)} MB` : `${value.toFixed(1)} s`;

function seedsText(score) {
  if (score[2] === 1) return "1 run";
  return `${score[2]} seeds`;
}
