// SPDX-License-Identifier: Apache-2.0
"use strict";

const $ = (id) => document.getElementById(id);
const token = location.hash.slice(1);
const DRAG = 4; // pixels of the screen from which on a click is a box
const COLORS = { inside: "#57e389", outside: "#ff6b6b" };

let set = { images: [], structures: [], values: [], first: 0 };
let open = null; // the image that is open: place, slices, rows, columns, and what the server told last
let slice = 0, structure = 1, labels = null;
let view = { scale: 1, x: 0, y: 0 };
let drag = null, warned = false, since = 0;
let given = []; // what was clicked and drawn, to be shown: {slice, structure, kind, at}
let queue = Promise.resolve();

/** Ask the server; what it refuses is shown. */
async function ask(path, body) {
  const options = { headers: { Authorization: `Bearer ${token}` } };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) }).headers["Content-Type"] = "application/json";
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `The server answers ${answer.status}.`);
  return answer;
}

/** Do one thing after the other, and tell what went wrong. */
function next(work) {
  queue = queue.then(async () => {
    $("stage").classList.add("busy");
    try { await work(); } catch (error) {
      tell(error instanceof TypeError ? "The server does not answer: is pyraseg click still running?" : error.message, true);
    }
    $("stage").classList.remove("busy");
  });
  return queue;
}

function tell(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

/** Show how far the set and the open image are. */
function report() {
  const done = set.images.filter((image) => image.done);
  const timed = done.filter((image) => image.seconds > 0);
  $("progress").textContent = `${done.length} of ${set.images.length} labeled`;
  $("bar").max = set.images.length;
  $("bar").value = done.length;
  $("mean").textContent = timed.length ? `${(timed.reduce((sum, image) => sum + image.seconds, 0) / timed.length).toFixed(1)} s` : "–";
  $("clicks").textContent = open ? `${open.clicks}${open.boxes ? `, ${open.boxes} box${open.boxes > 1 ? "es" : ""}` : ""}` : "0";
  $("undo").disabled = !given.length;
  $("save").disabled = !open;
  $("previous").disabled = !open || open.place === 0;
  $("next").disabled = !open || open.place === set.images.length - 1;
  $("images").replaceChildren(...set.images.map((image, place) => {
    const item = document.createElement("li"), button = document.createElement("button");
    for (const text of [image.done ? "✓" : "·", image.name, image.uncertainty.toFixed(3)]) {
      const part = document.createElement("span");
      part.textContent = text;
      button.append(part);
    }
    button.title = `${image.name}: uncertainty ${image.uncertainty.toFixed(3)} bits a pixel`;
    button.setAttribute("aria-label", `${image.name}, ${image.done ? "labeled" : "not labeled"}`);
    if (open && open.place === place) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => visit(place));
    item.append(button);
    return item;
  }));
}

function learn(told) {
  Object.assign(open, told);
  since = performance.now();
  set.images[told.place] = told.image;
  document.body.dataset.saved = told.saved;
}

/** Open an image; one whose corrections are not saved is left at the second attempt. */
function visit(place) {
  if (place < 0 || place >= set.images.length) return;
  if (open && !open.saved && given.length && !warned) {
    warned = true;
    tell("The corrections are not saved. Press S to save them, or go on again to leave them.", true);
    return;
  }
  return next(async () => {
    tell(`Opening ${set.images[place].name} …`);
    const told = await (await ask("/api/open", { image: place })).json();
    open = {};
    learn(told);
    given = [];
    warned = false;
    slice = told.start;
    $("name").textContent = told.image.name;
    $("depth").hidden = told.slices === 1;
    $("slice").max = told.slices;
    for (const id of ["picture", "mask"]) Object.assign($(id), { width: told.columns, height: told.rows });
    fit();
    await show();
    report();
    document.querySelector("#images [aria-current]")?.scrollIntoView({ block: "nearest" });
    $("answer").textContent = "–";
    tell(told.image.done ? "This image has a label. What is saved now takes its place." : "Click what is missing, right-click what is too much, then save.");
  });
}

/** Load the picture and the labels of the slice. */
async function show({ picture = true } = {}) {
  $("slice").value = slice + 1;
  $("number").textContent = `${slice + 1} of ${open.slices}`;
  const wanted = [ask(`/api/labels?slice=${slice}`)];
  if (picture) wanted.push(ask(`/api/image?slice=${slice}`));
  const [values, shown] = await Promise.all(wanted);
  labels = new Uint8Array(await values.arrayBuffer());
  if (picture) {
    const bitmap = await createImageBitmap(await shown.blob());
    $("picture").getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  }
  paint();
}

