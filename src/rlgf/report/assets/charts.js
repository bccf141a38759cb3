"use strict";
// Curves and frontiers, drawn by uPlot where they come into view.

const pageNames = JSON.parse(document.getElementById("names").textContent); // of groups and of runs
const chartLines = readCharts(); // one line of JSON for each figure, parsed when it is drawn
const hiddenGroups = new Set();
const drawn = new Map(); // figure -> its uPlot
// A second sign beside the colour.
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

async function readCharts() {
  const found = [];
  if (!document.querySelector("script.charts")) return found;
  for await (const lines of linesOf("charts")) found.push(...lines);
  return found;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function strokeOf(group) {
  return { stroke: colour(`--g${group % 8}`), dash: DASHES[(group + Math.floor(group / 8)) % DASHES.length] };
}

function axes(xLabel) {
  const common = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 0.5 }, ticks: { stroke: colour("--line") }, font: "12px system-ui" };
  return [{ ...common, label: xLabel, labelFont: "12px system-ui", labelSize: 18, size: 34 }, { ...common, size: 56, values: (u, ticks) => ticks.map(short) }];
}

function curveOptions(chart) {
  // uPlot wants one column of x for all; where a run has no value there is none.
  const xs = [...new Set(chart.curves.flatMap((c) => c.lines.flatMap((l) => l.x)))].sort((a, b) => a - b);
  const place = new Map(xs.map((x, i) => [x, i]));
  const spread = (x, y) => {
    const column = new Array(xs.length).fill(null);
    x.forEach((value, i) => (column[place.get(value)] = y[i]));
    return column;
  };
  const data = [xs], series = [{ label: "update" }], bands = [], readout = [];
  for (const curve of chart.curves) {
    if (hiddenGroups.has(curve.group)) continue;
    const { stroke, dash } = strokeOf(curve.group);
    const several = curve.mean !== undefined;
    for (const line of curve.lines) {
      if (!several) readout.push([line.label, data.length]);
      data.push(spread(line.x, line.y));
      series.push({ label: line.label, stroke, dash: several ? [] : dash, width: several ? 0.6 : 2, spanGaps: true, points: { show: xs.length < 30 && !several, size: 5 } });
    }
    if (!several) continue;
    const first = data.length;
    for (const [key, width] of [["high", 0], ["low", 0], ["mean", 2]]) {
      data.push(spread(curve.x, curve[key]));
      // Over few seeds an interval is so wide that an axis for all of it would leave the curves flat: it is cut off.
      series.push({ auto: width > 0, label: key, stroke: width ? stroke : "transparent", dash, width, spanGaps: width > 0, points: { show: false } });
    }
    bands.push({ series: [first, first + 1], fill: stroke + "2e" });
    readout.push([pageNames.groups[curve.group], first + 2]);
  }
  const draw = (u) => {
    const i = u.cursor.idx;
    u.readout.textContent = i === null || i === undefined ? "" : `update ${xs[i]}: ` + readout.map(([name, s]) => `${name} ${short(u.data[s][i])}`).join(" · ");
  };
  return { data, options: { series, bands, scales: { x: { time: false } }, axes: axes("update"), hooks: { setCursor: [draw] } } };
}

function bounds(values) {
  const low = Math.min(...values), high = Math.max(...values), room = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - room, high + room];
}

function frontierOptions(chart) {
  const paths = chart.paths.filter((path) => !hiddenGroups.has(path.group));
  const all = chart.paths.flatMap((p) => p.x), ally = chart.paths.flatMap((p) => p.y);
  // A run may go back in KL, so the line follows the updates and not the axis.
  const trace = (path) => (u, s) => {
    const ctx = u.ctx, ratio = devicePixelRatio, { stroke, dash } = strokeOf(path.group);
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = stroke;
    ctx.lineWidth = 1.5 * ratio;
    ctx.setLineDash(dash.map((d) => d * ratio));
    ctx.beginPath();
    const points = path.x.map((x, i) => [u.valToPos(x, "x", true), u.valToPos(path.y[i], "y", true)]);
    points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
    ctx.stroke();
    ctx.setLineDash([]);
    points.forEach(([x, y], i) => {
      ctx.beginPath();
      ctx.arc(x, y, (i === points.length - 1 ? 5 : 2.2) * ratio, 0, 2 * Math.PI);
      ctx.fill();
    });
    ctx.restore();
    return null;
  };
  return {
    data: [null, ...paths.map((p) => [p.x, p.y])],
    options: {
      mode: 2,
      series: [{}, ...paths.map((p) => ({ label: p.label, stroke: strokeOf(p.group).stroke, facets: [{ scale: "x", auto: false }, { scale: "y", auto: false }], paths: trace(p) }))],
      scales: { x: { time: false, range: bounds(all) }, y: { range: bounds(ally) } },
      axes: axes("KL, nats per token"),
      cursor: { show: false },
    },
  };
}

