"use strict";
// One text as tokens, coloured by author or by a number of each token.

const NUMBERS = { advantages: "advantage", ratio: "ratio to the start", kl: "KL", values: "value" };

// The scale is that of the texts that stand side by side, so that their colours can be compared.
function scaleOf(samples, name) {
  const values = samples.flatMap((s) => s[name] ?? []).filter((v) => v !== null).map((v) => measureOf(name, v));
  return values.reduce((most, v) => Math.max(most, Math.abs(v)), 0) || 1;
}

function measureOf(name, value) {
  return name === "ratio" ? Math.log(value) : value;
}

function classOf(value, name, scale) {
  if (value === null || value === undefined) return "";
  const level = Math.round((4 * measureOf(name, value)) / scale);
  return level === 0 ? "" : (level > 0 ? "u" : "d") + Math.min(4, Math.abs(level));
}

function authorsOf(s) {
  return s.parts.flatMap(([author, count]) => new Array(count).fill(author));
}

function tokensOf(s, name, scale) {
  const text = element("div", name ? "text by-number" : "text");
  const authors = authorsOf(s);
  s.tokens.forEach((piece, i) => {
    const token = element("span", `t a-${authors[i]} ${name ? classOf(s[name]?.[i], name, scale) : ""}`);
    token.dataset.i = i;
    // The end of a text is a token too: it has a probability and an advantage.
    if (piece === "" && i === s.tokens.length - 1 && s.finished) token.append(element("span", "escaped", "end"));
    else addText(token, piece);
    text.append(token);
  });
  if (s.left_out) text.append(element("span", "says", ` … and ${s.left_out} more tokens that were not kept`));
  return text;
}

function readoutOf(s, i) {
  // A text of an evaluation is one piece.
  const parts = s.split !== "train" ? [] : [`token ${i + 1} of ${s.size}`, authorsOf(s)[i]];
  for (const [name, label] of Object.entries(NUMBERS)) {
    const value = s[name]?.[i];
    if (value !== null && value !== undefined) parts.push(`${label} ${short(value)}`);
  }
  return parts.join(" · ");
}

// Points at a token with the mouse, or with the arrow keys once the text has the focus.
function pointing(text, readout, s) {
  let here = -1;
  const show = (i) => {
    if (i < 0 || i >= s.tokens.length) return;
    text.querySelector(".here")?.classList.remove("here");
    here = i;
    const token = text.children[i];
    token.classList.add("here");
    readout.textContent = readoutOf(s, i);
    return token;
  };
  text.addEventListener("mouseover", (event) => {
    const token = event.target.closest(".t");
    if (token) show(Number(token.dataset.i));
  });
  text.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(here + step)?.scrollIntoView({ block: "nearest" });
  });
}

function headOf(s) {
  const parts = [`update ${s.update}`, s.split];
  if (typeof s.reward === "number") parts.push(`reward ${short(s.reward)}`);
  return parts.join(", ");
}

function card(s, name, scale, chosen) {
  const made = element("article", chosen ? "card chosen" : "card");
  made.append(addText(element("h4"), headOf(s)));
  const meta = [pageNames.runs[s.run]];
  if (s.algorithm) meta.push(s.algorithm);
  if (s.split === "train") meta.push(`${s.size} tokens`, s.finished ? "ended by itself" : "cut off at the limit");
  if (s.guide) meta.push(`guide ${s.guide}`);
  if (s.pair) meta.push(`the ${s.pair} of a pair`);
  for (const [metric, value] of Object.entries(s.metrics ?? {})) meta.push(`${metric} ${short(value)}`);
  made.append(addText(element("div", "meta"), meta.join(" · ")));
  if (s.hint) made.append(addText(element("div", "hint"), `Hint in the prompt: ${s.hint}`));
  const text = tokensOf(s, name, scale), readout = element("div", "readout");
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `Text of ${headOf(s)}; left and right arrow point at its tokens`);
  readout.setAttribute("aria-live", "polite");
  pointing(text, readout, s);
  made.append(text, readout);
  return made;
}

function keyTo(name, scale, shown) {
  const key = element("p", "key");
  const add = (className, label) => key.append(element("span", className, label));
  if (!name) {
    add("a-policy", "policy");
    add("a-guide t", "guide");
    add("a-reference t", "reference");
    for (const rare of ["past", "environment"]) if (shown.some((s) => authorsOf(s).includes(rare))) add(`a-${rare} t`, rare);
    return key;
  }
  const at = (share) => short(name === "ratio" ? Math.exp(share * scale) : share * scale);
  key.append(NUMBERS[name]);
  key.classList.add("by-number");
  if (name !== "kl") [4, 3, 2, 1].forEach((n) => add(`d${n}`, at(-n / 4)));
  add("", at(0));
  [1, 2, 3, 4].forEach((n) => add(`u${n}`, at(n / 4)));
  return key;
}
