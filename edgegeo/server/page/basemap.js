// A basemap's rings, lines and names (the format is told in server/basemap.py), drawn onto a canvas.

// Detail that is drawn, as steps in degrees that are left out: the whole world needs a tenth of the points.
const STEPS = [0.3, 0.1, 0];
const PIECE = 128; // points of a line that are drawn or left out together

const trace = (path, line) => line.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));

// Degrees, north up: y is minus the latitude.
function points(steps, scale) {
  const out = [];
  for (let i = 0, x = 0, y = 0; i < steps.length; i += 2) out.push([(x += steps[i]) / scale, -(y += steps[i + 1]) / scale]);
  return out;
}

// The line without points that are nearer than a step to the one before; its ends stay.
function coarser(line, step) {
  if (!step) return line;
  let [x, y] = [Infinity, Infinity];
  return line.filter((point, i) => {
    const kept = i === line.length - 1 || Math.abs(point[0] - x) + Math.abs(point[1] - y) >= step;
    if (kept) [x, y] = point;
    return kept;
  });
}

function pieces(line) {
  const out = [];
  for (let i = 0; i < line.length - 1; i += PIECE) {
    const part = line.slice(i, i + PIECE + 1);
    const [xs, ys] = [part.map(([x]) => x), part.map(([, y]) => y)];
    const path = new Path2D();
    trace(path, part);
    out.push({ path, west: Math.min(...xs), east: Math.max(...xs), north: Math.min(...ys), south: Math.max(...ys) });
  }
  return out;
}

/** A world's lines with one measure of detail. */
class Level {
  constructor(rings, borders, step) {
    this.step = step;
    this.land = new Path2D();
    this.coast = [];
    for (const ring of rings) {
      const line = coarser(ring, step);
      if (line.length < 4) continue;
      trace(this.land, line);
      this.land.closePath();
      // A ring closed along a pole has no coast there.
      const coast = line.filter(([, y]) => Math.abs(y) < 90);
      this.coast.push(...pieces(coast.length === line.length ? [...coast, coast[0]] : coast));
    }
    this.borders = borders.flatMap((line) => pieces(coarser(line, step)));
  }
}

export class Basemap {
  /** `data` as fetched; null: only the graticule is drawn. */
  constructor(data) {
    this.name = data?.name ?? "";
    this.labels = data?.labels ?? [];
    const [rings, borders] = [data?.land ?? [], data?.borders ?? []].map((lines) => lines.map((steps) => points(steps, data.scale)));
    this.levels = STEPS.map((step) => new Level(rings, borders, step));
    const all = this.levels[0].coast;
    this.west = Math.min(-180, ...all.map((piece) => piece.west));
    this.east = Math.max(180, ...all.map((piece) => piece.east));
  }

  /** Placements of the world's copies that can be seen, as matrices from degrees to pixels. */
  copies(view) {
    const half = view.width / 2 / view.kx;
    const out = [];
    for (let turn = -2; turn <= 2; turn++) {
      const seen = this.west + 360 * turn < view.lon + half && this.east + 360 * turn > view.lon - half;
      const [x, y] = [view.width / 2 + (360 * turn - view.lon) * view.kx, view.height / 2 + view.lat * view.ky];
      if (seen) out.push({ turn, matrix: new DOMMatrix([view.kx, 0, 0, view.ky, x, y]) });
    }
    return out;
  }

  /** Everything under the answer. `picture`, where given, is an equirectangular image that tints the land. */
  draw(context, view, colours, picture) {
    const copies = this.copies(view);
    const level = this.levels.find(({ step }) => step * view.ky <= 1);
    const land = new Path2D();
    for (const { matrix } of copies) land.addPath(level.land, matrix);
    const coast = this.#seen(level.coast, copies, view);
    context.fillStyle = colours.sea;
    context.fillRect(0, 0, view.width, view.height);
    this.#graticule(context, view, colours);
    context.lineJoin = "round";
    context.strokeStyle = colours.shallow;
    context.lineWidth = 5;
    context.stroke(coast);
    context.fillStyle = colours.land;
    context.fill(land, "evenodd");
    if (picture) this.#tint(context, view, land, picture, Number(colours.tint));
    context.lineWidth = 1;
    context.strokeStyle = colours.border;
    context.stroke(this.#seen(level.borders, copies, view));
    context.strokeStyle = colours.coast;
    context.stroke(coast);
  }

  // The pieces that are on the screen, in pixels.
  #seen(all, copies, view) {
    const out = new Path2D();
    const [across, down] = [view.width / 2 / view.kx, view.height / 2 / view.ky];
    for (const { turn, matrix } of copies) {
      const [west, east] = [view.lon - across - 360 * turn, view.lon + across - 360 * turn];
      for (const piece of all) {
        const seen = piece.west <= east && piece.east >= west && piece.north <= down - view.lat && piece.south >= -down - view.lat;
        if (seen) out.addPath(piece.path, matrix);
      }
    }
    return out;
  }

  #graticule(context, view, colours) {
    const wanted = 110 / view.ky;
    const step = [1, 2, 5, 10, 15, 30].find((degrees) => degrees >= wanted) ?? 30;
    context.strokeStyle = colours.grid;
    context.lineWidth = 1;
    context.beginPath();
    const half = view.width / 2 / view.kx;
    for (let lon = Math.ceil((view.lon - half) / step) * step; lon <= view.lon + half; lon += step) {
      const x = Math.round(view.width / 2 + (lon - view.lon) * view.kx) + 0.5;
      context.moveTo(x, 0);
      context.lineTo(x, view.height);
    }
    for (let lat = -90 + step; lat < 90; lat += step) {
      const y = Math.round(view.height / 2 + (view.lat - lat) * view.ky) + 0.5;
      context.moveTo(0, y);
      context.lineTo(view.width, y);
    }
    context.stroke();
  }

  #tint(context, view, land, picture, strength) {
    context.save();
    context.clip(land, "evenodd");
    context.globalAlpha = strength * Math.max(0.5, 1 - (view.zoom - 1) / 24); // its pixels are coarse
    const [width, top] = [360 * view.kx, view.height / 2 + (view.lat - 90) * view.ky];
    for (let turn = -1; turn <= 1; turn++) {
      const left = view.width / 2 + (360 * turn - 180 - view.lon) * view.kx;
      if (left < view.width && left + width > 0) context.drawImage(picture, left, top, width, 180 * view.ky);
    }
    context.restore();
  }

  /** Names that have room, the roomiest first, none over another nor over a `taken` box [left, top, right, bottom]. */
  drawLabels(context, view, colours, taken) {
    context.font = '500 11px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3;
    const boxes = [...taken];
    for (const [name, lon, lat, room] of this.labels) {
      const [x, y] = view.point({ lat, lon });
      const half = context.measureText(name).width / 2 + 3;
      const box = [x - half, y - 9, x + half, y + 9];
      if (box[0] < 0 || box[1] < 0 || box[2] > view.width || box[3] > view.height) continue;
      if (2 * half > room * view.ky * 1.7) continue;
      if (boxes.some((b) => box[0] < b[2] && box[2] > b[0] && box[1] < b[3] && box[3] > b[1])) continue;
      boxes.push(box);
      context.strokeStyle = colours.halo;
      context.strokeText(name, x, y);
      context.fillStyle = colours.label;
      context.fillText(name, x, y);
    }
  }
}
