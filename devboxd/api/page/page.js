// The page of devboxctl ui. Whatever it shows may come from a box: it is text, and never markup.
"use strict";

const EVERY = 15000, SOON = 400, BOXES_EVERY = 60000, EVENTS_SHOWN = 30, SAID_FOR = 5000, HOUR = 3600;
const SVG = "http://www.w3.org/2000/svg";
const BUSY = ["launching", "saving", "starting", "releasing", "rescue", "deleting"];
const at = (id) => document.getElementById(id);
let due = 0, quiet = 0, shown = {};

function make(name, attributes, ...parts) {
  const one = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) one.setAttribute(key, value);
  for (const part of parts) if (part !== null && part !== undefined && part !== "") one.append(part);
  return one;
}

function draw(name, attributes, text) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  return one;
}

// Replace what a place shows, but only if it is different: focus and selection stay where they are.
function put(id, value, render) {
  const text = JSON.stringify(value === undefined ? null : value);
  if (shown[id] === text) return;
  shown[id] = text;
  const place = at(id), held = document.activeElement && place.contains(document.activeElement)
    ? document.activeElement.dataset.key : null;
  place.replaceChildren(...render(value));
  if (held) for (const one of place.querySelectorAll("[data-key]")) if (one.dataset.key === held) one.focus();
}

async function ask(path, body) {
  const answer = await fetch(path, body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (answer.status === 401) throw new Error("this page is too old: run devboxctl ui again");
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.message || "devboxd refused it");
  return found;
}

function state(text, off) {
  const place = at("state");
  if (place.textContent !== text) place.textContent = text;
  place.classList.toggle("off", Boolean(off));
}

const empty = (text) => [make("p", { class: "empty" }, text)];
const clock = (text) => text ? new Date(text).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "";
const usd = (text) => `${text} USD`;

function table(headers, rows) {
  const number = (at) => (headers[at].startsWith("#") ? { class: "number" } : {});
  const head = make("tr", {}, ...headers.map((name, at) => make("th", { scope: "col", ...number(at) }, name.replace("#", ""))));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell, at) => make("td", number(at), cell))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

function project(one, idle) {
  const kind = one.phase === "running" ? "running" : one.phase === "broken" ? "broken" : BUSY.includes(one.phase) ? "busy" : "";
  const card = make("article", { class: "card" },
    make("div", { class: "top" }, make("h3", {}, one.name), make("span", { class: `phase ${kind}` }, one.phase)),
    make("p", { class: "soft" }, [one.type, one.zone, one.instance].filter(Boolean).join(" · ") || "nothing runs"),
    one.problem || one.reason || one.waits ? make("p", {}, one.problem || one.reason || one.waits) : null,
    one.month ? make("p", { class: "soft" }, `${one.hour || "0"} USD an hour · ${one.month} USD this month`) : null);
  if (idle && idle.minutes) card.append(...timeline(idle));
  else if (idle && idle.problem) card.append(make("p", { class: "soft" }, idle.problem));
  if (one.phase === "running") {
    const button = make("button", { type: "button", "data-key": `extend ${one.id}` }, "Keep running 1 h longer");
    button.addEventListener("click", () => act(button, "/extend", { project: one.name, seconds: HOUR }, `${one.name} is kept for an hour longer`));
    card.append(make("div", { class: "buttons" }, button));
  }
  return card;
}

// A letter for each minute, the newest last: a(ctive), i(dle), u(nknown).
function timeline(idle) {
  const minutes = idle.minutes, words = { a: "active", i: "idle", u: "unknown" };
  const count = (letter) => [...minutes].filter((one) => one === letter).length;
  const said = `Last ${minutes.length} minutes: ${count("a")} active, ${count("i")} idle, ${count("u")} unknown. Now ${idle.verdict}.`;
  const line = draw("svg", { class: "line", viewBox: `0 0 ${minutes.length} 10`, preserveAspectRatio: "none", role: "img", "aria-label": said });
  let start = 0;
  for (let end = 1; end <= minutes.length; end += 1) {
    if (end < minutes.length && minutes[end] === minutes[start]) continue;
    if (words[minutes[start]]) line.append(draw("rect", { x: start, y: 0, width: end - start, height: 10, class: `minute-${minutes[start]}` }));
    start = end;
  }
  return [make("p", { class: "soft" }, said + (idle.held ? ` Kept until ${clock(idle.held)}.` : "")), line];
}

