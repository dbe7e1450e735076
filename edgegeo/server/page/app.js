// The page: one form, one question at a time, one answer.

import { AnswerView } from "/page/answer.js";
import { call, Fault, fetchJson, picture } from "/page/api.js";
import { zoom } from "/page/gestures.js";
import { WorldMap } from "/page/map.js";
import { PriorCircle } from "/page/prior.js";
import { Question } from "/page/question.js";

const $ = (id) => document.getElementById(id);
const setState = (name) => (document.body.dataset.state = name);
const WARM_UP_MS = 1000;

const map = new WorldMap($("map"));
const prior = new PriorCircle(map, {
  lat: $("prior-lat"), lon: $("prior-lon"), km: $("prior-km"), draw: $("prior-draw"), clear: $("prior-clear"), said: $("prior-said"),
});
const answers = new AnswerView(map);
const question = new Question(prior, ask);
let examples = [];
let pending = null;

function fault(error) {
  const known = error instanceof Fault;
  $("fault").textContent = known ? error.message : "The page could not show this answer.";
  $("fault").hidden = false;
  $("place").textContent = "No answer";
  $("how").textContent = "";
  setState("error");
  if (!known) console.error(error);
}

async function ask() {
  pending?.abort();
  const mine = (pending = new AbortController());
  $("fault").hidden = true;
  try {
    const body = question.form();
    setState("busy");
    $("go").disabled = true;
    $("place").textContent = "Locating…";
    $("how").textContent = "";
    $("figures").hidden = true;
    const begun = performance.now();
    const truth = question.example?.truth ?? null;
    const answer = await fetchJson("/v1/locate", { method: "POST", body, signal: mine.signal });
    await answers.show(answer, truth, performance.now() - begun);
    setState("done");
    if (matchMedia("(max-width: 820px)").matches) $("result").scrollIntoView({ block: "start" });
  } catch (error) {
    if (error.name === "AbortError") return;
    answers.clear();
    fault(error);
  } finally {
    if (pending === mine) $("go").disabled = false;
  }
}

async function tryExample(example) {
  try {
    question.usePhoto(await (await call(example.photo)).blob(), example);
    history.replaceState(null, "", `#example=${example.index}`);
  } catch (error) {
    fault(error);
    return;
  }
  await ask();
}

async function showExamples() {
  examples = (await fetchJson("/v1/examples")).data;
  const buttons = examples.map((example) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.index = example.index;
    button.setAttribute("aria-pressed", "false");
    button.title = example.description;
    const shot = new Image();
    shot.alt = `Example ${example.index + 1}: ${example.description}`;
    button.append(shot);
    button.addEventListener("click", () => tryExample(example));
    picture(example.photo).then((address) => (shot.src = address), () => {});
    return button;
  });
  $("example-list").replaceChildren(...buttons);
  $("examples").hidden = false;
}

async function showMap(ready) {
  const data = await fetchJson(ready.basemap);
  $("credit").textContent = data.name;
  map.use(data);
  if (!ready.map) return;
  const tint = new Image();
  tint.src = await picture(ready.map);
  await tint.decode();
  map.use(data, tint);
}

function showServed(ready) {
  const precision = [...new Set(Object.values(ready.precision))].join(" + ");
  const device = (ready.provider[0] ?? "").replace("ExecutionProvider", "");
  const tiles = ready.gallery ? `${ready.gallery.tiles.toLocaleString("en")} tiles` : "no gallery";
  $("served").textContent = [ready.bundle, precision, device, tiles].filter(Boolean).join(" · ");
}

// A server that has just been started says that it is warming up, until it is not.
async function untilReady() {
  for (;;) {
    try {
      return await fetchJson("/health/ready");
    } catch (error) {
      if (error.code !== "not_ready") throw error;
      $("how").textContent = error.message;
      await new Promise((resolve) => setTimeout(resolve, WARM_UP_MS));
    }
  }
}

// #example=2 and #text=... ask at once, so that a question can be passed on as a link.
async function followLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const example = examples[Number.parseInt(link.get("example") ?? "", 10)];
  if (example) return tryExample(example);
  if (!link.get("text")) return undefined;
  question.useText(link.get("text"));
  return ask();
}

async function begin() {
  const ready = await untilReady();
  showServed(ready);
  question.offer(ready);
  await Promise.all([
    showMap(ready),
    ready.examples ? showExamples() : null,
    fetchJson("/v1/models").then(({ data }) => question.offerModels(data)),
  ]);
  $("how").textContent = ready.examples
    ? "Pick an example, choose a photo, or describe a place."
    : "Choose a photo, or describe a place.";
  setState("idle");
  await followLink();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("zoom-in").addEventListener("click", () => zoom(1.8)(map));
$("zoom-out").addEventListener("click", () => zoom(1 / 1.8)(map));
$("world").addEventListener("click", () => map.world());
$("to-answer").addEventListener("click", () => map.fit(answers.focus));
addEventListener("hashchange", () => followLink());
begin().catch(fault);
