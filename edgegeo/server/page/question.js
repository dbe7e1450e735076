// The question: a picture, words, a known area and the options, as the form that is sent.

import { Fault } from "/page/api.js";

const $ = (id) => document.getElementById(id);
const NUMBERS = { k: "tiles", candidates: "candidates", rerank: "re-ranked", sure: "% sure" };
const NAMES = { k: "Tiles", candidates: "Candidates", rerank: "Re-rank", sure: "Least confidence" };

export class Question {
  /** `ask` is called where a picture was given that wants an answer at once. */
  constructor(prior, ask) {
    Object.assign(this, { prior, ask, photo: null, example: null, preview: null, roles: [], gallery: null });
    for (const id of ["file", "camera"]) {
      $(id).addEventListener("change", () => {
        this.#given($(id).files);
        $(id).value = ""; // else the same file could not be chosen twice
      });
    }
    $("remove").addEventListener("click", () => {
      this.usePhoto(null);
      $("file").focus();
    });
    $("text").addEventListener("input", () => this.example && this.usePhoto(null));
    $("text").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
    });
    for (const id of Object.keys(NUMBERS)) $(id).addEventListener("input", () => this.#tell());
    document.addEventListener("paste", (event) => this.#given(event.clipboardData.files) && event.preventDefault());
    this.#dropping();
  }

  #dropping() {
    const over = (on) => (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      $("drop").classList.toggle("over", on);
    };
    for (const name of ["dragenter", "dragover"]) document.addEventListener(name, over(true));
    for (const name of ["dragleave", "drop"]) document.addEventListener(name, over(false));
    document.addEventListener("drop", (event) => this.#given(event.dataTransfer.files));
  }

  #given(files) {
    const [file] = files;
    if (!file) return false;
    this.usePhoto(file);
    this.ask();
    return true;
  }

  /** What the server can do decides which options there are. */
  offer({ roles, gallery }) {
    [this.roles, this.gallery] = [roles, gallery];
    $("rerank-option").hidden = !(roles.includes("rerank") && gallery);
    $("candidates-option").hidden = !roles.includes("generate");
    this.#tell();
  }

  /** The bundles that are served; a choice appears where there are several. */
  offerModels(cards) {
    $("model").replaceChildren(...cards.map((card) => new Option(card.id, card.id)));
    $("model-option").hidden = cards.length < 2;
  }

  #tell() {
    const shown = Object.keys(NUMBERS).filter((id) => !$(id).closest("label").hidden && Number($(id).value) > 0);
    $("options-said").textContent = shown.map((id) => `${$(id).value} ${NUMBERS[id]}`).join(", ");
  }

  usePhoto(blob, example = null) {
    if (this.preview) URL.revokeObjectURL(this.preview);
    this.photo = blob;
    this.example = example;
    this.preview = blob ? URL.createObjectURL(blob) : null;
    $("shown").hidden = !blob;
    $("hint").hidden = Boolean(blob);
    if (blob) $("preview").src = this.preview;
    else $("preview").removeAttribute("src");
    if (example) $("text").value = "";
    for (const button of $("example-list").children) {
      button.setAttribute("aria-pressed", String(example !== null && button.dataset.index === String(example.index)));
    }
  }

  useText(text) {
    this.usePhoto(null);
    $("text").value = text;
  }

  /** The form for /v1/locate; throws a Fault where something is missing. */
  form() {
    const text = $("text").value.trim();
    if (!this.photo && !text) throw new Fault("Choose a photo or describe a place first.");
    const form = new FormData();
    if (this.photo) form.append("image", this.photo, "photo");
    if (text) form.append("text", text);
    for (const id of ["k", "candidates", "rerank"]) if (!$(id).closest("label").hidden) form.append(id, this.#number(id));
    if (this.#number("sure") > 0) form.append("min_confidence", this.#number("sure") / 100);
    if (!$("model-option").hidden) form.append("model", $("model").value);
    const prior = this.#prior();
    if (prior) form.append("prior", prior);
    return form;
  }

  #number(id) {
    const field = $(id);
    if (field.value !== "" && field.validity.valid) return field.value;
    field.closest("details").open = true;
    field.focus();
    throw new Fault(`${NAMES[id]} must be a whole number from ${field.min} to ${field.max}.`);
  }

  #prior() {
    try {
      return this.prior.query();
    } catch (error) {
      throw error instanceof RangeError ? new Fault(error.message) : error;
    }
  }
}
