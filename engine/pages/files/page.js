"use strict";
/* The page of landmarks. data/summary.js and data/NNNN.js call setSummary and addRecords.

N images, A points. Numbers of all images are in typed arrays, NaN where there is none; the document
holds only the cells in sight. Names come from files: they are only ever set as text. */

const BARS = 20;
const GAP = 12, PADDING = 16, CAPTION = 46; // pixels of the grid
const OVERSCAN = 2; // rows above and below those in sight
const FAST = 150, SETTLED = 80; // pixels from frame to frame, and milliseconds after the last
const AT_ONCE = 4; // data files that load together
const NO_IMAGE = 0, TWO_SIZES = 2;
const ALL = -1; // points

const byId = (id) => document.getElementById(id);
const scroller = byId("scroller"), grid = byId("grid");
const enlarged = byId("enlarged"), help = byId("help"), stage = byId("stage");
const collator = new Intl.Collator(undefined, { numeric: true });

let summary = null; // {title, about, points, colours, count, pageSize, folderSize}
let records = null; // columns, see allocate
let shown = new Int32Array(0); // the images that fit the filters, in order
let selected = 0; // a place in shown
let emphasised = ALL; // a point whose row the pointer is on
const filter = { point: ALL, name: "", confidence: [-Infinity, Infinity], error: [-Infinity, Infinity] };

// ---- data ----

/** Return a value that is within a range that a reader typed if it looks so. */
const rounded = (value) => Math.round(1e6 * value) / 1e6;

function setSummary(content) {
  summary = content;
  const n = content.count, a = content.points.length;
  const empty = (length) => new Float64Array(length).fill(NaN);
  records = {
    names: new Array(n), labels: new Array(n),
    images: new Uint8Array(n), frames: new Int32Array(4 * n),
    points: empty(2 * n * a), truth: empty(2 * n * a),
    confidence: empty(n * a), error: empty(n * a),
    // Of the image: means over its points, or those of the point that is chosen.
    meanConfidence: empty(n), meanError: empty(n),
  };
}

function addRecords(page) {
  const a = summary.points.length, first = page.first;
  for (let i = 0; i < page.names.length; i++) {
    records.names[first + i] = page.names[i];
    records.labels[first + i] = page.labels[i];
  }
  records.images.set(page.images, first);
  records.frames.set(page.frames, 4 * first);
  for (const [name, width] of [["points", 2 * a], ["truth", 2 * a], ["confidence", a]]) {
    const column = records[name], values = page[name];
    for (let i = 0; i < values.length; i++) {
      if (values[i] !== null) column[first * width + i] = values[i];
    }
  }
  for (let i = first * a; i < (first + page.names.length) * a; i++) {
    records.error[i] = rounded(Math.hypot(
      records.points[2 * i] - records.truth[2 * i], records.points[2 * i + 1] - records.truth[2 * i + 1]));
  }
}

function loadScript(source) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = source;
    script.onload = () => { script.remove(); resolve(); };
    script.onerror = () => reject(new Error(`${source} is missing`));
    document.head.append(script);
  });
}

