// SPDX-License-Identifier: Apache-2.0
"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const BATCH = 10; // rows that are drawn at a time
  const column = Object.fromEntries(data.columns.map((name, place) => [name, place]));
  const headings = Object.fromEntries(Object.entries(data.metrics).map(([key, [heading]]) => [key, heading]));
  const fields = { metric: byId("metric"), sort: byId("sort"), state: byId("state"), limit: byId("limit") };
  const START = data.classes.length > 1 ? "mean" : "class 0";
  let order = { key: START, worstFirst: true };
  let shown = []; // places of the cases that pass the filters, in their order
  let drawn = 0;
  let open = null; // place of the case in the dialog

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const draw = (tag, attributes, ...children) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // --- figures of a case ---

  const state = (scores) => {
    const there = scores[column.truth_voxels] > 0;
    const found = scores[column.predicted_voxels] > 0;
    return there ? (found ? "found" : "missed") : found ? "alarm" : "absent";
  };
  const metric = () => fields.metric.value;
  const moreIsBetter = () => data.metrics[metric()][1];
  const value = (scores) => scores[column[metric()]];
  const meanOf = (numbers) => {
    const known = numbers.filter((one) => one !== null);
    return known.length ? known.reduce((sum, one) => sum + one, 0) / known.length : null;
  };
  const mean = (a) => meanOf(a.scores.map(value));
  const uncertainty = (a) => meanOf(a.scores.map((scores) => scores[column.uncertainty]));
  const text = (number, name = metric()) => {
    if (number === null) return "–";
    if (/_voxels$|lesions/.test(name)) return String(number);
    return number.toFixed(/_(mm|px|ml)$/.test(name) ? 1 : 3);
  };

  // How bad a case is by a column: a distance that nobody can measure, as the class was missed, is the worst.
  const badness = (scores) => {
    if (state(scores) === "absent") return null;
    return value(scores) === null ? Infinity : moreIsBetter() ? -value(scores) : value(scores);
  };
  const badnessOfMean = (a) => {
    const found = mean(a);
    if (found !== null) return moreIsBetter() ? -found : found;
    return a.scores.some((scores) => badness(scores) === Infinity) ? Infinity : null;
  };
  const columns = () => [
    { key: "name", heading: "Case", text: (a) => a.name },
    ...(data.unit === "patients" ? [{ key: "patient", heading: "patient", text: (a) => a.patient }] : []),
    ...(data.classes.length > 1 ? [{ key: "mean", heading: `mean ${headings[metric()]}`, text: (a) => text(mean(a)), badness: badnessOfMean }] : []),
    ...data.classes.map((of, place) => ({
      key: `class ${place}`, heading: of.name, badness: (a) => badness(a.scores[place]),
      text: (a) => text(value(a.scores[place])), state: (a) => state(a.scores[place]),
    })),
    ...(column.uncertainty === undefined ? [] : [{ key: "uncertainty", heading: "uncertainty", text: (a) => text(uncertainty(a), "uncertainty"), badness: uncertainty }]),
    ...data.by.map((name, place) => ({ key: `by ${place}`, heading: name, text: (a) => a.by[place] })),
  ];

  // --- the list ---

  const passes = (a) => {
    if (!a.name.toLowerCase().includes(byId("name").value.trim().toLowerCase())) return false;
    for (const select of document.querySelectorAll("select.by")) {
      if (select.value && a.by[select.dataset.column] !== select.value) return false;
    }
    const chosen = byId("class").value;
    const scores = chosen === "" ? a.scores : [a.scores[chosen]];
    const wanted = fields.state.value;
    const holds = (of) => (wanted === "there" ? ["found", "missed"].includes(state(of)) : state(of) === wanted);
    if (wanted && !scores.some(holds)) return false;
    const limit = fields.limit.valueAsNumber;
    if (Number.isNaN(limit)) return true;
    const bad = chosen === "" ? badnessOfMean(a) : badness(scores[0]);
    return bad !== null && bad > (moreIsBetter() ? -limit : limit);
  };

  const compare = (by) => (one, other) => {
    const [a, b] = [data.cases[one], data.cases[other]];
    if (!by.badness) return by.text(a).localeCompare(by.text(b), undefined, { numeric: true }) * (order.worstFirst ? 1 : -1);
    const [x, y] = [by.badness(a), by.badness(b)];
    if (x === null || y === null) return (x === null) - (y === null); // without a figure: last either way
    return x === y ? one - other : (order.worstFirst ? y - x : x - y);
  };

  const refresh = () => {
    const all = columns();
    const by = all.find((one) => one.key === order.key);
    shown = data.cases.map((_, place) => place).filter((place) => passes(data.cases[place])).sort(compare(by));
    byId("count").textContent = `${shown.length} of ${data.cases.length} cases`;
    const cells = all.map((one) => {
      const smallIsBad = !one.badness || (one.key !== "uncertainty" && moreIsBetter());
      const ascends = smallIsBad === order.worstFirst;
      const button = make("button", { type: "button", textContent: one.heading });
      button.addEventListener("click", () => sortBy(one.key, order.key === one.key ? !order.worstFirst : true, one.key));
      const cell = make("th", { scope: "col" }, button);
      cell.dataset.key = one.key;
      if (one === by) cell.setAttribute("aria-sort", ascends ? "ascending" : "descending");
      return cell;
    });
    byId("list").tHead.rows[0].replaceChildren(...cells);
    fields.sort.replaceChildren(...all.flatMap((one) => {
      const ways = one.badness ? ["worst first", "best first"] : ["A to Z", "Z to A"];
      return ways.map((way, place) => {
        const chosen = one === by && order.worstFirst === (place === 0);
        return make("option", { value: `${1 - place}${one.key}`, textContent: `${one.heading}: ${way}`, selected: chosen });
      });
    }));
    byId("list").tBodies[0].replaceChildren();
    drawn = 0;
    drawRows();
  };

  const sortBy = (key, worstFirst, focused) => {
    order = { key, worstFirst };
    refresh();
    if (focused) document.querySelector(`#list th[data-key="${focused}"] button`).focus();
  };

  const drawRows = () => {
    const all = columns();
    const rows = shown.slice(drawn, drawn + BATCH).map((place) => {
      const of = data.cases[place];
      const button = make("button", { type: "button", className: "open" });
      if (of.views.length) button.append(picture(of.views[of.first], { truth: true, prediction: true }));
      button.append(make("span", { textContent: of.name }));
      button.addEventListener("click", () => show(place));
      const first = make("th", { scope: "row" }, button);
      const others = all.slice(1).map((one) => {
        const cell = make("td", { textContent: one.text(of) });
        cell.dataset.label = one.heading;
        const found = one.state && one.state(of);
        if (found === "missed" || found === "alarm") {
          cell.append(" ", make("span", { className: "bad", textContent: found === "alarm" ? "false alarm" : "missed" }));
        }
        return cell;
      });
      return make("tr", {}, first, ...others);
    });
    byId("list").tBodies[0].append(...rows);
    drawn += rows.length;
    byId("more").hidden = drawn >= shown.length;
  };

  // --- a case ---

  const picture = (view, layers) => {
    const [width, height] = view.size;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const href = `data:image/webp;base64,${view.image}`;
    svg.append(draw("image", { href, width, height, preserveAspectRatio: "none" }));
    for (const kind of ["truth", "prediction"]) {
      if (!layers[kind]) continue;
      for (const [number, path] of Object.entries(view[kind])) {
        if (layers.classes && !layers.classes.has(number)) continue;
        const stroke = data.classes[number - 1].color;
        svg.append(draw("path", { d: path, class: `halo ${kind}` }));
        const outline = draw("path", { d: path, stroke, class: `outline ${kind}` });
        if (layers.classes) outline.append(draw("title", {}, `${data.classes[number - 1].name}, ${kind}`));
        svg.append(outline);
      }
    }
    return svg;
  };

  const drawStage = () => {
    const { views, depth } = data.cases[open];
    const view = views[byId("slice").value];
    const checked = [...document.querySelectorAll(".layer:checked")].map((box) => box.value);
    const layers = { truth: byId("truth").checked, prediction: byId("prediction").checked, classes: new Set(checked) };
    const svg = picture(view, layers);
    svg.setAttribute("role", "img");
    svg.removeAttribute("aria-hidden");
    svg.setAttribute("aria-label", "The image with the outlines of truth and prediction");
    byId("stage").replaceChildren(svg);
    const where = view.slice === null ? "" : `${view.slice} of ${depth}`;
    byId("where").textContent = where;
    byId("slice").setAttribute("aria-valuetext", `slice ${where}`);
  };

  const show = (place) => {
    open = place;
    const of = data.cases[place];
    const at = shown.indexOf(place);
    byId("case-name").textContent = of.name;
    byId("previous").disabled = at < 1;
    byId("next").disabled = at < 0 || at === shown.length - 1;
    byId("layers").hidden = !of.views.length;
    byId("slider").hidden = of.views.length < 2;
    byId("stage").replaceChildren(of.views.length ? "" : "There is no picture of this case.");
    const opening = !byId("case").open;
    if (opening) byId("case").showModal();
    if (of.views.length) {
      byId("slice").max = of.views.length - 1;
      byId("slice").value = of.first;
      drawStage();
    }
    if (opening && of.views.length > 1) byId("slice").focus();
    const names = data.columns.filter((name) => of.scores.some((scores) => scores[column[name]] !== null));
    const heads = ["", ...data.classes.map((one) => one.name)].map((name) => make("th", { scope: "col", textContent: name }));
    byId("scores").tHead.rows[0].replaceChildren(...heads);
    byId("scores").tBodies[0].replaceChildren(...names.map((name) => {
      const heading = headings[name] || name.replaceAll("_", " ").replace(/ ml$/, " (ml)");
      const cells = of.scores.map((scores) => make("td", { textContent: text(scores[column[name]], name) }));
      return make("tr", {}, make("th", { scope: "row", textContent: heading }), ...cells);
    }));
  };

  const step = (by) => {
    const place = shown[shown.indexOf(open) + by];
    if (place !== undefined) show(place);
  };

  // --- what a reader does ---

  const filters = byId("filters");
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("input", (event) => { if (event.target !== fields.sort) refresh(); });
  filters.addEventListener("reset", () => setTimeout(() => sortBy(START, true)));
  fields.sort.addEventListener("change", () => sortBy(fields.sort.value.slice(1), fields.sort.value[0] === "1"));
  byId("more").addEventListener("click", () => {
    const first = drawn;
    drawRows();
    byId("list").tBodies[0].rows[first].querySelector("button").focus();
  });
  byId("slice").addEventListener("input", drawStage);
  byId("layers").addEventListener("input", drawStage);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => byId("case").close());
  document.addEventListener("click", (event) => {
    const dot = event.target.closest("circle[data-case]");
    if (dot) show(Number(dot.dataset.case));
  });
  refresh();
}
