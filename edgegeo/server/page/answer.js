// The answer: where, how sure, what decided, the tiles, the candidates and the time.

import { picture } from "/page/api.js";
import { circle, distance, km, words } from "/page/sphere.js";

const $ = (id) => document.getElementById(id);
const ms = (value) => (value < 9.95 ? `${value.toFixed(1)} ms` : `${Math.round(value).toLocaleString("en")} ms`);
const percent = (share) => `${Math.round(share * 100)} %`;

const SAME_PLACE_KM = 1;
const CARDS = ["legend", "tiles-card", "evidence-card", "time-card", "figures", "warnings", "to-answer"];
const SOURCES = {
  generation: "Read from the picture by the model.",
  fusion: "The model's answers, weighed by the evidence.",
  retrieval: "Place of the best-fitting tile.",
  prior: "Mostly the area that was known before.",
};
const RULES = {
  "the tile": "A tile was taken as the answer.",
  "the prior": "The known area outweighed the rest.",
  "the one answer": "The model wrote one answer, and nothing else was weighed.",
};
const PARTS = { generation: "The model alone", retrieval: "The best tile", fusion: "Model and tiles" };
const STAGES = ["wait", "load", "decode", "preprocess", "vision", "embed", "search", "rerank", "generate", "network"];

function element(kind, className, ...content) {
  const node = document.createElement(kind);
  if (className) node.className = className;
  node.append(...content);
  return node;
}

export class AnswerView {
  constructor(map) {
    this.map = map;
    this.marks = [];
    this.focus = [];
  }

  clear() {
    for (const node of this.marks) this.map.remove(node);
    for (const name of ["answer", "way", "0.5", "0.8", "0.95"]) this.map.shape(name, null);
    this.marks = [];
    for (const id of CARDS) $(id).hidden = true;
  }

  /** `truth`: the true place where it is known; `total`: milliseconds until the answer was here. */
  async show(answer, truth, total) {
    this.clear();
    const place = answer.position;
    this.#head(answer, truth);
    this.#map(answer, truth);
    this.#evidence(answer);
    this.#times(answer.timings_ms, total);
    $("told").textContent = told(answer, truth);
    $("map").setAttribute("aria-label", `World map. ${place ? `The answer is at ${words(place)}` : "There is no answer"}`);
    await this.#tiles(answer.hits, place, truth);
  }

