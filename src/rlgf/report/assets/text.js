"use strict";
// Text from a model reaches the page through here alone: as text nodes, with what would steer it shown in escapes.

// Control characters but line ends and tabs, direction overrides and isolates, characters without width, fillers,
// halves of pairs and tags. What joins letters and emojis (U+200C, U+200D) stays: without it they fall apart.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\udb40[\udc00-\udfff]/g;

function escaped(found) {
  return [...found].map((c) => {
    const code = c.codePointAt(0);
    return code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0");
  }).join("");
}

function addText(parent, text) {
  let start = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > start) parent.append(text.slice(start, match.index));
    parent.append(element("span", "escaped", escaped(match[0])));
    start = match.index + match[0].length;
  }
  if (start < text.length) parent.append(text.slice(start));
  return parent;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

// Work in slices, with a pause between them in which the browser draws and reacts. The clock is one for all work:
// what is done in many short steps, one right after the other, is a long task as well.
let sliceEnds = 0;

async function breath() {
  if (performance.now() < sliceEnds) return;
  await new Promise((resolve) => setTimeout(resolve));
  sliceEnds = performance.now() + 8;
}

async function inSlices(items, work, isOver = () => false) {
  for (let i = 0; i < items.length; i++) {
    if (performance.now() > sliceEnds) {
      await breath();
      if (isOver()) return false;
    }
    work(items[i], i);
  }
  return true;
}

// The lines of a gzip stream that stands in the page in blocks of base64.
async function* linesOf(name) {
  const blocks = [...document.querySelectorAll(`script.${name}`)];
  const bytes = new ReadableStream({
    async pull(controller) {
      await breath();
      const block = blocks.shift();
      if (!block) return controller.close();
      controller.enqueue(Uint8Array.from(atob(block.textContent), (c) => c.charCodeAt(0)));
      block.remove(); // what has been read is not needed twice
    },
  });
  const reader = bytes.pipeThrough(new DecompressionStream("gzip")).pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    if (lines[0] !== "" || lines.length > 1) yield lines;
    if (done) return;
  }
}
