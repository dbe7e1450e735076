// A basemap's rings, lines and names (the format is told in server/basemap.py), drawn onto a canvas.

const trace = (path, line) => line.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));

// Degrees, north up: y is minus the latitude.
function points(steps, scale) {
  const out = [];
  for (let i = 0, x = 0, y = 0; i < steps.length; i += 2) out.push([(x += steps[i]) / scale, -(y += steps[i + 1]) / scale]);
  return out;
}

export class Basemap {
  /** `data` as fetched; null: only the graticule is drawn. */
  constructor(data) {
    this.name = data?.name ?? "";
    this.labels = data?.labels ?? [];
    [this.land, this.coast, this.borders] = [new Path2D(), new Path2D(), new Path2D()];
    this.west = -180;
    this.east = 180;
    for (const steps of data?.land ?? []) this.#ring(points(steps, data.scale));
    for (const steps of data?.borders ?? []) trace(this.borders, points(steps, data.scale));
  }

  #ring(line) {
    trace(this.land, line);
    this.land.closePath();
    for (const [x] of line) [this.west, this.east] = [Math.min(this.west, x), Math.max(this.east, x)];
    // A ring closed along a pole has no coast there.
    const coast = line.filter(([, y]) => Math.abs(y) < 90);
    trace(this.coast, coast);
    if (coast.length === line.length) this.coast.closePath();
  }

  /** Placements of the world's copies that can be seen, as matrices from degrees to pixels. */
  copies(view) {
    const half = view.width / 2 / view.kx;
    const out = [];
    for (let turn = -2; turn <= 2; turn++) {
      const seen = this.west + 360 * turn < view.lon + half && this.east + 360 * turn > view.lon - half;
      const [x, y] = [view.width / 2 + (360 * turn - view.lon) * view.kx, view.height / 2 + view.lat * view.ky];
      if (seen) out.push(new DOMMatrix([view.kx, 0, 0, view.ky, x, y]));
    }
    return out;
  }

  /** Everything under the answer. `picture`, where given, is an equirectangular image that tints the land. */
  draw(context, view, colours, picture) {
    const copies = this.copies(view);
    const placed = (path) => {
      const out = new Path2D();
      for (const copy of copies) out.addPath(path, copy);
      return out;
    };
    const [land, coast] = [placed(this.land), placed(this.coast)];
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
    context.stroke(placed(this.borders));
    context.strokeStyle = colours.coast;
    context.stroke(coast);
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
    context.globalAlpha = strength * Math.max(0.45, 1 - (view.zoom - 1) / 16); // its pixels are coarse
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