async function loadAll() {
  await loadScript("data/summary.js");
  document.title = summary.title;
  byId("title").textContent = summary.title;
  byId("about").textContent = summary.about;
  const pages = Math.ceil(summary.count / summary.pageSize);
  let next = 0, done = 0;
  async function work() {
    while (next < pages) {
      const page = next++;
      await loadScript(`data/${String(page).padStart(4, "0")}.js`);
      done++;
      byId("count").textContent = `loading … ${Math.round((100 * done) / pages)} %`;
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

/** Set each image's confidence and error: its point's, or the mean over all that have one. */
function summarise() {
  const a = summary.points.length;
  for (const [from, to] of [["confidence", "meanConfidence"], ["error", "meanError"]]) {
    const values = records[from], means = records[to];
    for (let n = 0; n < summary.count; n++) {
      if (filter.point !== ALL) { means[n] = values[n * a + filter.point]; continue; }
      let sum = 0, count = 0;
      for (let i = n * a; i < (n + 1) * a; i++) {
        if (values[i] === values[i]) { sum += values[i]; count++; }
      }
      means[n] = count ? rounded(sum / count) : NaN;
    }
  }
}

/** Return whether a value is in a range; one that isn't known is where the range is everything. */
function within(value, [low, high]) {
  return (low === -Infinity && high === Infinity) || (value >= low && value <= high);
}

/** Choose and order the images; keep the selected one selected if it is still there. */
function refresh({ toTop = true } = {}) {
  const kept = shown[selected], needle = filter.name.toLowerCase();
  const { meanConfidence, meanError, names, labels } = records, found = [];
  for (let n = 0; n < summary.count; n++) {
    if (within(meanConfidence[n], filter.confidence) && within(meanError[n], filter.error)
        && (!needle || `${names[n]} ${labels[n]}`.toLowerCase().includes(needle))) found.push(n);
  }
  const order = byId("sort").value, sign = order.startsWith("-") ? -1 : 1;
  if (order === "name") {
    found.sort((p, q) => collator.compare(names[p], names[q]) || p - q);
  } else if (order !== "given") {
    const values = order.endsWith("error") ? meanError : meanConfidence;
    // What isn't known comes last, either way.
    found.sort((p, q) => {
      const x = values[p], y = values[q];
      if (x !== x || y !== y) return (x !== x) - (y !== y) || p - q;
      return sign * (x - y) || p - q;
    });
  }
  shown = Int32Array.from(found);
  selected = toTop ? 0 : Math.max(0, shown.indexOf(kept));
  const total = summary.count.toLocaleString("en"), count = shown.length.toLocaleString("en");
  byId("count").textContent = shown.length === summary.count ? `${total} images` : `${count} of ${total} images`;
  byId("empty").hidden = shown.length > 0;
  drawHistograms();
  fillTable();
  if (toTop) scroller.scrollTop = 0;
  layOut();
}

// ---- points on canvases ----

/** Draw an image's points on a canvas that lies over it, `width` x `height` on the screen. */
function drawPoints(canvas, n, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const across = Math.max(1, Math.round(width * ratio)), down = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== across || canvas.height !== down) { canvas.width = across; canvas.height = down; }
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, across, down);
  context.scale(ratio, ratio);
  const a = summary.points.length;
  const [left, top, columns, rows] = records.frames.subarray(4 * n, 4 * n + 4);
  // The centre of the first pixel is 0: its edge is half a pixel before.
  const place = (values, i) => [
    ((values[2 * i] - left + 0.5) * width) / columns, ((values[2 * i + 1] - top + 0.5) * height) / rows];
  const radius = Math.min(7, Math.max(2, Math.max(width, height) / (a > 20 ? 90 : 62)));
  const predictions = byId("predictions").checked, truth = byId("truth").checked;
  for (let p = 0; p < a; p++) {
    if (filter.point !== ALL && p !== filter.point) continue;
    const i = n * a + p, colour = summary.colours[p], size = p === emphasised ? 2 * radius : radius;
    const [x, y] = place(records.points, i), [u, v] = place(records.truth, i);
    const hasPrediction = predictions && x === x && y === y, hasTruth = truth && u === u && v === v;
    if (hasPrediction && hasTruth) {
      for (const [line, ink] of [[2.5, "rgb(0 0 0 / .55)"], [1, "#fff"]]) {
        context.beginPath();
        context.moveTo(x, y);
        context.lineTo(u, v);
        context.lineWidth = line;
        context.strokeStyle = ink;
        context.stroke();
      }
    }
    if (hasTruth) ring(context, u, v, size * 1.4, colour);
    if (hasPrediction) dot(context, x, y, size, colour);
  }
}

function dot(context, x, y, radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  context.lineWidth = radius < 3 ? 0.75 : 1.25;
  context.strokeStyle = "rgb(0 0 0 / .8)";
  context.stroke();
}

function ring(context, x, y, radius, colour) {
  for (const [line, ink] of [[3.5, "rgb(0 0 0 / .6)"], [2, colour]]) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.lineWidth = line;
    context.strokeStyle = ink;
    context.stroke();
  }
}

// ---- the grid ----

const cells = new Map(); // place in shown to its cell
const spare = []; // cells out of sight
let pending = false, lastTop = 0, settling = 0;

function measure() {
  const tile = Number(byId("size").value), room = scroller.clientWidth - 2 * PADDING;
  const columns = Math.max(1, Math.floor((room + GAP) / (tile + GAP)));
  const side = Math.floor((room - GAP * (columns - 1)) / columns); // the tiles share what is left
  const pitch = side + CAPTION + GAP;
  const rows = Math.ceil(shown.length / columns);
  return { columns, side, pitch, rows, page: Math.max(1, Math.floor(scroller.clientHeight / pitch)) };
}