async function drawChart(figure) {
  const isFrontier = figure.dataset.frontier !== undefined;
  const chart = JSON.parse((await chartLines)[figure.dataset.line]);
  drawn.get(figure)?.destroy();
  let holder = figure.querySelector(".plot");
  if (!holder) {
    holder = element("div", "plot");
    const readout = element("div", "readout");
    figure.append(holder, readout, tableOf(chart, isFrontier));
  }
  holder.setAttribute("role", "img");
  holder.setAttribute("aria-label", summaryOf(chart, isFrontier));
  const { data, options } = isFrontier ? frontierOptions(chart) : curveOptions(chart);
  const plot = new uPlot({ width: holder.clientWidth || 300, height: 210, legend: { show: false }, padding: [10, 8, 0, 0], ...options }, data, (u, init) => {
    u.readout = figure.querySelector(".readout");
    holder.append(u.root);
    init();
  });
  drawn.set(figure, plot);
}

function summaryOf(chart, isFrontier) {
  const ends = (name, y) => `${name} from ${short(y[0])} to ${short(y[y.length - 1])}`;
  const parts = isFrontier
    ? chart.paths.map((p) => ends(p.label, p.y) + ` at KL ${short(p.x[p.x.length - 1])}`)
    : chart.curves.map((c) => ends(pageNames.groups[c.group], c.mean ?? c.lines[0].y));
  return `${chart.title}: ${parts.join("; ")}`;
}

// The numbers of a chart for whoever cannot see it, made when they are asked for.
function tableOf(chart, isFrontier) {
  const details = element("details");
  details.append(element("summary", "", "Numbers"));
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    const table = element("table"), head = element("tr");
    for (const name of isFrontier ? ["run", "update", "KL", chart.metric] : ["run", "update", "value"]) {
      const cell = element("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    table.append(head);
    const add = (...cells) => {
      const row = element("tr");
      cells.forEach((cell) => row.append(addText(element("td"), String(cell))));
      table.append(row);
    };
    if (isFrontier) chart.paths.forEach((p) => p.x.forEach((x, i) => add(p.label, p.updates[i], short(x), short(p.y[i]))));
    else chart.curves.forEach((c) => c.lines.forEach((l) => l.x.forEach((x, i) => add(l.label, x, short(l.y[i])))));
    details.append(table);
  });
  return details;
}

function startCharts() {
  const waiting = new IntersectionObserver((entries) => {
    // One a task: a page of fifty charts must not stop the scrolling that brings them into view.
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      waiting.unobserve(entry.target);
      setTimeout(drawChart, 0, entry.target);
    }
  }, { rootMargin: "200px" });
  const figures = document.querySelectorAll(".chart");
  figures.forEach((figure) => waiting.observe(figure));
  const again = () => [...drawn.keys()].forEach((figure) => setTimeout(drawChart, 0, figure));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  new ResizeObserver(() => {
    for (const [figure, plot] of drawn) {
      const width = figure.querySelector(".plot").clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: 210 });
    }
  }).observe(document.body);
  document.querySelectorAll("#legend button").forEach((button) => {
    button.addEventListener("click", () => {
      const group = Number(button.dataset.group), hide = !hiddenGroups.has(group);
      hide ? hiddenGroups.add(group) : hiddenGroups.delete(group);
      button.setAttribute("aria-pressed", String(!hide));
      again();
    });
  });
}
startCharts();