function chart(days) {
  const width = Math.max(260, at("cost").clientWidth), height = 180, foot = 22, top = 16, most = Math.max(...days.map((one) => Number(one.total)), 0.01);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Cost of each day, at most ${most.toFixed(2)} USD. The table below has the figures.` });
  const step = width / Math.max(days.length, 7), scale = (height - foot - top) / most;
  days.forEach((one, index) => {
    const parts = [["bar2", Number(one.volume) + Number(one.snapshot)], ["bar", Number(one.compute) + Number(one.address)]];
    let y = height - foot;
    for (const [name, value] of parts) {
      const tall = value * scale;
      y -= tall;
      const bar = draw("rect", { x: index * step + step * 0.15, y, width: step * 0.7, height: tall, class: name });
      bar.append(draw("title", {}, `${one.day}: ${one.total} USD`));
      svg.append(bar);
    }
    if (days.length <= width / 60 || index % 5 === 0) svg.append(draw("text", { x: index * step + step / 2, y: height - 7, "text-anchor": "middle" }, one.day.slice(8)));
  });
  svg.append(draw("text", { x: 6, y: 12 }, `${most.toFixed(2)} USD`));
  return svg;
}

function cost(found) {
  const total = found.total, days = found.days || [], parts = [];
  if (!found.costs.length) return empty("Nothing has cost anything. devboxctl launch makes a project.");
  const figures = make("dl", { class: "figures" });
  for (const [name, value] of [["now, an hour", total.hour || "0.0000"], ["today", total.today || "0.00"], [`${found.month} so far`, total.month || "0.00"], ["forecast", total.forecast || "0.00"]])
    figures.append(make("div", {}, make("dt", {}, name), make("dd", {}, usd(value))));
  parts.push(figures);
  if (days.length) {
    const rows = days.map((one) => [one.day, one.compute || "0.00", one.address || "0.00", one.volume || "0.00", one.snapshot || "0.00", one.total || "0.00"]);
    parts.push(chart(days.map((one) => ({ compute: "0", address: "0", volume: "0", snapshot: "0", total: "0", ...one }))));
    parts.push(make("p", { class: "soft" }, "Days in UTC. Upper part: box and address; lower part: volumes and snapshots."));
    parts.push(make("details", {}, make("summary", { "data-key": "days" }, "Figures"), make("div", { class: "wide" }, table(["day", "#compute", "#address", "#volumes", "#snapshots", "#total"], rows))));
  }
  for (const what of total.unknown || []) parts.push(make("p", { class: "note warning" }, `The price of ${what} is not known, so it is not in these sums.`));
  for (const note of found.prices || []) parts.push(make("p", { class: "soft" }, `Prices of ${note.region}: ${note.source}, ${note.date}` + (note.problem ? ` (${note.problem})` : "")));
  return parts;
}

function sessions(found) {
  if (!found.length) return empty("No session is open.");
  return [table(["box", "kind", "state", "since", ""], found.map((one) => {
    const button = make("button", { type: "button", "data-key": `end ${one.id}`, "aria-label": `End the ${one.kind} session of ${one.box}` }, "End…");
    button.addEventListener("click", () => confirmEnd(one, button));
    return [one.box, one.kind, one.detail ? `${one.state}: ${one.detail}` : one.state, clock(one.since), one.id ? button : ""];
  }))];
}

function confirmEnd(one, button) {
  const dialog = at("ask");
  at("ask-text").textContent = `End the ${one.kind} session of ${one.box}? What runs in it may end, too.`;
  at("ask-no").onclick = () => dialog.close();
  at("ask-yes").onclick = () => { dialog.close(); act(button, "/end", { session: one.id }, "the session is ended"); };
  // What was there may have been drawn anew meanwhile: the focus goes to what has its place.
  dialog.onclose = () => (document.querySelector(`[data-key="${CSS.escape(button.dataset.key || "")}"]`) || at("main")).focus();
  dialog.showModal();
}

async function act(button, path, body, done) {
  button.disabled = true;
  try {
    await ask(path, body);
    state(done);
  } catch (error) {
    state(error.message, true);
  } finally {
    quiet = Date.now() + SAID_FOR;
    button.disabled = false;
    soon();
  }
}

function show(found) {
  const conditions = found.status.conditions || [];
  at("conditions").hidden = conditions.length === 0;
  put("conditions", conditions, (all) => all.map((one) => make("div", { class: `note ${one.severity || "warning"}` }, make("strong", {}, one.title), make("p", {}, one.text), one.hint ? make("p", { class: "soft" }, one.hint) : null)));
  put("projects", [found.projects, found.idle], ([all, idle]) => all.length ? all.map((one) => project(one, idle[one.name])) : empty("There is no project. devboxctl launch makes one."));
  put("cost", found.cost, cost);
  put("sessions", found.sessions, sessions);
  put("forwards", found.forwards, (all) => all.length
    ? [table(["box", "local", "remote", "state", "#open"], all.map((one) => [one.box, one.local, one.remote, one.error || one.state, String(one.connections || 0)]))]
    : empty("No forward is kept."));
  if (Date.now() > quiet) state(`Live · ${clock(found.now)}`);
}

async function look() {
  clearTimeout(due);
  due = setTimeout(look, EVERY);
  try {
    show(await ask("/data"));
  } catch (error) {
    state(error instanceof TypeError ? "devboxd does not answer; this is what it said last" : error.message, true);
  }
}

function soon() {
  clearTimeout(due);
  due = setTimeout(look, SOON);
}

async function boxes() {
  setTimeout(boxes, BOXES_EVERY);
  try {
    const found = await ask("/boxes");
    put("boxes", found, (all) => [
      ...(all.conditions || []).map((one) => make("p", { class: "note warning" }, one.text)),
      ...(all.boxes.length ? [table(["name", "state", "type", "zone", "#usd/hour"], all.boxes.map((one) => [one.name, one.state, one.type || "", one.zone || "", one.hour || ""]))] : empty("There is no box.")),
    ]);
  } catch (error) {
    put("boxes", error.message, (text) => [make("p", { class: "note error" }, text)]);
  }
}

function follow() {
  const stream = new EventSource("/changes");
  stream.onmessage = (message) => {
    const event = JSON.parse(message.data), list = at("events");
    list.prepend(make("li", {}, make("span", { class: "soft" }, `${clock(event.time)} `), event.box ? `${event.box}: ` : "", event.text));
    while (list.children.length > EVENTS_SHOWN) list.lastChild.remove();
    soon();
  };
  stream.onerror = () => soon();
}

addEventListener("resize", () => { delete shown.cost; soon(); });
look();
boxes();
follow();
