"use strict";
// The sample browser: a list that builds only the rows in view, the chosen sample beside it, and a link to each view.

const HEIGHT = 76; // of a row, as in page.css
const MOST_CARDS = 200;
const FIELDS = ["q", "run", "split", "author", "outcome", "sort", "colour", "view", "at"];
const state = Object.fromEntries(FIELDS.map((name) => [name, ""]));
const list = document.getElementById("list");
let shown = []; // the samples that fit, in order
let asked = 0; // how many questions have been asked: an answer to an older one is dropped
let opened = 0;

function fromFragment() {
  const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  for (const name of FIELDS) state[name] = given.get(name) ?? "";
  const form = document.getElementById("controls");
  for (const name of FIELDS) if (form.elements[name]) form.elements[name].value = state[name];
}

function toFragment() {
  const filled = FIELDS.filter((name) => state[name]).map((name) => [name, state[name]]);
  // Replaced and not added: the way back leads to the page before and not through every letter of a search.
  history.replaceState(null, "", "#" + (filled.length ? new URLSearchParams(filled) : "samples"));
}

function row(s, i) {
  const made = element("div", "row");
  made.id = `row-${i}`;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(s.key === state.at));
  made.setAttribute("aria-posinset", i + 1);
  made.setAttribute("aria-setsize", shown.length);
  made.style.top = `${i * HEIGHT}px`;
  made.append(addText(element("div", "meta"), `${headOf(s)} · ${pageNames.runs[s.run]}`));
  const excerpt = element("div", "excerpt");
  addText(excerpt.appendChild(element("span", "says")), store.prompts[s.p].slice(-60) + " ");
  let room = 220;
  for (const [author, , text] of s.parts) {
    if (room > 0 && text) addText(excerpt.appendChild(element("span", `t a-${author}`)), text.slice(0, room));
    room -= text.length;
  }
  made.append(excerpt);
  return made;
}

function drawRows() {
  const rows = document.getElementById("rows");
  const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 5);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 5);
  rows.style.height = `${shown.length * HEIGHT}px`;
  rows.replaceChildren(...shown.slice(first, last).map((s, i) => row(s, first + i)));
  const active = shown.findIndex((s) => s.key === state.at);
  if (active >= first && active < last) list.setAttribute("aria-activedescendant", `row-${active}`);
  else list.removeAttribute("aria-activedescendant");
}

async function ask() {
  const mine = ++asked;
  const found = await query({ ...state }, () => mine !== asked);
  if (found === null || mine !== asked) return;
  shown = found;
  document.getElementById("count").textContent = `${shown.length.toLocaleString("en")} of ${store.samples.length.toLocaleString("en")} samples`;
  const active = shown.findIndex((s) => s.key === state.at);
  list.scrollTop = active < 0 ? 0 : Math.max(0, active * HEIGHT - list.clientHeight / 2);
  drawRows();
}

async function openSample() {
  const mine = ++opened, detail = document.getElementById("detail"), s = store.byKey.get(state.at);
  if (!s) {
    detail.replaceChildren(element("p", "says", state.at ? "The sample of this link is not on this page." : "Choose a sample."));
    return;
  }
  const every = state.view === "prompt" ? samePrompt(s) : groupOf(s);
  const from = Math.max(0, Math.min(every.indexOf(s) - MOST_CARDS / 2, every.length - MOST_CARDS));
  const side = every.slice(from, from + MOST_CARDS);
  if (!(await inSlices(side, whole, () => mine !== opened))) return;
  const name = state.colour, scale = name ? scaleOf(side, name) : 1;
  const copy = element("button", "", "Copy a link to this view");
  copy.type = "button";
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "The address bar holds the link";
    }
  });
  const prompt = addText(element("div", "prompt-text"), store.prompts[s.p]);
  prompt.tabIndex = 0;
  prompt.setAttribute("role", "group");
  prompt.setAttribute("aria-label", "Prompt");
  const parts = [addText(element("h3"), `${headOf(s)}, ${pageNames.runs[s.run]}`), copy, element("p", "says", "Prompt"), prompt];
  if (s.reference) {
    const reference = element("details");
    reference.append(element("summary", "", "Reference"), addText(element("div", "prompt-text"), s.reference));
    parts.push(reference);
  }
  if (name && !side.some((one) => one[name])) parts.push(element("p", "note", `These samples have no ${NUMBERS[name]} of each token.`));
  if (every.length > side.length) parts.push(element("p", "note", `${side.length} of ${every.length} texts, around the chosen one.`));
  const cards = element("div", "cards");
  detail.replaceChildren(...parts, keyTo(name, scale, side), cards);
  const ordered = state.view === "prompt" ? side : [s, ...side.filter((one) => one !== s)];
  await inSlices(ordered, (one) => cards.append(card(one, name, scale, one === s)), () => mine !== opened);
}

function choose(i) {
  if (i < 0 || i >= shown.length) return;
  state.at = shown[i].key;
  const top = i * HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
  toFragment();
  drawRows();
  openSample();
}

function listen() {
  const form = document.getElementById("controls");
  let waiting = 0;
  list.addEventListener("scroll", () => {
    // At most once a frame, however many events a fast wheel sends.
    waiting ||= requestAnimationFrame(() => { waiting = 0; drawRows(); });
  }, { passive: true });
  list.addEventListener("click", (event) => {
    // By the place and not by the row under it, which may have been built anew since the button went down.
    choose(Math.floor((event.clientY - list.getBoundingClientRect().top - list.clientTop + list.scrollTop) / HEIGHT));
  });
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / HEIGHT) - 1), active = shown.findIndex((s) => s.key === state.at);
    const to = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(Math.min(Math.max(to, 0), shown.length - 1));
  });
  const changed = () => {
    for (const name of FIELDS) if (form.elements[name]) state[name] = form.elements[name].value;
    toFragment();
    ask();
    openSample();
  };
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(changed)); // once the fields are empty
  addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return;
    fromFragment();
    ask();
    openSample();
  });
}

async function startBrowser() {
  const toSample = location.hash.includes("=");
  await readSamples(() => {
    document.getElementById("count").textContent = `Reading the samples … ${store.samples.length.toLocaleString("en")}`;
  });
  fromFragment();
  listen();
  await ask();
  await openSample();
  document.body.dataset.ready = "yes";
  if (toSample) document.getElementById("samples").scrollIntoView();
}
if (list) startBrowser();
else document.body.dataset.ready = "yes";