/** Show all cells anew: what is shown, or how large, has changed. */
function layOut() {
  for (const place of cells.keys()) putAway(place);
  const { rows, pitch } = measure();
  grid.style.height = `${Math.max(0, rows * pitch - GAP) + 2 * PADDING}px`;
  render();
}

/** Put cells where images are in sight, and take those away that aren't any more. */
function render() {
  pending = false;
  const { columns, side, pitch } = measure();
  const from = Math.max(0, Math.floor((scroller.scrollTop - PADDING) / pitch) - OVERSCAN) * columns;
  const seen = (Math.ceil(scroller.clientHeight / pitch) + 1 + 2 * OVERSCAN) * columns;
  const to = Math.min(shown.length, from + seen);
  for (const place of cells.keys()) {
    if (place < from || place >= to) putAway(place);
  }
  for (let place = from; place < to; place++) {
    if (!cells.has(place)) fillCell(place, spare.pop() || makeCell(), side, pitch, columns);
  }
  // Images that fly past aren't loaded: points and names alone keep the page smooth.
  const isFast = Math.abs(scroller.scrollTop - lastTop) > FAST;
  lastTop = scroller.scrollTop;
  clearTimeout(settling);
  if (isFast) settling = setTimeout(showPictures, SETTLED);
  else showPictures();
  mark();
}

/** Give the cells in sight their images. */
function showPictures() {
  for (const [place, cell] of cells) {
    const { frame, canvas, image } = cell.parts;
    if (image) continue;
    const { width, height } = canvas.style, n = shown[place];
    cell.parts.image = picture(n, width, height, false);
    frame.prepend(cell.parts.image);
  }
}

function putAway(place) {
  const cell = cells.get(place);
  cells.delete(place);
  cell.hidden = true;
  cell.removeAttribute("id");
  cell.setAttribute("aria-selected", false);
  spare.push(cell);
}