  #head(answer, truth) {
    const place = answer.position;
    $("place").textContent = place ? words(place) : answer.abstained ? "Not sure enough" : "No answer";
    $("how").replaceChildren(place ? source(answer) : nothing(answer));
    if (place && truth) {
      const far = element("b", "", `${km(distance(place, truth))} from the true place`);
      $("how").append(" ", far, ` (${words(truth)}).`);
    }
    const fitted = Boolean(answer.radius_km) || answer.confidence !== null;
    if (place && !fitted) $("how").append(" Nothing is known about the error of answers to this kind of question.");
    $("figures").hidden = !fitted;
    $("radius").textContent = place && answer.radius_km ? km(answer.radius_km) : "unknown";
    $("radius-note").textContent = place && answer.radius_km ? "holds four of five such answers" : "none is told";
    $("confidence").replaceChildren(answer.confidence === null ? "unknown" : percent(answer.confidence));
    if (answer.confidence !== null) {
      const meter = element("span", "meter", element("span", ""));
      meter.firstChild.style.width = `${answer.confidence * 100}%`;
      $("confidence").append(meter);
    }
    $("confidence-note").textContent = answer.confidence === null ? "none is told" : "share within 750 km";
    $("warnings").replaceChildren(...answer.warnings.map((line) => element("li", "", sentence(line))));
    $("warnings").hidden = answer.warnings.length === 0;
  }

  #mark(place, kind, title, text = "") {
    const node = this.map.mark(place, kind, title);
    node.textContent = text;
    this.marks.push(node);
    return node;
  }

  #map(answer, truth) {
    const { map } = this;
    const place = answer.position;
    const weights = answer.evidence?.candidates ?? [];
    if (place) {
      for (const [level, reach] of Object.entries(answer.radii_km)) {
        if (level !== "0.8") map.shape(level, { center: place, km: reach, kind: "answer", faint: true });
      }
      if (answer.radius_km) map.shape("answer", { center: place, km: answer.radius_km, kind: "answer" });
      if (truth) map.shape("way", { from: place, to: truth });
    }
    const drawn = answer.candidates.filter((one) => one.position);
    answer.candidates.forEach((one, i) => {
      if (!one.position) return;
      one.mark = this.#mark(one.position, "candidate", `Candidate ${i + 1}: ${words(one.position)}`);
      const size = 7 + 7 * Math.sqrt((weights[i] ?? 0) / Math.max(...weights, 1e-9));
      one.mark.style.width = one.mark.style.height = `${size.toFixed(1)}px`;
    });
    // The best tile on top of the others.
    for (let i = answer.hits.length - 1; i >= 0; i--) {
      const hit = answer.hits[i];
      hit.mark = this.#mark(hit.position, "tile", `Tile ${i + 1}: ${words(hit.position)}`, `${i + 1}`);
    }
    if (truth) this.#mark(truth, "truth", `True place: ${words(truth)}`);
    if (place) this.#mark(place, "answer", `Answer: ${words(place)}`);
    const there = { answer: place, truth, candidate: drawn.length, tile: answer.hits.length, prior: map.shapes.has("prior") };
    $("answer-key").textContent = place && answer.radius_km ? "answer, 80 % circle" : "answer";
    for (const item of $("legend").children) item.hidden = !there[item.dataset.of];
    $("legend").hidden = Object.values(there).every((one) => !one);
    this.#look(answer, truth, drawn);
  }

  // The answer with its circle, the true place, the weightier candidates and the known area; else the tiles.
  #look(answer, truth, drawn) {
    const place = answer.position;
    const prior = this.map.shapes.get("prior");
    const around = ({ center, km: reach }) => (reach < 4000 ? circle(center, reach, 12).line : [center]);
    this.focus = place ? [place, ...(truth ? [truth] : [])] : answer.hits.map((hit) => hit.position);
    if (place && answer.radius_km) this.focus.push(...around({ center: place, km: answer.radius_km }));
    if (place && prior) this.focus.push(...around(prior));
    else if (place && !answer.radius_km) {
      this.focus.push(...drawn.map((one) => one.position), ...answer.hits.slice(0, 3).map((hit) => hit.position));
    }
    $("to-answer").hidden = this.focus.length === 0;
    this.map.fit(this.focus);
  }

  async #tiles(hits, place, truth) {
    $("tiles-card").hidden = hits.length === 0;
    $("tiles").replaceChildren(...hits.map((hit, i) => element("li", "", this.#tile(hit, i, place, truth))));
    await Promise.all(
      hits.map(async (hit, i) => {
        const shot = $("tiles").children[i].querySelector("img");
        shot.src = await picture(hit.thumbnail).catch(() => "");
        shot.onload = () => URL.revokeObjectURL(shot.src);
      }),
    );
  }

  #tile(hit, i, place, truth) {
    const right = truth !== null && distance(truth, hit.position) < SAME_PLACE_KM;
    const button = element("button", right ? "right" : "");
    button.type = "button";
    const shot = element("img", "shot");
    shot.alt = "";
    shot.width = shot.height = 128;
    const rank = element("span", "rank", `${i + 1}`);
    rank.setAttribute("aria-label", `Tile ${i + 1}`);
    const score = element("span", "score", rank, element("span", "", hit.score.toFixed(3)));
    button.append(shot, score);
    if (hit.rerank_score !== null) button.append(element("span", "line", `yes ${(hit.rerank_score * 100).toFixed(1)} %`));
    button.append(element("span", "line", words(hit.position, 0).replaceAll("° ", "°")));
    button.append(element("span", "line", right ? "true place" : away(place, hit.position).replace(" away", "")));
    this.#link(button, hit);
    hit.mark.addEventListener("click", () => button.focus());
    for (const [event, on] of [["mouseenter", true], ["mouseleave", false]]) {
      hit.mark.addEventListener(event, () => button.classList.toggle("lit", on));
    }
    return button;
  }

  // Pointing at a tile or candidate lights its mark; pressing brings it into view.
  #link(node, one) {
    const light = (on) => () => one.mark.classList.toggle("lit", on);
    for (const event of ["mouseenter", "focus"]) node.addEventListener(event, light(true));
    for (const event of ["mouseleave", "blur"]) node.addEventListener(event, light(false));
    node.addEventListener("click", () => {
      this.map.show(one.position);
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      $("map").scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
    });
  }

  #evidence({ evidence, candidates, position }) {
    if (!evidence) return;
    const lines = [RULES[evidence.rule] ?? sentence(evidence.rule)];
    if (evidence.agreement !== null && evidence.spread_km !== null) {
      lines.push(`${percent(evidence.agreement)} of the candidates lie within 750 km of their centre; they are ${km(evidence.spread_km)} from it on average.`);
    }
    if (evidence.prior_pull > 0.005) lines.push(`The known area pulled the answer by ${percent(evidence.prior_pull)}.`);
    $("rule").textContent = lines.join(" ");
    const proposals = Object.entries(evidence.proposals);
    $("proposals").replaceChildren(
      ...proposals.map(([part, place]) => {
        const item = element("li", part === evidence.decided ? "decided" : "", element("b", "", PARTS[part] ?? part), element("span", "", words(place)));
        const moved = position && distance(position, place) >= SAME_PLACE_KM;
        const decided = position ? `decided${moved ? ", with the known area" : ""}` : "withheld";
        const note = part === evidence.decided ? decided : away(position, place);
        item.append(element("span", "far", note));
        return item;
      }),
    );
    $("candidates-fold").hidden = candidates.length < 2;
    $("candidates-said").textContent = `${candidates.length}`;
    const most = Math.max(...evidence.candidates, 1e-9);
    $("candidate-list").replaceChildren(...candidates.map((one, i) => this.#candidate(one, evidence.candidates[i] ?? 0, most)));
    $("evidence-card").hidden = false;
  }

  #candidate(one, weight, most) {
    const bar = element("span", "bar", element("span", ""));
    bar.firstChild.style.width = `${(weight / most) * 100}%`;
    const button = element("button", "", element("span", "", one.position ? words(one.position, 1) : one.text), bar, element("span", "far", percent(weight)));
    button.type = "button";
    if (one.position) this.#link(button, one);
    else button.disabled = true;
    return element("li", "", button);
  }

  #times(timings, total) {
    const stages = Object.entries(timings).filter(([name]) => name !== "total");
    stages.push(["network", Math.max(0, total - timings.total)]);
    stages.sort(([a], [b]) => STAGES.indexOf(a) - STAGES.indexOf(b));
    const most = Math.max(...stages.map(([, spent]) => spent), 1e-9);
    $("time-total").textContent = ms(total);
    $("stages").replaceChildren(
      ...stages.map(([name, spent]) => {
        const bar = element("span", "bar", element("span", `stage-${STAGES.indexOf(name) + 1}`));
        bar.firstChild.style.width = `${(spent / most) * 100}%`;
        return element("li", "", element("span", "", name.replaceAll("_", " ")), bar, element("span", "far", ms(spent)));
      }),
    );
    $("time-card").hidden = false;
  }
}

