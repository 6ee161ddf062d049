// The gallery's page: lists the pairs of a run, shows one of them, the run as a whole, and its images as a graph.
//
// Data come as scripts that call gallery.take(NAME, VALUES), because a page on the disk may fetch nothing. All text
// from a run is set as text, never as markup. What is shown stands in the address behind the #, so that the browser's
// "back" works: t table, v view, o order, c category, s status, lo and hi score, l layers, q words, i image, p page,
// n pair.
"use strict";

const gallery = (() => {
  const PAGE = 100, MOST_NODES = 150, SVG = "http://www.w3.org/2000/svg";
  const PLACES = [[34, 4, 150], [106, 0, 167], [164, 31, 151], [208, 71, 116], [237, 121, 83], [251, 172, 52]];
  const CLASSES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f98"];
  const waiting = new Map(), kept = new Map();
  let index = null, drawn = 0, onKey = () => {};

  // ---- data ----

  function take(name, value) {
    const found = waiting.get(name);
    waiting.delete(name);
    if (found) found(value);
    else if (name === "gallery") start(value);
  }

  function load(name) {
    if (!kept.has(name)) {
      kept.set(name, new Promise((resolve, reject) => {
        waiting.set(name, resolve);
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onload = () => script.remove();
        script.onerror = () => reject(new Error(`data/${name}.js cannot be read; was the whole folder copied?`));
        document.head.append(script);
      }));
      const pages = [...kept.keys()].filter((key) => key.includes("/pairs-"));
      if (pages.length > 20) kept.delete(pages[0]);
    }
    return kept.get(name);
  }

  // ---- elements ----

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "style") Object.assign(element.style, value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }
  const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  const show = (parent, ...children) => { parent.replaceChildren(); return fill(parent, {}, children); };
  const name = (text) => el("span", { class: "name" }, text);
  const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(0)} %`);
  const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  const category = (list, code) => list.categories[code] || "no class";

  // ---- address ----

  const asked = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  function address(changes, from = asked()) {
    const all = { ...from, ...changes };
    const kept = Object.entries(all).filter(([, value]) => value !== null && value !== undefined && value !== "");
    return "#" + new URLSearchParams(kept).toString();
  }
  const go = (changes) => { location.hash = address(changes); };
  const replace = (changes) => { history.replaceState(null, "", address(changes)); draw(); };
  const listAddress = (changes, from) => address({ v: null, n: null, p: null, ...changes }, from);

  // ---- which pairs, in which order ----

  const hash = (number, seed) => {
    let x = Math.imul(number + 1, 0x9e3779b1) ^ Math.imul(seed, 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
    return (x ^ (x >>> 13)) >>> 0;
  };

  function chosen(list, state) {
    const layers = (state.l || "").split(",").filter(Boolean).map(Number);
    const uses = list.layerSets.map((set) => layers.every((layer) => set.includes(layer)));
    const words = (state.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    const hits = list.images.map(([, text]) => words.map((word) => text.toLowerCase().includes(word)));
    const low = state.lo === undefined ? -Infinity : Number(state.lo), high = state.hi === undefined ? Infinity : Number(state.hi);
    const found = [];
    for (let i = 0; i < list.number.length; i++) {
      const value = list.score[i];
      if (state.c !== undefined && list.category[i] !== Number(state.c)) continue;
      if (state.s !== undefined && list.status[i] !== Number(state.s)) continue;
      if ((state.lo !== undefined || state.hi !== undefined) && !(value !== null && value >= low && value <= high)) continue;
      if (!uses[list.layers[i]]) continue;
      if (state.i !== undefined && list.source[i] !== Number(state.i) && list.target[i] !== Number(state.i)) continue;
      if (!words.every((_, w) => hits[list.source[i]][w] || hits[list.target[i]][w])) continue;
      found.push(i);
    }
    const order = state.o || "worst";
    const last = (i, sign) => (list.score[i] === null ? Infinity : sign * list.score[i]);
    if (order === "worst") found.sort((a, b) => last(a, 1) - last(b, 1) || a - b);
    if (order === "best") found.sort((a, b) => last(a, -1) - last(b, -1) || a - b);
    if (order === "random") {
      const seed = Number(state.r || 1);
      found.sort((a, b) => hash(list.number[a], seed) - hash(list.number[b], seed));
    }
    return found;
  }

  // ---- pictures ----

  function picture(list, place, kind, role, attributes = {}) {
    const [file, id, remark, pictured] = list.images[place];
    const gone = () => el("span", { class: "gone", role: "img", "aria-label": `${role}: ${id}, no picture` }, remark || "no picture");
    if (remark.startsWith("no picture")) return gone();
    const folder = kind === "pictures" && pictured ? "pictures" : "thumbnails";
    const alt = `${role}: ${id}`, title = remark || null;
    const image = el("img", { src: `${folder}/${file}.jpg`, alt, title, loading: "lazy", decoding: "async", ...attributes });
    image.addEventListener("error", () => image.replaceWith(gone()));
    return image;
  }

  function scoreOf(list, i) {
    const value = list.score[i], status = list.statuses[list.status[i]];
    if (value === null) return el("span", { class: status === "matched" ? "muted" : "failed" }, status === "matched" ? "no score" : "failed");
    return [
      el("span", { class: "score" }, value.toFixed(2)),
      el("span", { class: "meter", "aria-hidden": "true" }, el("i", { style: { width: `${100 * Math.max(0, Math.min(1, value))}%` } })),
    ];
  }

  const strip = (list, i) => {
    const used = new Set(list.layerSets[list.layers[i]]);
    const cells = Array.from({ length: list.numLayers }, (_, layer) => el("i", { class: used.has(layer) && "used" }));
    return el("div", { class: "strip", title: `layers used: ${[...used].join(", ") || "none"}` }, cells);
  };

  // ---- the list ----

  function card(list, i, state) {
    const status = list.statuses[list.status[i]];
    const [source, target] = [list.images[list.source[i]][1], list.images[list.target[i]][1]];
    const value = list.score[i] === null ? status : `score ${list.score[i].toFixed(2)}`;
    return el("a", { class: "card", href: address({ v: "pair", n: list.number[i] }, state), "data-number": list.number[i], "aria-label": `${source} → ${target}, ${value}` },
      el("span", { class: "two" }, picture(list, list.source[i], "thumbnails", "source"), picture(list, list.target[i], "thumbnails", "target")),
      el("span", { class: "text" },
        el("span", { class: "names" }, el("span", { class: "name", title: source }, source), el("span", { class: "name muted", title: target }, target)),
        el("span", { class: "row" }, scoreOf(list, i), el("span", { class: "kind name" }, list.categories[list.category[i]])),
        status === "matched" ? strip(list, i) : el("span", { class: "muted" }, status)));
  }

  function segments(label, options, value, onChoice) {
    const buttons = options.map(([key, text]) => el("button", { type: "button", "aria-pressed": String(key === value), onclick: () => onChoice(key) }, text));
    return el("div", { class: "segments", role: "group", "aria-label": label }, buttons);
  }

  function choice(label, options, value, onChoice) {
    const items = [["", "all"], ...options].map(([key, text]) => el("option", { value: key, selected: String(key) === (value ?? "") }, text));
    return el("label", {}, label, el("select", { onchange: (event) => onChoice(event.target.value) }, items));
  }

  function filters(list, state) {
    const set = (changes) => replace({ p: null, ...changes });
    const bound = (key, text) => el("input", {
      type: "number", min: 0, max: 1, step: 0.05, value: state[key], placeholder: text, "aria-label": `${text} score`,
      onchange: (event) => set({ [key]: event.target.value }),
    });
    let timer = 0;
    const search = el("input", {
      type: "search", id: "search", value: state.q, placeholder: "in the images' names",
      oninput: (event) => { clearTimeout(timer); timer = setTimeout(() => set({ q: event.target.value }), 180); },
    });
    const layers = new Set((state.l || "").split(",").filter(Boolean));
    const toggled = (layer) => {
      if (!layers.delete(layer)) layers.add(layer);
      set({ l: [...layers].sort((a, b) => a - b).join(",") });
    };
    const chips = Array.from({ length: list.numLayers }, (_, layer) => String(layer)).map((layer) =>
      el("button", { type: "button", "aria-pressed": String(layers.has(layer)), onclick: () => toggled(layer) }, layer));
    const orders = [["worst", "Worst first"], ["best", "Best first"], ["random", "Random"]];
    const order = (key) => set({ o: key === "worst" ? null : key, r: key === "random" ? String(1 + (Number(state.r || 1) % 999)) : null });
    return el("form", { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
      el("div", { class: "wide" }, segments("Order", orders, state.o || "worst", order)),
      list.categories.length > 1 && choice("Class", list.categories.map((_, code) => [code, category(list, code)]), state.c, (c) => set({ c })),
      list.statuses.length > 1 && choice("Status", list.statuses.map((text, code) => [code, text]), state.s, (s) => set({ s })),
      el("label", {}, `Score (${list.scoreName || "none"})`, el("span", { class: "pair" }, bound("lo", "from"), "–", bound("hi", "to"))),
      list.numLayers > 0 && el("details", { id: "layer-filter", open: document.querySelector("#layer-filter")?.open },
        el("summary", {}, layers.size ? `Layers: ${[...layers].join(", ")}` : "Layers: any"),
        el("div", {}, el("p", { class: "muted", style: { margin: "0 0 8px" } }, "Pairs that use all of these layers"), el("div", { class: "chips" }, chips))),
      el("label", { class: "wide" }, "Search", search));
  }

  function pages(number, page, state) {
    const last = Math.max(0, Math.ceil(number / PAGE) - 1);
    const step = (to, text, label) => el("button", { type: "button", "aria-label": label, disabled: to < 0 || to > last, onclick: () => { go({ p: to || null }); scrollTo(0, 0); } }, text);
    return el("span", { class: "pages" }, step(page - 1, "‹", "previous page"), el("span", { class: "number" }, `${page + 1} of ${last + 1}`), step(page + 1, "›", "next page"));
  }

  function drawList(list, state, main) {
    const found = chosen(list, state);
    const page = Math.min(Number(state.p || 0), Math.max(0, Math.ceil(found.length / PAGE) - 1));
    const shown = found.slice(page * PAGE, (page + 1) * PAGE);
    const more = list.pairs > list.number.length ? `; the gallery has ${list.number.length.toLocaleString("en")} of the run's ${list.pairs.toLocaleString("en")}` : "";
    const only = state.i !== undefined && el("span", {}, "with ", name(list.images[state.i][1]), " ");
    const isFiltered = ["c", "s", "lo", "hi", "l", "q", "i"].some((key) => state[key] !== undefined);
    const clear = { c: null, s: null, lo: null, hi: null, l: null, q: null, i: null };
    const focused = document.activeElement?.id, at = document.activeElement?.selectionStart;
    show(main, 
      filters(list, state),
      el("div", { class: "tally" },
        el("span", { role: "status" }, only, `${count(found.length, "pair")}${more}`, " ",
          isFiltered && el("a", { href: listAddress(clear) }, "show all")),
        found.length > PAGE && pages(found.length, page, state)),
      found.length ? el("div", { class: "grid" }, shown.map((i) => card(list, i, state))) : el("p", { class: "note" }, "No pair is like this. Take a filter away."),
      el("div", { class: "tally", style: { marginTop: "18px" } }, el("span"), found.length > PAGE && pages(found.length, page, state)));
    if (focused === "search") {
      document.getElementById("search").focus();
      document.getElementById("search").setSelectionRange(at, at);
    }
    onKey = (event) => moveAmongCards(event, main);
    performance.mark("list-drawn");
  }

  function moveAmongCards(event, main) {
    const cards = [...main.querySelectorAll(".card")], at = cards.indexOf(document.activeElement);
    if (!cards.length || !event.key.startsWith("Arrow")) return;
    const columns = Math.max(1, cards.findIndex((card) => card.offsetTop > cards[0].offsetTop));
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (at < 0 && by < 0) return;
    const to = at < 0 ? 0 : at + by;
    if (cards[to]) { cards[to].focus(); event.preventDefault(); }
  }

  // ---- a pair ----

  async function drawPair(list, state, main, turn) {
    const i = list.number.indexOf(Number(state.n));
    if (i < 0) return show(main, el("p", { class: "note" }, "This pair is not in the gallery. ", el("a", { href: listAddress({}) }, "Show all")));
    const details = (await load(`table-${state.t || 0}/pairs-${Math.floor(i / PAGE)}`))[i % PAGE];
    if (turn !== drawn) return;
    const found = chosen(list, state), at = found.indexOf(i);
    const to = (step) => (found[at + step] === undefined ? null : address({ n: list.number[found[at + step]] }, state));
    const back = listAddress({ p: at < PAGE ? null : Math.floor(at / PAGE) }, state);
    const step = (by, text, label) => el("button", { type: "button", "aria-label": label, disabled: !to(by), onclick: () => { location.hash = to(by); } }, text);
    const [source, target] = [list.images[list.source[i]], list.images[list.target[i]]];
    const status = list.statuses[list.status[i]];
    const facts = [
      list.score[i] !== null && [list.scoreName, list.stage === "match" ? list.score[i].toFixed(3) : percent(list.score[i])],
      list.categories[list.category[i]] && ["class", list.categories[list.category[i]]],
      ...(details.values || []).filter(([metric]) => metric !== list.scoreName).map(([metric, value]) => [metric, percent(value)]),
      ["pair", details.id],
      details.mirrored && ["matched", "mirrored"],
    ].filter(Boolean);
    show(main, 
      el("div", { class: "top" },
        el("a", { class: "button", href: back }, "‹ All pairs"),
        el("span", { class: "steps" }, at >= 0 && el("span", { class: "muted number" }, `${at + 1} of ${found.length}`), step(-1, "←", "previous pair"), step(1, "→", "next pair"))),
      el("h2", {}, name(source[1]), el("span", { class: "arrow" }, "→"), name(target[1])),
      el("dl", { class: "facts" }, facts.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", { class: "name" }, value)))),
      [source, target].filter(([, , remark]) => remark).map(([, , remark]) => el("p", { class: "failed" }, remark)),
      status === "matched" ? matchPanel(list, i, details) : el("p", { class: "panel failed" }, `This pair could not be matched: ${status}`),
      status === "matched" && el("div", { class: "beside" }, warpPanel(list, i, details), layersPanel(list, i, state)));
    main.querySelector(".matches")?.redraw();
    onKey = (event) => {
      const way = { ArrowLeft: to(-1), ArrowRight: to(1) }[event.key];
      if (event.key === "Escape") { location.hash = back; returnTo = list.number[i]; }
      else if (way) location.hash = way;
    };
    performance.mark("pair-drawn");
  }
  let returnTo = null;

  function coloursByPlace(matches) {
    const spread = (k) => Math.max(...matches.map((m) => m[k])) - Math.min(...matches.map((m) => m[k]));
    const key = matches.length && spread(0) >= spread(1) ? 0 : 1;
    const order = matches.map((_, k) => k).sort((a, b) => matches[a][key] - matches[b][key]);
    const colours = [];
    order.forEach((k, rank) => {
      const x = (rank / Math.max(1, matches.length - 1)) * (PLACES.length - 1), low = Math.min(Math.floor(x), PLACES.length - 2);
      colours[k] = `rgb(${PLACES[low].map((v, c) => Math.round(v + (x - low) * (PLACES[low + 1][c] - v))).join(" ")})`;
    });
    return colours;
  }

  // What can be drawn on the two images: each has marks {from, to, true?, colour, text}, in original pixels.
  function layersOfMarks(details) {
    const place = (x, y) => `(${x.toFixed(0)}, ${y.toFixed(0)})`, kinds = [];
    if (details.keypoints?.length) {
      const marks = details.keypoints.map(([x, y, px, py, tx, ty, correct, confidence]) => {
        const where = px === null ? "no prediction" : `${place(px, py)}, ${correct === null ? "" : correct ? "correct, " : "wrong, "}confidence ${(confidence ?? 0).toFixed(2)}`;
        const truth = tx === null ? "" : `; true: ${place(tx, ty)}`;
        const colour = correct === false || px === null ? "var(--wrong)" : "var(--right)";
        return { from: [x, y], to: px === null ? null : [px, py], truth: tx === null ? null : [tx, ty], colour, confidence, text: `${place(x, y)} → ${where}${truth}` };
      });
      kinds.push({ key: "keypoints", title: `Keypoints (${marks.length})`, marks });
    }
    if (details.matches.length) {
      const colours = coloursByPlace(details.matches);
      const marks = details.matches.map(([x, y, u, v, confidence], k) => ({
        from: [x, y], to: [u, v], colour: colours[k], confidence,
        text: `${place(x, y)} → ${place(u, v)}${confidence === null ? "" : `, confidence ${confidence.toFixed(3)}`}`,
      }));
      kinds.push({ key: "matches", title: `Matches (${marks.length})`, marks });
    }
    if (details.given?.length) {
      const marks = details.given.map(([x, y, u, v, valid]) => ({
        from: [x, y], to: valid === false ? null : [u, v], colour: "var(--right)", confidence: null,
        text: `${place(x, y)} → ${valid === false ? "no prediction" : place(u, v)}`,
      }));
      kinds.push({ key: "given", title: `Given points (${marks.length})`, marks });
    }
    if (details.outlines?.[1].length) kinds.push({ key: "masks", title: "Masks", marks: [], outlines: details.outlines });
    return kinds;
  }

  function matchPanel(list, i, details) {
    const kinds = layersOfMarks(details), readout = el("p", { class: "readout", "aria-live": "polite" });
    const alt = `source ${list.images[list.source[i]][1]} and target ${list.images[list.target[i]][1]} with matched points`;
    const drawing = svg("svg", { class: "matches", role: "img", "aria-label": alt });
    const panel = el("section", { class: "panel", "aria-label": "Matches" });
    const table = el("div", { class: "scroll" }), hint = "Point at a match to see its partner and its confidence.";
    if (!kinds.length) kinds.push({ key: "none", title: "No match", marks: [] });
    let kind = kinds[0], shown = Math.min(kind.marks.length, 30);
    const slider = el("input", { type: "range", min: 1, "aria-label": "how many matches", oninput: (event) => { shown = Number(event.target.value); refresh(); } });
    const amount = el("span", { class: "number" }), sliderLabel = el("label", {}, "Strongest ", slider, " ", amount);
    const choose = (key) => { kind = kinds.find((k) => k.key === key); shown = key === "matches" ? Math.min(30, kind.marks.length) : kind.marks.length; refresh(); };
    const tools = el("div", { class: "tools" });
    const legend = el("ul", { class: "legend" });

    function strengthen(number) {
      const groups = [...drawing.querySelectorAll("g.mark")];
      groups.forEach((group, k) => { group.classList.toggle("strong", k === number); group.classList.toggle("faint", number !== null && k !== number); });
      drawing.querySelectorAll(".label").forEach((label) => label.remove());
      readout.textContent = number === null ? (kind.marks.length ? hint : "") : kind.marks[number].text;
      const mark = number === null ? null : kind.marks[number];
      if (mark && mark.confidence !== null && mark.to) {
        const [x, y] = drawing.places[number].to;
        drawing.append(svg("text", { class: "label", x: x + 10, y: y - 8 }, mark.confidence.toFixed(2)));
      }
    }

    function refresh() {
      const heading = kinds.length > 1 ? segments("What is drawn", kinds.map((k) => [k.key, k.title]), kind.key, choose) : el("h3", {}, kind.title);
      tools.replaceChildren(heading, kind.key === "matches" ? sliderLabel : "");
      slider.max = kind.marks.length;
      slider.value = shown;
      amount.textContent = `${shown} of ${kind.marks.length}`;
      const hasTruth = kind.marks.some((mark) => mark.truth);
      const sign = (colour, text) => el("li", {}, el("i", { class: colour === "ring" && "ring", style: colour === "ring" ? {} : { background: colour } }), text);
      legend.replaceChildren(...(kind.outlines ? [sign("var(--truth)", "true outline"), sign("var(--right)", "source's outline, and where it is predicted")]
        : hasTruth ? [sign("var(--right)", "correct"), sign("var(--wrong)", "wrong"), sign("ring", "true place")]
          : kind.key === "matches" ? [el("li", {}, "Colours follow the points' order in the source: neighbours that keep their order look like a rainbow.")] : []));
      drawing.redraw();
      table.replaceChildren(el("table", { class: "points" }, el("tbody", {}, kind.marks.slice(0, shown).map((mark, k) =>
        el("tr", { onmouseenter: () => strengthen(k), onmouseleave: () => strengthen(null) },
          el("td", {}, el("button", { type: "button", "aria-label": `match ${k + 1}`, onfocus: () => strengthen(k), onblur: () => strengthen(null) }, k + 1)), el("td", {}, mark.text))))));
      strengthen(null);
    }

    drawing.redraw = () => {
      if (!drawing.isConnected) return;
      const width = panel.clientWidth - 2 * parseFloat(getComputedStyle(panel).paddingLeft);
      const isStacked = width < 620, gap = 14, sizes = details.sizes;
      const scales = isStacked ? sizes.map(([w, h]) => Math.min(width / w, 420 / h))
        : (() => {
          const height = Math.min((width - gap) / (sizes[0][0] / sizes[0][1] + sizes[1][0] / sizes[1][1]), Math.max(320, innerHeight * 0.62));
          return sizes.map(([, h]) => height / h);
        })();
      const boxes = sizes.map(([w, h], k) => [w * scales[k], h * scales[k]]), top = 18;
      const corners = isStacked ? [[0, top], [0, top + boxes[0][1] + gap + top]] : [[0, top], [boxes[0][0] + gap, top]];
      const full = isStacked ? [width, corners[1][1] + boxes[1][1]] : [boxes[0][0] + gap + boxes[1][0], top + Math.max(boxes[0][1], boxes[1][1])];
      drawing.setAttribute("viewBox", `0 0 ${full[0]} ${full[1]}`);
      drawing.setAttribute("width", full[0]);
      drawing.setAttribute("height", full[1]);
      const on = (side, [x, y]) => [corners[side][0] + x * scales[side], corners[side][1] + y * scales[side]];
      const sides = [list.source[i], list.target[i]].flatMap((place, side) => {
        const [file, , remark, pictured] = list.images[place];
        const [x, y] = corners[side], [w, h] = boxes[side];
        const caption = svg("text", { class: "caption", x, y: y - 5 }, side ? "target" : "source");
        if (remark.startsWith("no picture")) {
          return [caption, svg("rect", { class: "blank", x, y, width: w, height: h }), svg("text", { x: x + 10, y: y + 24 }, "no picture")];
        }
        return [caption, svg("image", { href: `${pictured ? "pictures" : "thumbnails"}/${file}.jpg`, x, y, width: w, height: h, preserveAspectRatio: "none" })];
      });
      const marks = kind.marks.slice(0, shown);
      drawing.places = marks.map((mark) => ({ from: on(0, mark.from), to: mark.to && on(1, mark.to), truth: mark.truth && on(1, mark.truth) }));
      const groups = marks.map((mark, k) => {
        const { from, to, truth } = drawing.places[k];
        const line = (a, b, more) => svg("line", { x1: a[0], y1: a[1], x2: b[0], y2: b[1], stroke: mark.colour, ...more });
        const dot = (at, more) => svg("circle", { cx: at[0], cy: at[1], r: 4.5, fill: mark.colour, ...more });
        return svg("g", { class: "mark", onpointerenter: () => strengthen(k), onpointerleave: () => strengthen(null), onclick: () => strengthen(k) },
          svg("title", {}, mark.text), to && line(from, to, { class: "casing", stroke: null }), to && line(from, to), truth && to && line(to, truth, { class: "off", stroke: null }),
          dot(from), to && dot(to), truth && svg("circle", { class: "truth", cx: truth[0], cy: truth[1], r: 7.5 }),
          [from, to].filter(Boolean).map((at) => svg("circle", { class: "hit", cx: at[0], cy: at[1], r: 12 })));
      });
      const outline = (points, side, colour) => points.length && svg("polygon", { class: "outline", points: points.map((p) => on(side, p).join(",")).join(" "), stroke: colour });
      const outlines = kind.outlines ? [outline(kind.outlines[0], 0, "var(--right)"), outline(kind.outlines[1], 1, "var(--truth)"), outline(kind.outlines[2], 1, "var(--right)")].filter(Boolean) : [];
      drawing.replaceChildren(...sides, ...outlines, ...groups);
    };
    fill(panel, {}, [tools, drawing, legend, readout, kind.marks.length ? el("details", {}, el("summary", { class: "muted" }, "As a table"), table) : null]);
    refresh();
    return panel;
  }

  function warpPanel(list, i, details) {
    const panel = el("section", { class: "panel", "aria-label": "Warp" }, el("h3", {}, "Source warped onto target"));
    if (list.warp[i] < 0) {
      return fill(panel, {}, [el("p", { class: "muted" }, "This pair has no warp: the gallery was written with fewer large pictures (--pictures), or an image is gone.")]);
    }
    const [width, height] = details.sizes[1], target = picture(list, list.target[i], "pictures", "target", { loading: "eager" });
    const warped = el("img", { src: `warps/${list.warp[i]}.webp`, alt: `source warped onto target: ${list.images[list.source[i]][1]}`, style: { opacity: 0.5 } });
    const slider = el("input", { type: "range", id: "opacity", min: 0, max: 100, value: 50, "aria-label": "opacity of the warped source", oninput: () => { warped.style.opacity = slider.value / 100; } });
    return fill(panel, {}, [el("div", { class: "stack", style: { aspectRatio: `${width} / ${height}`, maxWidth: `${(560 * width) / height}px` } }, target, warped), el("div", { class: "blend" }, "target", slider, "warped source")]);
  }

  function layersPanel(list, i, state) {
    const used = new Set(list.layerSets[list.layers[i]]);
    const cells = Array.from({ length: list.numLayers }, (_, layer) => el("li", { class: used.has(layer) && "used", title: used.has(layer) ? "used" : "not used" }, layer));
    return el("section", { class: "panel", "aria-label": "Layers" }, el("h3", {}, `Layers of this pair: ${used.size}`), el("ul", { class: "layers" }, cells),
      el("p", { class: "readout" }, el("a", { href: address({ v: "overview" }, state.t ? { t: state.t } : {}) }, "Layers of the whole run"), el("br"), "Keys: ← and → lead to the pairs before and after this one, Escape to the list."));
  }

  // ---- the run as a whole ----

  function drawOverview(list, state, main) {
    const failed = list.statusCounts.filter(([status]) => status !== "matched").reduce((sum, [, number]) => sum + number, 0);
    const tile = (value, text) => el("div", { class: "tile" }, el("b", { class: "name" }, value), el("span", {}, text));
    const mean = list.metrics.find(([metric]) => metric === list.scoreName);
    show(main, 
      el("div", { class: "tiles" },
        tile(list.pairs.toLocaleString("en"), "pairs in the run"), tile(list.number.length.toLocaleString("en"), "pairs in this gallery"),
        tile(list.images.length.toLocaleString("en"), "images of these"), failed > 0 && tile(failed.toLocaleString("en"), "pairs that failed"),
        mean && tile(percent(mean[1]), `mean ${mean[0]}`)),
      el("div", { class: "beside" }, histogram(list), list.metrics.length ? classBars(list, state) : statuses(list)),
      heatMap(list),
      el("dl", { class: "facts" }, list.facts.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", { class: "name" }, value)))));
  }

  function histogram(list) {
    const most = Math.max(1, ...list.histogram), bins = list.histogram.length;
    const bars = list.histogram.map((number, k) => el("i", { title: `${(k / bins).toFixed(2)} to ${((k + 1) / bins).toFixed(2)}: ${count(number, "pair")}`, style: { height: `${(100 * number) / most}%` } }));
    return el("section", { class: "panel" }, el("h3", {}, `Scores: ${list.scoreName || "none"}`),
      el("div", { class: "histogram", role: "img", "aria-label": `histogram of scores, at most ${most} pairs a bar` }, bars),
      el("div", { class: "axis" }, ["0", "0.25", "0.5", "0.75", "1"].map((text) => el("span", {}, text))));
  }

  function statuses(list) {
    const rows = list.statusCounts.slice(0, 12).map(([status, number]) => el("tr", {}, el("td", { class: "name" }, status), el("td", {}, number.toLocaleString("en"))));
    return el("section", { class: "panel" }, el("h3", {}, "What became of the pairs"), el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, rows))));
  }

  function classLink(list, text) {
    const code = list.categories.indexOf(text);
    return code < 0 ? el("span", { class: "name" }, text || "no class") : el("a", { class: "name", href: listAddress({ c: code }), title: text }, text || "no class");
  }

  function classBars(list, state) {
    const panel = el("section", { class: "panel" }), bars = el("div", { class: "bars" });
    const draw = (title) => {
      const [, mean, pairs, classes] = list.metrics.find(([metric]) => metric === title);
      const row = (label, value, number, kind) => [label, el("span", { class: "track", role: "img", "aria-label": percent(value) }, el("i", { style: { width: `${100 * value}%` } })), el("span", { class: `number ${kind}`, title: count(number, "pair") }, percent(value))];
      bars.replaceChildren(...row(el("span", { class: "all" }, "all classes"), mean, pairs, "all"), ...classes.flatMap(([text, value, number]) => row(classLink(list, text), value, number, "")));
    };
    const options = list.metrics.map(([metric]) => el("option", { selected: metric === list.scoreName }, metric));
    const select = el("select", { id: "metric", onchange: () => draw(select.value) }, options);
    draw(select.value);
    return fill(panel, {}, [el("div", { class: "tools" }, el("h3", {}, "By class"), el("label", {}, "Metric", select)), el("div", { class: "scroll" }, bars)]);
  }

  function heatMap(list) {
    const panel = el("section", { class: "panel" }, el("h3", {}, "Layers used: share of each class's pairs"));
    const layers = Array.from({ length: list.numLayers }, (_, layer) => layer);
    const total = list.use.reduce((sum, [, pairs]) => sum + pairs, 0), all = new Map();
    for (const [, , uses] of list.use) for (const [layer, number] of uses) all.set(layer, (all.get(layer) || 0) + number);
    const row = (label, pairs, uses) => el("tr", {}, el("th", { scope: "row" }, label), layers.map((layer) => {
      const rate = pairs ? (uses.get(layer) || 0) / pairs : 0;
      return el("td", { title: `layer ${layer}: ${percent(rate)} of ${count(pairs, "pair")}`, style: { background: `rgba(var(--heat), ${0.06 + 0.94 * rate})`, color: rate > 0.55 ? "var(--on-accent)" : "var(--ink)" } }, rate ? Math.round(100 * rate) : "");
    }));
    const rows = [row("all pairs", total, all), ...(list.use.length > 1 ? list.use.map(([text, pairs, uses]) => row(classLink(list, text), pairs, new Map(uses))) : [])];
    const head = el("tr", {}, el("th", {}, el("span", { class: "muted" }, "layer")), layers.map((layer) => el("th", { scope: "col" }, layer)));
    return fill(panel, {}, [el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Layers used" }, el("table", { class: "heat" }, el("thead", {}, head), el("tbody", {}, rows))), el("p", { class: "readout" }, "In percent. A class leads to its pairs.")]);
  }

  // ---- the graph ----

  function strongest(list, most) {
    const order = list.number.map((_, i) => i).filter((i) => list.score[i] !== null && list.source[i] !== list.target[i]);
    order.sort((a, b) => list.score[b] - list.score[a] || a - b);
    const nodes = new Map(), pairs = new Set(), edges = [];
    for (const i of order) {
      const ends = [list.source[i], list.target[i]], key = ends.slice().sort((a, b) => a - b).join("-");
      const fresh = ends.filter((place) => !nodes.has(place)).length;
      if (pairs.has(key) || nodes.size + fresh > MOST_NODES) continue;
      if (edges.length === most) break;
      pairs.add(key);
      ends.forEach((place) => { if (!nodes.has(place)) nodes.set(place, { place, category: list.category[i], x: 0, y: 0 }); });
      edges.push({ i, ends });
    }
    return { nodes: [...nodes.values()], edges };
  }

  // Places the nodes by springs along the edges and repulsion between all, from the same start each time.
  function placed({ nodes, edges }, ratio) {
    const at = new Map(nodes.map((node, k) => [node.place, k])), n = nodes.length, ideal = 0.9 / Math.sqrt(Math.max(n, 1));
    nodes.forEach((node, k) => { const angle = k * 2.399963, radius = 0.5 * Math.sqrt((k + 0.5) / n); node.x = radius * Math.cos(angle); node.y = radius * Math.sin(angle); });
    for (let round = 0; round < 260; round++) {
      const heat = 0.06 * (1 - round / 260) + 0.002, force = nodes.map(() => [0, 0]);
      for (let a = 0; a < n; a++) {
        for (let b = a + 1; b < n; b++) {
          const dx = nodes[a].x - nodes[b].x, dy = nodes[a].y - nodes[b].y, d2 = Math.max(dx * dx + dy * dy, 1e-6), f = (ideal * ideal) / d2;
          force[a][0] += dx * f; force[a][1] += dy * f; force[b][0] -= dx * f; force[b][1] -= dy * f;
        }
      }
      for (const { ends } of edges) {
        const [a, b] = ends.map((place) => at.get(place)), dx = nodes[a].x - nodes[b].x, dy = nodes[a].y - nodes[b].y, f = Math.hypot(dx, dy) / ideal;
        force[a][0] -= dx * f; force[a][1] -= dy * f; force[b][0] += dx * f; force[b][1] += dy * f;
      }
      nodes.forEach((node, k) => {
        const fx = force[k][0] - 0.5 * node.x, fy = force[k][1] - 0.5 * node.y, length = Math.hypot(fx, fy) || 1, step = Math.min(length, heat);
        node.x += (fx / length) * step; node.y += (fy / length) * step;
      });
    }
    for (const axis of ["x", "y"]) {
      const values = nodes.map((node) => node[axis]), low = Math.min(...values), span = Math.max(...values) - low || 1;
      nodes.forEach((node) => { node[axis] = values.length === 1 ? 50 : 6 + (88 * (node[axis] - low)) / span; });
    }
  }

  function drawGraph(list, state, main) {
    const most = Math.min(300, list.number.length), most0 = Math.min(most, Math.max(1, 2 * list.images.length), 200);
    const asking = Number(state.e || most0);
    const board = el("div", { class: "graph" }), readout = el("p", { class: "readout", "aria-live": "polite" });
    const hint = "An image leads to its pairs, a line to its match.", amount = el("span", { class: "number" });
    const slider = el("input", { type: "range", min: 1, max: most, value: asking, "aria-label": "how many matches", oninput: () => connect(Number(slider.value)), onchange: () => history.replaceState(null, "", address({ e: slider.value })) });

    function connect(number) {
      const graph = strongest(list, number);
      placed(graph);
      const at = new Map(graph.nodes.map((node) => [node.place, node]));
      const near = (of) => { board.classList.toggle("asked", of !== null); board.querySelectorAll(".near").forEach((x) => x.classList.remove("near")); (of || []).forEach((x) => x.classList.add("near")); };
      const lines = graph.edges.map(({ i, ends }) => {
        const [a, b] = ends.map((place) => at.get(place)), where = { x1: `${a.x}%`, y1: `${a.y}%`, x2: `${b.x}%`, y2: `${b.y}%` };
        const text = `${list.images[a.place][1]} → ${list.images[b.place][1]}: ${list.score[i].toFixed(2)}`;
        const line = svg("a", { class: "edge", href: address({ v: "pair", n: list.number[i], o: "best" }), "aria-label": text, tabindex: -1 },
          svg("line", { ...where, "stroke-width": 1 + 4 * list.score[i], opacity: 0.25 + 0.6 * Math.min(1, list.score[i]) }), svg("line", { ...where, class: "hit" }));
        line.addEventListener("pointerenter", () => { near([line, at.get(a.place).element, at.get(b.place).element]); readout.textContent = text; });
        line.addEventListener("pointerleave", () => { near(null); readout.textContent = hint; });
        return { line, ends };
      });
      for (const node of graph.nodes) {
        const own = lines.filter(({ ends }) => ends.includes(node.place));
        const ask = () => { near([...own.map((o) => o.line), ...own.flatMap((o) => o.ends.map((place) => at.get(place).element))]); readout.textContent = `${list.images[node.place][1]}: ${count(own.length, "match")}`.replace("matchs", "matches"); };
        const leave = () => { near(null); readout.textContent = hint; };
        node.element = el("a", {
          class: "node", href: listAddress({ i: node.place, o: "best" }), title: list.images[node.place][1], onpointerenter: ask, onpointerleave: leave, onfocus: ask, onblur: leave,
          style: { left: `${node.x}%`, top: `${node.y}%`, borderColor: CLASSES[node.category % CLASSES.length] },
        }, picture(list, node.place, "thumbnails", "image"));
      }
      board.replaceChildren(svg("svg", { role: "group", "aria-label": "matches" }, lines.map(({ line }) => line)), ...graph.nodes.map((node) => node.element));
      amount.textContent = `${graph.edges.length} matches of ${graph.nodes.length} images`;
      readout.textContent = hint;
    }
    show(main, el("section", { class: "panel" },
      el("div", { class: "tools" }, el("h3", {}, "Strongest matches"), el("label", {}, slider), amount), board, readout));
    connect(asking);
  }

  // ---- the page ----

  const VIEWS = [["pairs", "Pairs", drawList], ["overview", "Overview", drawOverview], ["graph", "Graph", drawGraph]];

  async function draw() {
    const turn = ++drawn, state = asked(), main = document.getElementById("main");
    const number = Math.min(Number(state.t) || 0, index.tables.length - 1), table = index.tables[number];
    const view = state.v === "pair" ? "pairs" : state.v || "pairs";
    document.getElementById("tables").value = String(number);
    const shown = VIEWS.filter(([key]) => key !== "graph" || table.stage === "match");
    document.getElementById("views").replaceChildren(...shown.map(([key, text]) => el("a", { href: address({ v: key === "pairs" ? null : key }, state.t ? { t: state.t } : {}), "aria-current": key === view && "page" }, text)));
    onKey = () => {};
    try {
      const list = await load(`table-${number}/list`);
      if (turn !== drawn) return;
      if (state.v === "pair") await drawPair(list, state, main, turn);
      else (shown.find(([key]) => key === view) || VIEWS[0])[2](list, state, main);
      if (state.v === "pair") scrollTo(0, 0);
      if (returnTo !== null && state.v !== "pair") {
        main.querySelector(`.card[data-number="${Number(returnTo)}"]`)?.focus();
        returnTo = null;
      }
    } catch (error) {
      show(main, el("p", { class: "note failed" }, error.message));
    }
  }

  function start(value) {
    index = value;
    document.title = `${value.title} – gallery`;
    document.getElementById("title").textContent = value.title;
    const select = document.getElementById("tables");
    select.replaceChildren(...value.tables.map((table, number) => el("option", { value: number }, [table.stage, table.on, table.method].filter(Boolean).join(" · "))));
    select.addEventListener("change", () => { location.hash = address({ t: select.value === "0" ? null : select.value }, {}); });
    document.getElementById("table-choice").hidden = value.tables.length < 2;
    addEventListener("hashchange", draw);
    addEventListener("resize", () => document.querySelector(".matches")?.redraw());
    addEventListener("keydown", (event) => {
      const isTyping = event.target.matches("input, select, textarea");
      if (isTyping && event.key === "Escape") event.target.blur();
      else if (!isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) onKey(event);
    });
    draw();
  }

  return { take };
})();
