"use strict";
// The samples, read from the blocks of the page a few lines at a time, and what is asked of them.

const store = { prompts: [], samples: [], byPrompt: new Map(), byKey: new Map(), means: new Map() };

function keyOf(s) {
  return `${pageNames.runs[s.run]}|${s.split}|${s.update}|${s.episode}`;
}

async function readSamples(progress) {
  if (!document.querySelector("script.samples")) return;
  for await (const lines of linesOf("prompts")) await inSlices(lines, (line) => store.prompts.push(JSON.parse(line)));
  for await (const lines of linesOf("samples")) {
    await inSlices(lines, takeSample);
    progress();
  }
}

function takeSample(line) {
  const tab = line.indexOf("\t"), s = JSON.parse(line.slice(0, tab));
  s.rest = line.slice(tab + 1); // parsed when the sample is opened
  s.number = store.samples.length;
  s.key = keyOf(s);
  s.size = s.parts.reduce((sum, [, count]) => sum + count, 0);
  store.samples.push(s);
  store.byKey.set(s.key, s);
  if (!store.byPrompt.has(s.p)) store.byPrompt.set(s.p, []);
  store.byPrompt.get(s.p).push(s);
  // Rewards are compared within one run and split: scales may differ between runs.
  const of = `${s.run}|${s.split}`, mean = store.means.get(of) ?? { sum: 0, count: 0 };
  if (typeof s.reward === "number") { mean.sum += s.reward; mean.count += 1; }
  store.means.set(of, mean);
}

// A sample with its tokens and what was computed of each.
function whole(s) {
  if (s.rest === undefined) return s;
  Object.assign(s, JSON.parse(s.rest), { rest: undefined });
  let at = 0;
  const text = textOf(s);
  s.tokens = s.cuts.map((length) => text.slice(at, (at += length)));
  return s;
}

function textOf(s) {
  return s.parts.map(([, , text]) => text).join("");
}

function groupOf(s) {
  if (s.group === undefined) return [s];
  return store.byPrompt.get(s.p).filter((o) => o.run === s.run && o.split === s.split && o.update === s.update && o.group === s.group);
}

function samePrompt(s) {
  return [...store.byPrompt.get(s.p)].sort((a, b) => a.run - b.run || a.update - b.update || a.episode - b.episode);
}

const OUTCOMES = {
  ended: (s) => s.finished === true,
  limit: (s) => s.finished === false,
  above: (s) => typeof s.reward === "number" && s.reward > meanOf(s),
  below: (s) => typeof s.reward === "number" && s.reward <= meanOf(s),
};

function meanOf(s) {
  const mean = store.means.get(`${s.run}|${s.split}`);
  return mean.sum / mean.count;
}

const SORTS = {
  "": (a, b) => a.update - b.update || a.number - b.number,
  last: (a, b) => b.update - a.update || a.number - b.number,
  best: (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity) || a.number - b.number,
  worst: (a, b) => (a.reward ?? Infinity) - (b.reward ?? Infinity) || a.number - b.number,
  longest: (a, b) => b.size - a.size || a.number - b.number,
  shortest: (a, b) => a.size - b.size || a.number - b.number,
};

function fits(s, state, words) {
  if (state.run && pageNames.runs[s.run] !== state.run) return false;
  if (state.split && s.split !== state.split) return false;
  if (state.author) {
    // An environment answers in every dialogue and helps in none.
    const helps = s.parts.some(([author]) => author !== "policy" && author !== "environment");
    const wrote = s.parts.some(([author]) => author === state.author);
    if (state.author === "alone" ? helps : !wrote) return false;
  }
  if (state.outcome && OUTCOMES[state.outcome] && !OUTCOMES[state.outcome](s)) return false;
  if (!words) return true;
  return textOf(s).toLowerCase().includes(words) || store.prompts[s.p].toLowerCase().includes(words);
}

// The samples that fit, in order; null where another question was asked in the meantime.
async function query(state, isOver) {
  const found = [], words = state.q.toLowerCase();
  if (!(await inSlices(store.samples, (s) => fits(s, state, words) && found.push(s), isOver))) return null;
  return found.sort(SORTS[state.sort] ?? SORTS[""]);
}