function away(place, other) {
  if (!place) return "";
  const far = distance(place, other);
  return far < SAME_PLACE_KM ? "the answer" : `${km(far)} away`;
}

// A known area, or re-ranking, can make another tile than the first one the answer.
function source({ source: from, position, hits }) {
  const taken = hits.findIndex((hit) => distance(hit.position, position) < SAME_PLACE_KM);
  return from === "retrieval" && taken > 0 ? `Place of tile ${taken + 1}.` : SOURCES[from];
}

const sentence = (line) => `${line.charAt(0).toUpperCase()}${line.slice(1)}${/[.!?]$/.test(line) ? "" : "."}`;
const nothing = (answer) =>
  answer.abstained ? "A place was found, but its confidence is below the one asked for." : "The model gave no position and no tile fits.";

/** The answer for the ear: one line. */
function told(answer, truth) {
  const place = answer.position;
  if (!place) return `No answer. ${nothing(answer)}`;
  const parts = [`Answer: ${words(place)}.`, source(answer)];
  if (answer.radius_km) parts.push(`Within ${km(answer.radius_km)} four times out of five.`);
  if (answer.confidence !== null) parts.push(`Confidence ${percent(answer.confidence)}.`);
  if (truth) parts.push(`${km(distance(place, truth))} from the true place.`);
  return [...parts, ...answer.warnings.map(sentence), `${answer.hits.length} tiles.`].join(" ");
}