function scheduleRender() {
  if (!pending) { pending = true; requestAnimationFrame(render); }
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function makeCell() {
  const cell = element("div", "cell");
  cell.setAttribute("role", "option");
  cell.parts = {
    frame: element("div", "frame"), canvas: element("canvas"),
    name: element("bdi"), meter: element("i"), confidence: element("span"), error: element("span", "error"),
  };
  const { frame, name, meter, confidence, error } = cell.parts;
  const values = element("span", "values",
    element("span", "confidence", element("span", "meter", meter), confidence), error);
  cell.append(frame, element("div", "caption", element("span", "name", name), values));
  grid.append(cell);
  return cell;
}

function fillCell(place, cell, side, pitch, columns) {
  const n = shown[place], { frame, canvas, name, meter, confidence, error } = cell.parts;
  const row = Math.floor(place / columns), column = place % columns;
  cell.place = place;
  cell.id = `image-${place}`;
  cell.setAttribute("aria-posinset", place + 1);
  cell.setAttribute("aria-setsize", shown.length);
  cell.style.width = `${side}px`;
  cell.style.height = `${side + CAPTION}px`;
  cell.style.transform = `translate(${PADDING + column * (side + GAP)}px, ${PADDING + row * pitch}px)`;
  frame.style.height = `${side}px`;
  const [width, height] = fit(n, side, side);
  frame.replaceChildren(canvas);
  cell.parts.image = null; // see showPictures
  drawPoints(canvas, n, width, height);
  name.textContent = records.names[n];
  cell.title = records.labels[n] ? `${records.names[n]}\n${records.labels[n]}` : records.names[n];
  const sure = records.meanConfidence[n];
  meter.style.width = sure === sure ? `${100 * Math.min(1, Math.max(0, sure))}%` : "0";
  confidence.textContent = number(sure, 2);
  error.textContent = `${number(records.meanError[n], 1)} px`;
  cell.setAttribute("aria-label", describe(n));
  cell.hidden = false;
  cells.set(place, cell);
}

/** Return an image's width and height on the screen, as large as fits. */
function fit(n, width, height) {
  const columns = records.frames[4 * n + 2], rows = records.frames[4 * n + 3];
  const scale = Math.min(width / columns, height / rows);
  return [Math.max(1, columns * scale), Math.max(1, rows * scale)];
}

function picture(n, width, height, large) {
  if (records.images[n] === NO_IMAGE) return element("span", "unreadable", "image can't be read");
  // A new element: one that is used again would show the last image until the next has loaded.
  const image = new Image();
  image.decoding = "async";
  image.loading = large ? "eager" : "lazy";
  image.alt = "";
  Object.assign(image.style, { width, height });
  const folder = String(Math.floor(n / summary.folderSize)).padStart(3, "0");
  const suffix = large && records.images[n] === TWO_SIZES ? "_large" : "";
  image.src = `images/${folder}/${n}${suffix}.jpg`;
  return image;
}

const number = (value, digits) => (value === value ? value.toFixed(digits) : "–");

function describe(n) {
  const parts = [records.names[n]];
  if (records.meanConfidence[n] >= 0) parts.push(`confidence ${number(records.meanConfidence[n], 2)}`);
  if (records.meanError[n] >= 0) parts.push(`error ${number(records.meanError[n], 1)} pixels`);
  return parts.join(", ");
}

/** Mark the selected cell. */
function mark() {
  for (const [place, cell] of cells) cell.setAttribute("aria-selected", place === selected);
  if (cells.has(selected)) scroller.setAttribute("aria-activedescendant", `image-${selected}`);
  else scroller.removeAttribute("aria-activedescendant");
}

/** Select a place, kept among those there are, and bring it into sight. */
function select(place) {
  if (!shown.length) return;
  selected = Math.min(Math.max(place, 0), shown.length - 1);
  const { columns, pitch } = measure(), top = Math.floor(selected / columns) * pitch + PADDING;
  const bottom = top + pitch - GAP;
  if (top - PADDING < scroller.scrollTop) scroller.scrollTop = top - PADDING;
  else if (bottom + PADDING > scroller.scrollTop + scroller.clientHeight) {
    scroller.scrollTop = bottom + PADDING - scroller.clientHeight;
  }
  render();
  if (enlarged.open) fillEnlarged();
}

/** Draw all points in sight again. */
function redraw() {
  const { side } = measure();
  for (const [place, cell] of cells) {
    drawPoints(cell.parts.canvas, shown[place], ...fit(shown[place], side, side));
  }
  if (enlarged.open) drawEnlarged();
}

// ---- histograms and the table of points ----

/** Return the edges of the error's bars: round numbers; the last one is open. */
function errorEdges() {
  const known = Float64Array.from(records.meanError.filter((value) => value === value)).sort();
  const most = known.length ? known[Math.floor(0.98 * (known.length - 1))] : 1;
  const rough = Math.max(most, 1e-3) / (BARS - 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const edges = Array.from({ length: BARS + 1 }, (_, bar) => Number((bar * step).toPrecision(12)));
  edges[BARS] = Infinity;
  return { edges, known };
}

function drawHistograms() {
  const unit = Array.from({ length: BARS + 1 }, (_, bar) => bar / BARS);
  drawBars("confidence", records.meanConfidence, unit, "");
  const { edges, known } = errorEdges();
  drawBars("error", records.meanError, edges, " pixels");
  if (known.length) {
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    const middle = (known[Math.floor((known.length - 1) / 2)] + known[Math.ceil((known.length - 1) / 2)]) / 2;
    byId("error-figures").textContent = `mean ${mean.toFixed(2)}, median ${middle.toFixed(2)} of the images' means`;
  } else byId("error-figures").textContent = "";
}

function drawBars(name, values, edges, unit) {
  const counts = new Array(BARS).fill(0), step = edges[1] - edges[0];
  for (const value of values) {
    if (value === value) counts[Math.min(BARS - 1, Math.max(0, Math.floor(value / step + 1e-6)))]++;
  }
  const most = Math.max(1, ...counts), [low, high] = filter[name], bars = byId(`${name}-bars`);
  const hadFocus = [...bars.children].indexOf(document.activeElement);
  bars.replaceChildren(...counts.map((count, bar) => {
    const button = element("button"), from = edges[bar], to = edges[bar + 1];
    button.type = "button";
    const range = to === Infinity ? `${from} and more` : `${from} to ${to}`;
    button.title = `${range}${unit}: ${count.toLocaleString("en")} ${count === 1 ? "image" : "images"}`;
    button.setAttribute("aria-label", button.title);
    button.dataset.count = count;
    button.className = to <= low || from >= high ? "outside" : "";
    button.style.setProperty("--share", count ? `max(2px, ${(100 * count) / most}%)` : "0");
    const chosen = low === from && high === to;
    button.setAttribute("aria-pressed", chosen);
    button.onclick = () => setRange(name, chosen ? [-Infinity, Infinity] : [from, to]);
    return button;
  }));
  if (hadFocus >= 0) bars.children[hadFocus].focus();
  const end = edges[BARS] === Infinity ? `${edges[BARS - 1]} +` : edges[BARS];
  byId(`${name}-axis`).replaceChildren(
    ...[edges[0], edges[BARS / 2], end].map((text) => element("span", "", String(text))));
}

function setRange(name, range) {
  filter[name] = range;
  byId(`${name}-from`).value = Number.isFinite(range[0]) ? range[0] : "";
  byId(`${name}-to`).value = Number.isFinite(range[1]) ? range[1] : "";
  refresh();
}

function fillTable() {
  const a = summary.points.length;
  const sums = { confidence: new Float64Array(a), error: new Float64Array(a) };
  const counts = { confidence: new Int32Array(a), error: new Int32Array(a) };
  for (const n of shown) {
    for (const name in sums) {
      for (let p = 0; p < a; p++) {
        const value = records[name][n * a + p];
        if (value === value) { sums[name][p] += value; counts[name][p]++; }
      }
    }
  }
  const rows = byId("points").tBodies[0].rows;
  for (let p = 0; p < a; p++) {
    rows[p].cells[1].textContent = number(sums.confidence[p] / counts.confidence[p], 2);
    rows[p].cells[2].textContent = number(sums.error[p] / counts.error[p], 1);
    rows[p].classList.toggle("chosen", p === filter.point);
    rows[p].querySelector("button").setAttribute("aria-pressed", p === filter.point);
  }
}

/** Return a row of a table of points: colour and name, and two empty cells. */
function pointRow(p, onclick) {
  const swatch = element("i", "dot");
  swatch.style.background = summary.colours[p];
  const name = element(onclick ? "button" : "span", "", swatch, element("bdi", "", summary.points[p]));
  if (onclick) { name.type = "button"; name.onclick = onclick; }
  const row = element("tr", "", element("td", "", name), element("td", "confidence"), element("td", "error"));
  row.onmouseenter = () => { emphasised = p; redraw(); };
  row.onmouseleave = () => { emphasised = ALL; redraw(); };
  return row;
}

function choosePoint(point) {
  filter.point = point;
  byId("point").value = point;
  summarise();
  refresh({ toTop: !enlarged.open });
  if (enlarged.open) fillEnlarged();
}

// ---- one image, enlarged ----

function openEnlarged() {
  if (!shown.length || enlarged.open) return;
  enlarged.showModal();
  byId("close").focus();
  fillEnlarged();
}

function fillEnlarged() {
  if (!shown.length) { enlarged.close(); return; }
  const n = shown[selected], a = summary.points.length;
  byId("enlarged-name").textContent = records.names[n];
  const [, , columns, rows] = records.frames.subarray(4 * n, 4 * n + 4);
  const about = [`${selected + 1} of ${shown.length}, ${columns} × ${rows} pixels`];
  if (records.labels[n]) about.unshift(records.labels[n]);
  byId("enlarged-about").textContent = about.join("\n");
  const table = byId("enlarged-points").tBodies[0].rows;
  for (let p = 0; p < a; p++) {
    table[p].cells[1].textContent = number(records.confidence[n * a + p], 2);
    table[p].cells[2].textContent = number(records.error[n * a + p], 1);
    table[p].classList.toggle("chosen", p === filter.point);
  }
  byId("previous").disabled = selected === 0;
  byId("next").disabled = selected === shown.length - 1;
  drawEnlarged(true);
}

function drawEnlarged(isNew = false) {
  const n = shown[selected], [width, height] = fit(n, stage.clientWidth - 32, stage.clientHeight - 32);
  const image = stage.firstElementChild, canvas = stage.querySelector("canvas") || element("canvas");
  const style = { width: `${width}px`, height: `${height}px` };
  if (isNew || !image) stage.replaceChildren(picture(n, style.width, style.height, true), canvas);
  else Object.assign(image.style, style);
  drawPoints(canvas, n, width, height);
}

// ---- keys, mouse, controls ----

function toggle(id) {
  byId(id).checked = !byId(id).checked;
  redraw();
}

function stepPoint(by) {
  const a = summary.points.length;
  choosePoint(((filter.point + 1 + by + (a + 1)) % (a + 1)) - 1);
}

function onKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || !records) return;
  const isField = target.matches("select, input:not([type=checkbox])");
  if (isField) {
    if (key === "Escape" || (key === "Enter" && target.matches("input"))) scroller.focus();
    return;
  }
  if (help.open) return;
  const { columns, page } = measure(), isOpen = enlarged.open;
  const row = isOpen ? 1 : columns; // enlarged, up and down go one on, too
  const actions = {
    ArrowLeft: () => select(selected - 1),
    ArrowRight: () => select(selected + 1),
    ArrowUp: () => { if (isOpen || selected >= row) select(selected - row); },
    ArrowDown: () => {
      const lastRow = Math.floor((shown.length - 1) / row);
      if (Math.floor(selected / row) < lastRow) select(selected + row);
    },
    PageUp: () => select(isOpen ? selected - columns : Math.max(selected % columns, selected - page * columns)),
    PageDown: () => select(selected + (isOpen ? columns : page * columns)),
    Home: () => select(0),
    End: () => select(shown.length - 1),
    Enter: target.matches("button, summary") ? null : openEnlarged,
    t: () => toggle("truth"),
    p: () => toggle("predictions"),
    "[": () => stepPoint(-1),
    "]": () => stepPoint(1),
    "?": () => help.showModal(),
    "/": () => { enlarged.close(); byId("search").focus(); },
  };
  const act = Object.hasOwn(actions, key) ? actions[key] : null;
  if (act) { event.preventDefault(); act(); }
}