/** Paint the labels: outlines, and what is inside of them lightly. */
function paint() {
  const { rows, columns } = open, canvas = $("mask").getContext("2d");
  const width = Math.max(1, Math.round(1 / view.scale)); // of an outline, in pixels of the image
  const picture = canvas.createImageData(columns, rows), out = new Uint32Array(picture.data.buffer);
  const inside = [], edge = [];
  set.structures.forEach(({ color: [r, g, b] }, number) => {
    inside[number] = (72 << 24 | b << 16 | g << 8 | r) >>> 0;
    edge[number] = (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  });
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, at++) {
      const value = labels[at];
      if (!value) continue;
      const border = column < width || column >= columns - width || row < width || row >= rows - width
        || labels[at - width] !== value || labels[at + width] !== value
        || labels[at - width * columns] !== value || labels[at + width * columns] !== value;
      const number = set.values[value];
      out[at] = border ? edge[number] : inside[number];
    }
  }
  canvas.putImageData(picture, 0, 0);
  mark();
}

/** Draw what was clicked on this slice, as large at every zoom. */
function mark(box = null) {
  const stage = $("stage").getBoundingClientRect(), canvas = $("marks"), dots = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: stage.width * dots, height: stage.height * dots });
  Object.assign(canvas.style, { width: `${stage.width}px`, height: `${stage.height}px`, transformOrigin: "0 0",
    transform: `scale(${1 / view.scale}) translate(${-view.x}px, ${-view.y}px)` });
  const pen = canvas.getContext("2d");
  pen.scale(dots, dots);
  const on = (column, row) => [view.x + (column + 0.5) * view.scale, view.y + (row + 0.5) * view.scale];
  const here = given.filter((one) => one.slice === slice);
  for (const { kind, at } of box ? [...here, { kind: "box", at: box }] : here) {
    pen.lineWidth = 2;
    if (kind === "box") {
      const [left, top] = on(at[0], at[1]), [right, bottom] = on(at[2], at[3]);
      pen.strokeStyle = "#ffffff";
      pen.setLineDash([6, 4]);
      pen.strokeRect(left, top, right - left, bottom - top);
      pen.setLineDash([]);
    } else {
      const [x, y] = on(...at);
      pen.beginPath();
      pen.arc(x, y, 5, 0, 2 * Math.PI);
      pen.fillStyle = COLORS[kind];
      pen.strokeStyle = "#000000";
      pen.fill();
      pen.stroke();
    }
  }
}

/** Show the whole image. */
function fit() {
  const stage = $("stage").getBoundingClientRect();
  const scale = Math.min(stage.width / open.columns, stage.height / open.rows) * 0.98;
  view = { scale, x: (stage.width - open.columns * scale) / 2, y: (stage.height - open.rows * scale) / 2 };
  place();
}

function place() {
  $("sheet").classList.toggle("enlarged", view.scale > 2);
  $("sheet").style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  mark();
}

/** Return the pixel (column, row) under the pointer, with a share of it. */
function pixel(event) {
  const stage = $("stage").getBoundingClientRect();
  return [(event.clientX - stage.left - view.x) / view.scale - 0.5, (event.clientY - stage.top - view.y) / view.scale - 0.5];
}

const within = ([column, row]) => column >= -0.5 && row >= -0.5 && column < open.columns - 0.5 && row < open.rows - 0.5;
const held = ([column, row]) => [Math.min(Math.max(column, 0), open.columns - 1), Math.min(Math.max(row, 0), open.rows - 1)];

/** Correct the image by a click or a box. */
function correct(kind, at) {
  const where = { slice, structure, spread: $("spread").checked };
  const said = kind === "box" ? { box: at } : { column: at[0], row: at[1], inside: kind === "inside" };
  return next(async () => {
    const began = performance.now();
    const told = await (await ask("/api/refine", { ...where, ...said })).json();
    given.push({ slice: where.slice, structure: where.structure, kind, at });
    learn(told);
    warned = false;
    if (told.changed.includes(slice)) await show({ picture: false }); else mark();
    const slices = told.changed.length > 1 ? `, ${told.changed.length} slices` : "";
    $("answer").textContent = `${Math.round(performance.now() - began)} ms${slices}`;
    tell(`${kind === "box" ? "Box" : kind === "inside" ? "Inside" : "Outside"}: ${set.structures[where.structure].name}.`);
    report();
  });
}

function undo() {
  return next(async () => {
    if (!given.length) return;
    const told = await (await ask("/api/undo", {})).json();
    given.pop();
    learn(told);
    if (told.changed.includes(slice)) await show({ picture: false }); else mark();
    tell("Taken back.");
    report();
  });
}

