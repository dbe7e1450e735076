// The circle in which the place is known to lie: three number fields, and a centre and a rim on the map, kept in step.

import { destination, distance, km, LONGEST_KM, words, wrapped } from "/page/sphere.js";

const MIN_KM = 1;
const MAX_KM = 20000;
const SMALLEST_PX = 12;
const clampKm = (value) => Math.min(MAX_KM, Math.max(MIN_KM, value));
// Three figures are enough for something that is only known roughly.
const rounded = (value) => clampKm(Number(value.toPrecision(3)));

export class PriorCircle {
  /** `fields`: inputs lat, lon, km; `draw`: the toggle; `clear`: the button; `said`: where it is told in words. */
  constructor(map, { lat, lon, km: reach, draw, clear, said }) {
    Object.assign(this, { map, fields: [lat, lon, reach], drawButton: draw, clearButton: clear, said, value: null });
    this.centre = this.#handle("prior", "button");
    this.rim = this.#handle("rim", "div");
    this.rim.setAttribute("role", "slider");
    this.rim.tabIndex = 0;
    this.rim.setAttribute("aria-label", "Radius of the known area");
    this.rim.setAttribute("aria-valuemin", MIN_KM);
    this.rim.setAttribute("aria-valuemax", MAX_KM);
    for (const field of this.fields) field.addEventListener("input", () => this.#read());
    clear.addEventListener("click", () => {
      this.set(null);
      draw.focus();
    });
    draw.addEventListener("click", (event) => this.#drawing(draw.getAttribute("aria-pressed") !== "true", event.detail === 0));
    addEventListener("keydown", (event) => event.key === "Escape" && this.#drawing(false));
    this.set(null);
  }

  /** "lat,lon,km" for the API, null without a circle; throws a sentence where the fields make none. */
  query() {
    if (this.value) return [this.value.lat, this.value.lon, this.value.km].join(",");
    if (this.fields.every((field) => field.value === "" && field.validity.valid)) return null;
    const wrong = this.fields.find((field) => field.value === "" || !field.validity.valid);
    wrong.focus();
    throw new RangeError(
      "The known area needs a latitude from -90 to 90, a longitude from -180 to 180 and a radius from 1 to 20,000 km.",
    );
  }

  /** A circle {lat, lon, km}, or null. */
  set(value, told = true) {
    const degrees = (number) => Number(number.toFixed(4)); // ten metres
    this.value = value && { lat: degrees(value.lat), lon: degrees(wrapped(value.lon)), km: rounded(value.km) };
    if (told) this.#write();
    this.#show();
  }

  // With the keyboard the circle appears in the middle of the map, ready to be moved.
  #drawing(on, byKey = false) {
    this.drawButton.setAttribute("aria-pressed", String(on && !byKey));
    this.map.root.classList.toggle("drawing", on && !byKey);
    this.map.tool = null;
    if (!on) return;
    if (!byKey) return (this.map.tool = this.#tool());
    if (!this.value) this.set({ lat: this.map.view.lat, lon: this.map.view.lon, km: this.#usual() });
    this.map.show(this.value);
    this.centre.focus();
  }

  #usual() {
    const { view } = this.map;
    return distance(view.place(view.width / 2, view.height / 2), view.place(view.width / 2, view.height * 0.65));
  }

  #tool() {
    let [from, before] = [null, this.value];
    const wide = (place) => {
      const [a, b] = [this.map.view.point(from), this.map.view.point(place)];
      return Math.hypot(a[0] - b[0], a[1] - b[1]) >= SMALLEST_PX;
    };
    return {
      begin: (place) => {
        [from, before] = [place, this.value];
        this.set({ ...place, km: this.#usual() });
      },
      drag: (place) => from && wide(place) && this.set({ ...from, km: distance(from, place) }),
      end: () => this.#drawing(false),
      cancel: () => this.set(before),
    };
  }

  #handle(kind, element) {
    const node = document.createElement(element);
    if (element === "button") node.type = "button";
    this.map.mark({ lat: 0, lon: 0 }, kind, "", node);
    node.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      event.stopPropagation();
      node.focus({ preventScroll: true });
      node.setPointerCapture(event.pointerId);
    });
    node.addEventListener("pointermove", (event) => {
      if (!node.hasPointerCapture(event.pointerId)) return;
      const box = this.map.root.getBoundingClientRect();
      const place = this.map.view.place(event.clientX - box.left, event.clientY - box.top);
      this.set(kind === "rim" ? { ...this.value, km: distance(this.value, place) } : { ...this.value, ...place });
    });
    node.addEventListener("keydown", (event) => this.#key(event, kind));
    return node;
  }

  #key(event, kind) {
    const fast = event.shiftKey ? 5 : 1;
    const { value } = this;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const wider = { "+": 1.1, "=": 1.1, PageUp: 1.5, "-": 1 / 1.1, PageDown: 1 / 1.5 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") {
      this.set(null);
      this.drawButton.focus();
    } else if (wider) this.set({ ...value, km: this.#grown(wider) });
    else if (step && kind === "rim") this.set({ ...value, km: this.#grown(1.1 ** ((step[0] || step[1]) * fast)) });
    else if (step) {
      const px = 12 * fast;
      const lat = Math.max(-90, Math.min(90, value.lat + (step[1] * px) / this.map.view.ky));
      this.set({ ...value, lat, lon: value.lon + (step[0] * px) / this.map.view.kx });
      this.map.show(this.value);
    } else return;
    event.preventDefault();
  }

  // A tenth of 1 km would be rounded away.
  #grown(factor) {
    const { km: before } = this.value;
    return factor > 1 ? Math.max(before * factor, before + 0.5) : before * factor;
  }

  #read() {
    const numbers = this.fields.map((field) => (field.value === "" || !field.validity.valid ? null : field.valueAsNumber));
    const [lat, lon, reach] = numbers;
    this.set(numbers.includes(null) ? null : { lat, lon, km: reach }, false);
    if (this.value) this.map.show(this.value);
  }

  #write() {
    const { value, fields } = this;
    const digits = value && value.km < 20 ? 4 : 2;
    [fields[0].value, fields[1].value] = value ? [value.lat.toFixed(digits), value.lon.toFixed(digits)] : ["", ""];
    fields[2].value = value ? value.km : "";
  }

  #show() {
    const { map, value, centre, rim } = this;
    for (const node of [centre, rim]) node.hidden = !value;
    this.clearButton.hidden = !value;
    this.said.textContent = value ? `${words(value, 1)} ± ${km(value.km)}` : "anywhere";
    map.shape("prior", value && { center: value, km: value.km, kind: "prior" });
    if (!value) return;
    centre.setAttribute(
      "aria-label",
      `Centre of the known area, ${words(value, 1)}. Arrow keys move it, plus and minus change the radius, Delete removes it.`,
    );
    rim.setAttribute("aria-valuenow", value.km);
    rim.setAttribute("aria-valuetext", km(value.km));
    map.move(centre, value);
    map.move(rim, destination(value, 90, Math.min(value.km, LONGEST_KM / 2)));
  }
}
