"use strict";
// The selection, stored in the address so that it can be shared, and access to the numbers of the selection.
// Records from the page's data have the fields that page_records.py describes.

const TABLES = ["scores", "costs", "crossings", "curves", "cells"]; // fields of the data that are encoded as tables

/**
 * Decode a table {columns, rows} into records: objects with one property per column.
 * `rows` is a list of rows, or nested objects with one row at each leaf; the result has the same shape.
 */
function decodeRecords({ columns, rows }) {
  const decodeRow = (row) => Object.fromEntries(columns.map((column, i) => [column, row[i]]));
  const decodeLevel = (level) => (Array.isArray(level) ? decodeRow(level)
    : Object.fromEntries(Object.entries(level).map(([key, value]) => [key, decodeLevel(value)])));
  return Array.isArray(rows) ? rows.map(decodeRow) : decodeLevel(rows);
}

/** Read the data embedded in the page; see PageData in page_records.py. */
function loadPageData() {
  const payload = JSON.parse(document.getElementById("data").textContent);
  for (const name of TABLES) payload[name] = decodeRecords(payload[name]);
  return payload;
}

const data = loadPageData();
const state = { ...data.default_state };

// -------------------------------------------------------------------- document

const selectAll = (selector, root = document) => [...root.querySelectorAll(selector)];
const selectOne = (selector, root = document) => root.querySelector(selector);

/** Create an element with attributes and children; a child that is null is left out. */
function createElement(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  created.append(...children.filter((child) => child !== null)); // strings become text, never markup
  return created;
}

// -------------------------------------------------------------------- address

const ADDRESS_PARAMETERS = { method_a: "a", method_b: "b", direction: "dir" }; // of the fields with another name there
const getAddressParameter = (field) => ADDRESS_PARAMETERS[field] ?? field;

/** Set the state from the address; missing and unknown values become the default. */
function readAddress() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const methods = Object.keys(data.methods);
  const allowedValues = {
    shots: Object.keys(data.shots_titles), cost: Object.keys(data.cost_titles), direction: ["up", "down"],
    method_a: methods, method_b: methods, task: ["", ...Object.keys(data.tasks)],
  };
  for (const [field, defaultValue] of Object.entries(data.default_state)) {
    const value = parameters.get(getAddressParameter(field)) ?? defaultValue;
    const isAllowed = !allowedValues[field] || allowedValues[field].includes(value);
    state[field] = isAllowed ? value : defaultValue;
  }
}

/** Write the fields of the state that differ from the default to the address. */
function writeAddress() {
  const changedFields = Object.keys(state).filter((field) => state[field] !== data.default_state[field]);
  const parameters = changedFields.map((field) => [getAddressParameter(field), state[field]]);
  const address = parameters.length ? `#${new URLSearchParams(parameters)}` : location.pathname + location.search;
  history.replaceState(null, "", address);
}

// -------------------------------------------------------------------- numbers of the selection

/** Name of the selected task group, or of the task if it is a single one; null if no task matches. */
const getGroupName = () => data.group_names[`${state.role}/${state.family}`] ?? null;

/** Names of the selected tasks. */
function listSelectedTasks() {
  const groupName = getGroupName();
  return groupName === null ? [] : data.task_groups[groupName] ?? [groupName];
}

/** Scores on a task group or task, by method. */
const getScores = (name, shots = state.shots) => data.scores[shots]?.[name] ?? {};

/** Scores on the selected tasks, by method. */
function getGroupScores() {
  const groupName = getGroupName();
  return groupName === null ? {} : getScores(groupName);
}

const getCost = (method) => data.costs[state.shots]?.[method] ?? {};
const getRankDiagram = () => data.rank_diagrams[state.shots]?.[getGroupName()];
const countPlannedSeeds = (method) => (data.methods[method].is_seed_independent ? 1 : data.num_seeds);

/** "a" or "b" for the two compared methods, "other" for all others. */
const getHighlight = (method) => (method === state.method_a ? "a" : method === state.method_b ? "b" : "other");

/** Ends of the interval of a score; without an interval, both are absent. */
const getInterval = ({ mean, half_width }) => (half_width === null ? {} : { low: mean - half_width, high: mean + half_width });

// -------------------------------------------------------------------- texts of numbers

const isMissing = (value) => value === undefined || value === null;

/** Format with one decimal as Python does: exact quarters round to the even digit, where toFixed rounds up. */
const formatTenths = (value) => (Math.abs(value * 4) % 4 === 1 ? value - Math.sign(value) / 100 : value).toFixed(1);
const formatSigned = (value) => (value < 0 ? "" : "+") + formatTenths(value);
const formatHalfWidth = (halfWidth) => (halfWidth === null ? "" : ` ±${formatTenths(halfWidth)}`);

/** Format a score, e.g. "66.9 ±2.6 (3/5)"; the seeds are shown only if some are missing. */
function formatScore(score, method) {
  if (!score) return "";
  const numPlanned = countPlannedSeeds(method);
  const seeds = score.num_seeds < numPlanned ? ` (${score.num_seeds}/${numPlanned})` : "";
  return formatTenths(score.mean) + formatHalfWidth(score.half_width) + seeds;
}

/** Format the difference to the reference, e.g. "-2.1 ±1.3". */
function formatDifference(score) {
  if (!score || score.difference === null) return "";
  return formatSigned(score.difference) + formatHalfWidth(score.difference_half_width);
}

/** Format the tie letters, or ‡ for a method that is not ranked. */
function formatTieLetters(score) {
  if (!score) return "";
  return score.unranked_reason ? "‡" : score.tie_letters;
}

/** Format a count with three digits and a unit, e.g. "1.23 M". */
function formatCount(number) {
  for (const [size, unit] of [[1e9, " B"], [1e6, " M"], [1e3, " k"]])
    if (number >= size) return Number((number / size).toPrecision(3)) + unit;
  return number === null ? "" : String(Math.round(number));
}

/** Format a cost; `costName` is a key of data.cost_titles. */
function formatCost(costName, value) {
  if (isMissing(value)) return "";
  if (costName === "trained") return formatCount(value);
  if (costName === "bytes") return `${Math.round(value / 2 ** 20)} MB`;
  return `${value.toFixed(1)} s`;
}

const formatSeedCount = (score) => (score.num_seeds === 1 ? "1 run" : `${score.num_seeds} seeds`);
