// The world map: a canvas with the basemap and circles, marks above it, and a view that can be moved.

import { Basemap } from "/page/basemap.js";
import { steer } from "/page/gestures.js";
import { circle, distance, greatCircle, km } from "/page/sphere.js";
import { View } from "/page/view.js";

const COLOURS = ["sea", "shallow", "land", "coast", "border", "grid", "label", "halo", "tint", "answer", "prior", "way"];
const FLIGHT_MS = 420;
const SCALE_PX = 110;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class WorldMap {
  /** `root` holds a canvas, a `.marks` layer and a `.scale`. */
  constructor(root) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.layer = root.querySelector(".marks");
    this.scale = root.querySelector(".scale");
    this.context = this.canvas.getContext("2d");
    this.basemap = new Basemap(null);
    this.picture = null;
    this.view = new View();
    this.marks = new Map();
    this.shapes = new Map();
    this.colours = null;
    this.drawn = false;
    new ResizeObserver(() => this.#measure()).observe(root);
    addEventListener("themechange", () => this.refresh());
    steer(this);
    this.#measure();
    this.invalidate();
  }

  use(data, picture = null) {
    this.basemap = new Basemap(data);
    this.picture = picture;
    this.refresh();
  }

  /** Draw again, with the colours as they are now. */
  refresh() {
    this.colours = null;
    this.invalidate();
  }

  /** A mark of a class at a place, above the map; `node` may bring its own element. Returns the element. */
  mark(place, kind, title, node = document.createElement("i")) {
    node.classList.add("mark", `${kind}-mark`);
    if (title) node.title = title;
    this.layer.append(node);
    this.marks.set(node, place);
    this.invalidate();
    return node;
  }

  move(node, place) {
    this.marks.set(node, place);
    this.invalidate();
  }

  remove(node) {
    node.remove();
    this.marks.delete(node);
  }

  /** A named shape below the marks, replaced by the next one of its name: {center, km, kind} or {from, to}; null: none. */
  shape(name, shape) {
    if (shape) this.shapes.set(name, shape);
    else this.shapes.delete(name);
    this.invalidate();
  }

  /** Another view, at once or in flight. */
  go(view, flying = true) {
    this.#measure();
    const [from, begun] = [this.view.copy(), performance.now()];
    const flight = (this.flight = {});
    if (!flying || still.matches || document.hidden) return this.#look(view);
    const step = (time) => {
      if (this.flight !== flight) return;
      const share = Math.min(1, Math.max(0, (time - begun) / FLIGHT_MS));
      this.#look(share < 1 ? from.between(view, 1 - (1 - share) ** 3) : view);
      if (share < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  /** Show all of these places. */
  fit(places) {
    this.#measure();
    if (places.length) this.go(this.view.copy().fitted(places));
  }

  /** Bring a place into the middle unless it can be seen. */
  show(place) {
    this.#measure();
    const [x, y] = this.view.point(place);
    const inside = x > 30 && y > 30 && x < this.view.width - 30 && y < this.view.height - 30;
    if (!inside) this.go(this.view.copy().hold(place, this.view.width / 2, this.view.height / 2));
  }

  world() {
    const view = this.view.copy();
    view.zoom = 1;
    this.go(view.hold({ lat: 0, lon: view.lon }, view.width / 2, view.height / 2));
  }

  invalidate() {
    if (this.drawn) return;
    this.drawn = true;
    requestAnimationFrame(() => {
      this.drawn = false;
      this.#draw();
    });
  }

  // The view as it was asked for, on the map as large as it is by then.
  #look(view) {
    const { width, height } = this.view;
    this.view = Object.assign(view.copy(), { width, height });
    this.view.hold(view, width / 2, height / 2);
    this.invalidate();
  }

  // The layout may have changed since the last frame, and nobody has told yet.
  #measure() {
    const [width, height] = [Math.max(1, this.root.clientWidth), Math.max(1, this.root.clientHeight)];
    if (width === this.view.width && height === this.view.height) return;
    Object.assign(this.view, { width, height });
    this.view.hold(this.view.copy(), width / 2, height / 2);
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    this.invalidate();
  }

  #draw() {
    this.#measure();
    const { context, view } = this;
    if (!this.colours) {
      const style = getComputedStyle(this.root);
      this.colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--map-${name}`).trim()]));
    }
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    this.basemap.draw(context, view, this.colours, this.picture);
    const taken = this.#place();
    this.basemap.drawLabels(context, view, this.colours, taken);
    for (const shape of this.shapes.values()) shape.km ? this.#circle(shape) : this.#line(shape);
    this.#rule();
    this.root.dataset.zoom = view.zoom.toFixed(2);
  }

  /** Puts the marks where they belong; the boxes that they and the controls take. */
  #place() {
    const { width, height } = this.view;
    const boxes = [[width - 56, 0, width, 180], [0, height - 30, 130, height], [width - 190, height - 24, width, height]];
    for (const [node, place] of this.marks) {
      const [x, y] = this.view.point(place);
      const seen = x > -20 && y > -20 && x < this.view.width + 20 && y < this.view.height + 20;
      node.classList.toggle("away", !seen);
      node.style.left = `${x.toFixed(1)}px`;
      node.style.top = `${y.toFixed(1)}px`;
      if (seen) boxes.push([x - 9, y - 9, x + 9, y + 9]);
    }
    return boxes;
  }

  // A line of places as a path, in every copy of the world that can be seen.
  #path(line, inverse = false) {
    const path = new Path2D();
    const { view } = this;
    if (inverse) path.rect(-10, -10, view.width + 20, view.height + 20);
    for (let turn = -2; turn <= 2; turn++) {
      line.forEach((place, i) => {
        const x = view.width / 2 + (place.lon + 360 * turn - view.lon) * view.kx;
        const y = view.height / 2 + (view.lat - place.lat) * view.ky;
        if (i) path.lineTo(x, y);
        else path.moveTo(x, y);
      });
    }
    return path;
  }

  #circle({ center, km: reach, kind, faint }) {
    const { line, inverse } = circle(center, reach);
    const path = this.#path(line, inverse);
    const { context } = this;
    context.save();
    context.fillStyle = context.strokeStyle = this.colours[kind];
    context.globalAlpha = faint ? 0.05 : 0.14;
    context.fill(path, "evenodd");
    context.globalAlpha = faint ? 0.55 : 1;
    context.lineWidth = faint ? 1 : 2;
    context.setLineDash(faint ? [2, 3] : kind === "prior" ? [7, 4] : []);
    context.stroke(path);
    context.restore();
  }

  #line({ from, to }) {
    const { context } = this;
    const path = this.#path(greatCircle(from, to));
    context.save();
    context.strokeStyle = this.colours.halo;
    context.lineWidth = 4;
    context.globalAlpha = 0.7;
    context.stroke(path);
    context.globalAlpha = 1;
    context.strokeStyle = this.colours.way;
    context.lineWidth = 2;
    context.setLineDash([5, 4]);
    context.stroke(path);
    context.restore();
  }

  // The scale bar holds at the map's middle.
  #rule() {
    const { view } = this;
    const [left, right] = [view.place(view.width / 2, view.height / 2), view.place(view.width / 2 + 1, view.height / 2)];
    const pixel = distance(left, right);
    const length = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].findLast((value) => value <= pixel * SCALE_PX) ?? 1;
    this.scale.textContent = km(length).replace(".0", "");
    this.scale.style.width = `${(length / pixel).toFixed(1)}px`;
  }
}
