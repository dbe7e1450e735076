// The page: one form, one question at a time, one answer.

import { WorldMap, distance, words } from "/page/map.js";

const $ = (id) => document.getElementById(id);
const map = new WorldMap($("map"));
const state = { photo: null, example: null, examples: [], ready: null, pending: null, previewAddress: null };

const setState = (name) => (document.body.dataset.state = name);
const km = (value) => (value < 10 ? `${value.toFixed(1)} km` : `${Math.round(value).toLocaleString("en")} km`);
const ms = (value) => (value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`);

class Fault extends Error {}

const SAME_PLACE_KM = 1;
const STAGES = ["decode", "preprocess", "vision", "embed", "search", "rerank", "generate"];

function element(kind, className, text) {
  const node = document.createElement(kind);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Every call goes through here: it carries the key and turns the error envelope into one line.
async function call(address, options = {}) {
  const key = $("key").value.trim() || sessionStorage.getItem("edgegeo-key");
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch(address, { ...options, headers: { ...headers, ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The server does not answer. Is it still running?");
  }
  if (response.ok) {
    if (key) sessionStorage.setItem("edgegeo-key", key);
    return response;
  }
  if (response.status === 401) {
    $("key-row").hidden = false;
    sessionStorage.removeItem("edgegeo-key");
  }
  const body = await response.json().catch(() => null);
  const line = body?.error?.message ?? `the server answered ${response.status}`;
  throw new Fault(line.charAt(0).toUpperCase() + line.slice(1));
}

const picture = async (address) => URL.createObjectURL(await (await call(address)).blob());

function fault(error) {
  $("fault").textContent = error instanceof Fault ? error.message : "The page could not show this answer.";
  $("fault").hidden = false;
  $("place").textContent = "No answer";
  $("how").textContent = "";
  setState("error");
  if (!(error instanceof Fault)) console.error(error);
}

// ---- the question ----

function usePhoto(blob, example = null) {
  state.photo = blob;
  state.example = example;
  if (state.previewAddress) URL.revokeObjectURL(state.previewAddress);
  state.previewAddress = blob ? URL.createObjectURL(blob) : null;
  $("preview").hidden = !blob;
  $("hint").hidden = Boolean(blob);
  if (blob) {
    $("preview").src = state.previewAddress;
    $("text").value = "";
  } else {
    $("preview").removeAttribute("src");
  }
  for (const button of $("example-list").children) {
    button.setAttribute("aria-pressed", String(example !== null && button.dataset.index === String(example.index)));
  }
}

function question() {
  const text = $("text").value.trim();
  const form = new FormData();
  if (state.photo) form.append("image", state.photo, "photo");
  else if (text) form.append("text", text);
  else throw new Fault("Choose a photo or describe a place first.");
  const k = Math.min(48, Math.max(1, Number.parseInt($("k").value, 10) || 8));
  form.append("k", k);
  if ($("rerank").checked) form.append("rerank", k);
  return form;
}

async function ask() {
  state.pending?.abort();
  const mine = (state.pending = new AbortController());
  $("fault").hidden = true;
  setState("busy");
  $("go").disabled = true;
  $("place").textContent = "Locating…";
  $("how").textContent = "";
  const begun = performance.now();
  try {
    const truth = state.example?.truth ?? null;
    const response = await call("/v1/locate", { method: "POST", body: question(), signal: mine.signal });
    const answer = await response.json();
    await show(answer, truth, performance.now() - begun);
    setState("done");
    if (matchMedia("(max-width: 820px)").matches) $("result").scrollIntoView({ block: "start" });
  } catch (error) {
    if (error.name === "AbortError") return;
    clear();
    fault(error);
  } finally {
    if (state.pending === mine) $("go").disabled = false;
  }
}

// ---- the answer ----

function clear() {
  map.clear();
  for (const id of ["legend", "tiles-card", "time-card"]) $(id).hidden = true;
}

function away(place, tilePlace) {
  if (!place) return "";
  const far = distance(place, tilePlace);
  return far < SAME_PLACE_KM ? "the answer" : `${km(far)} away`;
}

const HOW = {
  generation: "Read from the picture by the model.",
  fusion: "The model's answers, weighed by the tiles that fit.",
  retrieval: "Place of the best-fitting tile.",
  prior: "The place that was known before.",
  none: "",
};

async function show(answer, truth, total) {
  clear();
  const place = answer.position;
  $("place").textContent = place ? words(place) : "No answer";
  const none = answer.abstained ? "Not sure enough to answer." : "The model gave no position and no tile fits.";
  const how = [place ? HOW[answer.source] : none];
  if (place && answer.radius_km) how.push(`Within ${km(answer.radius_km)} with 80 %.`);
  if (place) how.push(...answer.warnings.map((warning) => `Careful: ${warning}.`));
  $("how").replaceChildren(how.join(" "));
  if (place && truth) {
    $("how").append(" ", element("b", "", `${km(distance(place, truth))} from the true place`), ` (${words(truth)}).`);
  }
  drawMap(answer, place, truth);
  showTimes(answer.timings_ms, total);
  await showTiles(answer.hits, place, truth);
}

function drawMap(answer, place, truth) {
  if (place && answer.radius_km) map.circle(place, answer.radius_km);
  if (place && truth) map.line(place, truth);
  answer.hits.forEach((hit, i) => (hit.mark = map.mark(hit.position, "tile", `Tile ${i + 1}: ${words(hit.position)}`)));
  if (place) map.mark(place, "answer", `Answer: ${words(place)}`);
  if (truth) map.mark(truth, "truth", `True place: ${words(truth)}`);
  $("legend").hidden = !(place || answer.hits.length);
  $("legend-truth").hidden = !truth;
  const told = [place ? `answer at ${words(place)}` : "no answer", truth ? `true place at ${words(truth)}` : ""];
  $("map").setAttribute("aria-label", `World map: ${told.filter(Boolean).join(", ")}`);
}

async function showTiles(hits, place, truth) {
  $("tiles-card").hidden = hits.length === 0;
  $("tiles").replaceChildren(...hits.map((hit, i) => tile(hit, i, place, truth)));
  await Promise.all(
    hits.map(async (hit, i) => {
      const shot = $("tiles").children[i].querySelector("img");
      shot.src = await picture(hit.thumbnail).catch(() => "");
    }),
  );
}

function tile(hit, i, place, truth) {
  const right = truth !== null && distance(truth, hit.position) < SAME_PLACE_KM;
  const button = element("button", right ? "right" : "");
  button.type = "button";
  const shot = element("img", "shot");
  shot.alt = `Tile ${i + 1}`;
  shot.width = shot.height = 128;
  const score = element("span", "score");
  score.append(element("span", "", `${i + 1}`), element("span", "", hit.score.toFixed(3)));
  button.append(shot, score);
  if (hit.rerank_score !== null) button.append(element("span", "line", `yes ${(hit.rerank_score * 100).toFixed(1)} %`));
  button.append(element("span", "line", words(hit.position, 1).replaceAll("° ", "°")));
  button.append(element("span", "line", right ? "the true place" : away(place, hit.position)));
  const light = (on) => () => hit.mark.classList.toggle("lit", on);
  for (const event of ["mouseenter", "focus"]) button.addEventListener(event, light(true));
  for (const event of ["mouseleave", "blur"]) button.addEventListener(event, light(false));
  button.addEventListener("click", () => $("map").scrollIntoView({ block: "nearest", behavior: "smooth" }));
  const item = element("li");
  item.append(button);
  return item;
}

function showTimes(timings, total) {
  const stages = Object.entries(timings).filter(([name]) => name !== "total");
  stages.push(["network", Math.max(0, total - timings.total)]);
  $("time-total").textContent = ms(total);
  $("bar").replaceChildren();
  $("stages").replaceChildren();
  stages.forEach(([name, spent]) => {
    const colour = `stage-${STAGES.indexOf(name) + 1}`;
    const piece = element("span", colour);
    piece.style.flexGrow = spent;
    $("bar").append(piece);
    const item = element("li");
    item.append(element("i", `dot ${colour}`), `${name.replaceAll("_", " ")} ${ms(spent)}`);
    $("stages").append(item);
  });
  $("time-card").hidden = false;
}

// ---- the start ----

async function showExamples() {
  const { data } = await (await call("/v1/examples")).json();
  state.examples = data;
  $("example-list").replaceChildren(
    ...data.map((example) => {
      const button = element("button");
      button.type = "button";
      button.dataset.index = example.index;
      button.setAttribute("aria-pressed", "false");
      button.title = example.description;
      const shot = element("img");
      shot.alt = `Example ${example.index + 1}: ${example.description}`;
      button.append(shot);
      button.addEventListener("click", () => tryExample(example));
      picture(example.photo).then((address) => (shot.src = address), () => {});
      return button;
    }),
  );
  $("examples").hidden = false;
}

async function tryExample(example) {
  try {
    usePhoto(await (await call(example.photo)).blob(), example);
    history.replaceState(null, "", `#example=${example.index}`);
  } catch (error) {
    fault(error);
    return;
  }
  await ask();
}