function connect() {
  const a = summary.points.length, points = byId("point");
  points.append(new Option("all points", ALL), ...summary.points.map((name, p) => new Option(name, p)));
  byId("points").tBodies[0].append(...Array.from({ length: a }, (_, p) =>
    pointRow(p, () => choosePoint(filter.point === p ? ALL : p))));
  byId("enlarged-points").tBodies[0].append(...Array.from({ length: a }, (_, p) => pointRow(p)));
  points.onchange = () => choosePoint(Number(points.value));
  byId("sort").onchange = () => refresh();
  byId("search").oninput = (event) => { filter.name = event.target.value; refresh(); };
  byId("size").oninput = () => layOut();
  for (const id of ["predictions", "truth"]) byId(id).onchange = redraw;
  for (const name of ["confidence", "error"]) {
    const ends = ["from", "to"].map((end) => byId(`${name}-${end}`));
    for (const end of ends) {
      end.onchange = () => setRange(name, ends.map((input, side) =>
        input.value === "" ? (side ? Infinity : -Infinity) : Number(input.value)));
    }
    byId(`${name}-clear`).onclick = () => setRange(name, [-Infinity, Infinity]);
  }
  scroller.addEventListener("scroll", scheduleRender, { passive: true });
  new ResizeObserver(() => layOut()).observe(scroller);
  new ResizeObserver(() => { if (enlarged.open && stage.firstElementChild) drawEnlarged(); }).observe(stage);
  grid.onclick = (event) => {
    const cell = event.target.closest(".cell");
    if (cell) { selected = cell.place; mark(); openEnlarged(); }
  };
  byId("previous").onclick = () => select(selected - 1);
  byId("next").onclick = () => select(selected + 1);
  byId("close").onclick = () => enlarged.close();
  enlarged.onclick = (event) => { if (event.target === enlarged) enlarged.close(); };
  enlarged.onclose = () => { select(selected); scroller.focus(); };
  byId("help-button").onclick = () => help.showModal();
  document.addEventListener("keydown", onKey);
}

function connectTheme() {
  const root = document.documentElement;
  try { root.dataset.theme = localStorage.getItem("theme") || ""; } catch { /* not kept, then */ }
  byId("theme").onclick = () => {
    const isDark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = isDark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept, then */ }
  };
}

async function main() {
  connectTheme();
  try {
    await loadAll();
  } catch (error) {
    byId("count").textContent = `the page is incomplete: ${error.message}`;
    return;
  }
  const known = (column) => records[column].some((value) => value === value);
  const hasConfidence = known("confidence"), hasTruth = known("truth"), hasError = known("error");
  document.body.classList.toggle("without-confidence", !hasConfidence);
  document.body.classList.toggle("without-truth", !hasError);
  byId("confidence-panel").hidden = !hasConfidence;
  byId("error-panel").hidden = !hasError;
  byId("truth-switch").hidden = !hasTruth;
  const sort = byId("sort");
  for (const option of [...sort.options]) {
    if ((!hasConfidence && option.value.endsWith("confidence")) || (!hasError && option.value.endsWith("error"))) option.remove();
  }
  sort.selectedIndex = 0;
  connect();
  summarise();
  refresh();
  scroller.focus();
  document.body.dataset.ready = "true";
}

main();