function save() {
  return next(async () => {
    const told = await (await ask("/api/save", {})).json();
    learn(told);
    warned = false;
    const left = set.images.filter((image) => !image.done).length;
    tell(`Saved as ${told.file}. ${left ? `${left} to go: N is the next.` : "All images are labeled."}`);
    report();
  });
}

function turn(to) {
  if (!open || to < 0 || to >= open.slices || to === slice) return;
  slice = to;
  return next(() => show());
}

function choose(number) {
  if (number < 1 || number >= set.structures.length) return;
  structure = number;
  document.querySelector(`#structures input[value="${number}"]`).checked = true;
}

$("stage").addEventListener("pointerdown", (event) => {
  if (!open || event.button > 2) return;
  $("stage").focus();
  $("stage").setPointerCapture(event.pointerId);
  const move = event.shiftKey || event.button === 1;
  drag = { from: pixel(event), x: event.clientX, y: event.clientY, move, outside: event.button === 2 || event.altKey, view: { ...view } };
  event.preventDefault();
});
$("stage").addEventListener("pointermove", (event) => {
  if (!drag) return;
  const [across, down] = [event.clientX - drag.x, event.clientY - drag.y];
  if (drag.move) {
    Object.assign(view, { x: drag.view.x + across, y: drag.view.y + down });
    place();
  } else if (!drag.outside && Math.hypot(across, down) > DRAG) {
    mark([...held(drag.from), ...held(pixel(event))]);
  }
});
$("stage").addEventListener("pointerup", (event) => {
  if (!drag) return;
  const { from, x, y, move, outside } = drag;
  drag = null;
  if (move) return;
  if (!outside && Math.hypot(event.clientX - x, event.clientY - y) > DRAG) {
    correct("box", [...held(from), ...held(pixel(event))]);
  } else if (within(from)) {
    correct(outside ? "outside" : "inside", from.map((part) => Math.round(part * 100) / 100));
  }
});
$("stage").addEventListener("pointercancel", () => { drag = null; mark(); });
$("stage").addEventListener("contextmenu", (event) => event.preventDefault());
$("stage").addEventListener("wheel", (event) => {
  if (!open) return;
  event.preventDefault();
  const stage = $("stage").getBoundingClientRect(), factor = Math.exp(-event.deltaY / 400);
  const [x, y] = [event.clientX - stage.left, event.clientY - stage.top];
  const scale = Math.min(Math.max(view.scale * factor, 0.02), 60);
  view = { scale, x: x - (x - view.x) * scale / view.scale, y: y - (y - view.y) * scale / view.scale };
  place();
}, { passive: false });
window.addEventListener("resize", () => open && fit());
window.addEventListener("beforeunload", (event) => { if (open && !open.saved && given.length) event.preventDefault(); });

const KEYS = {
  z: undo, s: save, n: () => visit(open.place + 1), p: () => visit(open.place - 1), m: () => $("shown").click(), 0: fit,
  arrowup: () => turn(slice + 1), arrowdown: () => turn(slice - 1), arrowright: () => turn(slice + 1), arrowleft: () => turn(slice - 1),
};
window.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase(), control = event.ctrlKey || event.metaKey;
  if (!open || event.altKey || (control && key !== "z" && key !== "s")) return;
  if (event.target.type === "range" && key.startsWith("arrow")) return;
  if (/^[1-9]$/.test(key)) choose(Number(key));
  else if (KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault();
});
$("undo").addEventListener("click", undo);
$("save").addEventListener("click", save);
$("previous").addEventListener("click", () => visit(open.place - 1));
$("next").addEventListener("click", () => visit(open.place + 1));
$("slice").addEventListener("input", () => turn(Number($("slice").value) - 1));
$("shown").addEventListener("change", () => { $("mask").hidden = !$("shown").checked; });
setInterval(() => {
  if (open) $("seconds").textContent = `${Math.round(open.image.seconds + (document.hidden ? 0 : Math.min(60, (performance.now() - since) / 1000)))} s`;
}, 500);

next(async () => {
  if (!token) throw new Error("Open the address that pyraseg click has printed, with its token behind #.");
  set = await (await ask("/api/state")).json();
  $("model").textContent = set.model;
  set.structures.slice(1).forEach(({ name, color }, index) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "structure", value: index + 1, checked: index === 0 });
    input.addEventListener("change", () => choose(index + 1));
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${color})`;
    const key = document.createElement("kbd");
    key.textContent = index + 1;
    label.append(input, swatch, name, key);
    $("structures").append(label);
  });
  visit(set.first);
});