function showServed(ready) {
  const precision = [...new Set(Object.values(ready.precision))].join(" + ");
  const device = (ready.provider[0] ?? "").replace("ExecutionProvider", "");
  const tiles = ready.gallery ? `${ready.gallery.tiles.toLocaleString("en")} tiles` : "no gallery";
  $("served").textContent = [ready.bundle, precision, device, tiles].filter(Boolean).join(" · ");
  $("rerank-option").hidden = !(ready.roles.includes("rerank") && ready.gallery);
}

function listen() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  for (const id of ["file", "camera"]) {
    $(id).addEventListener("change", () => {
      const file = $(id).files[0];
      if (!file) return;
      usePhoto(file);
      $(id).value = ""; // else the same file could not be chosen twice
      ask();
    });
  }
  $("text").addEventListener("input", () => {
    if ($("text").value && state.photo) usePhoto(null);
  });
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  });
  $("key").addEventListener("change", () => begin().catch(fault));
  const over = (on) => (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", on);
  };
  for (const name of ["dragenter", "dragover"]) document.addEventListener(name, over(true));
  for (const name of ["dragleave", "drop"]) document.addEventListener(name, over(false));
  document.addEventListener("drop", (event) => {
    const file = event.dataTransfer.files[0];
    if (!file) return;
    usePhoto(file);
    ask();
  });
}

// #example=2 and #text=... ask at once, so that a question can be passed on as a link.
async function followLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const example = state.examples[Number.parseInt(link.get("example") ?? "", 10)];
  if (example) return tryExample(example);
  if (!link.get("text")) return undefined;
  usePhoto(null);
  $("text").value = link.get("text");
  return ask();
}

async function begin() {
  state.ready = await (await call("/health/ready")).json();
  showServed(state.ready);
  if (state.ready.gallery?.map && !$("map").classList.contains("pictured")) map.picture(await picture(state.ready.gallery.map));
  if (state.ready.examples) await showExamples();
  $("fault").hidden = true;
  $("key-row").hidden = true;
  setState("idle");
  await followLink();
}

listen();
addEventListener("hashchange", () => followLink());
begin().catch(fault);
