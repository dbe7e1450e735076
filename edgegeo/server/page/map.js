// An equirectangular world map: a picture or a graticule below, marks above. Degrees in, percent out.

const SVG = "http://www.w3.org/2000/svg";
const EARTH_KM = 6371.0088;
const rad = (degrees) => (degrees * Math.PI) / 180;
const deg = (radians) => (radians * 180) / Math.PI;

/** Great-circle distance in km (haversine). */
export function distance(a, b) {
  const u = Math.sin(rad(b.lat - a.lat) / 2) ** 2;
  const v = Math.sin(rad(b.lon - a.lon) / 2) ** 2;
  return 2 * EARTH_KM * Math.asin(Math.sqrt(Math.min(1, u + Math.cos(rad(a.lat)) * Math.cos(rad(b.lat)) * v)));
}

/** 12.34° N, 56.78° E */
export function words(place, digits = 2) {
  const part = (value, plus, minus) => `${Math.abs(value).toFixed(digits)}° ${value < 0 ? minus : plus}`;
  return `${part(place.lat, "N", "S")}, ${part(place.lon, "E", "W")}`;
}

function shape(kind, attributes) {
  const node = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// Points of the great circle from a to b, cut where it crosses the map's edge.
function greatCircle(a, b) {
  const xyz = (p) => [Math.cos(rad(p.lat)) * Math.cos(rad(p.lon)), Math.cos(rad(p.lat)) * Math.sin(rad(p.lon)), Math.sin(rad(p.lat))];
  const [from, to] = [xyz(a), xyz(b)];
  const angle = distance(a, b) / EARTH_KM;
  if (angle < 1e-6) return "";
  const points = [];
  for (let i = 0; i <= 96; i++) {
    const t = i / 96;
    const [p, q] = [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
    const [x, y, z] = from.map((value, axis) => p * value + q * to[axis]);
    points.push([deg(Math.atan2(y, x)) + 180, 90 - deg(Math.atan2(z, Math.hypot(x, y)))]);
  }
  return path(points, false);
}

// The points at `km` around a place.
function ring(center, km) {
  const [angle, lat, lon] = [km / EARTH_KM, rad(center.lat), rad(center.lon)];
  const points = [];
  for (let i = 0; i <= 96; i++) {
    const bearing = (2 * Math.PI * i) / 96;
    const at = Math.asin(Math.sin(lat) * Math.cos(angle) + Math.cos(lat) * Math.sin(angle) * Math.cos(bearing));
    const east = Math.atan2(Math.sin(bearing) * Math.sin(angle) * Math.cos(lat), Math.cos(angle) - Math.sin(lat) * Math.sin(at));
    points.push([((deg(lon + east) + 540) % 360), 90 - deg(at)]);
  }
  return path(points);
}

function path(points) {
  let before = null;
  return points
    .map(([x, y]) => {
      const jump = before === null || Math.abs(x - before) > 180;
      before = x;
      return `${jump ? "M" : "L"}${x.toFixed(3)} ${y.toFixed(3)}`;
    })
    .join("");
}

export class WorldMap {
  constructor(root) {
    this.root = root;
    this.svg = shape("svg", { viewBox: "0 0 360 180", preserveAspectRatio: "none", "aria-hidden": "true" });
    let grid = "";
    for (let lon = 30; lon < 360; lon += 30) grid += `M${lon} 0V180`;
    for (let lat = 30; lat < 180; lat += 30) grid += `M0 ${lat}H360`;
    this.svg.append(shape("path", { d: grid, class: "grid" }));
    this.over = shape("g", {});
    this.svg.append(this.over);
    this.marks = document.createElement("div");
    root.append(this.svg, this.marks);
  }

  /** A world picture below the graticule. */
  picture(address) {
    const image = new Image();
    image.alt = "";
    image.src = address;
    this.root.prepend(image);
    this.root.classList.add("pictured");
  }

  clear() {
    this.over.replaceChildren();
    this.marks.replaceChildren();
  }

  /** A dot; kind is "answer", "truth" or "tile". Returns its element. */
  mark(place, kind, title) {
    const dot = document.createElement("i");
    dot.className = `mark ${kind}-mark`;
    dot.title = title;
    dot.style.left = `${((place.lon + 180) / 360) * 100}%`;
    dot.style.top = `${((90 - place.lat) / 180) * 100}%`;
    this.marks.append(dot);
    return dot;
  }

  line(from, to) {
    this.over.append(shape("path", { d: greatCircle(from, to), class: "way" }));
  }

  circle(center, km) {
    this.over.append(shape("path", { d: ring(center, km), class: "reach" }));
  }
}
