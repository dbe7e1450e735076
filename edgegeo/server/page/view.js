// Which part of the world is shown, and where on the screen: equirectangular, and true to shape where zoomed in.

import { wrapped } from "/page/sphere.js";

const MAX_ZOOM = 400;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class View {
  constructor(lon = 0, lat = 0, zoom = 1) {
    Object.assign(this, { lon, lat, zoom, width: 1, height: 1 });
  }

  copy() {
    return Object.assign(new View(), this);
  }

  /** Pixels of a degree of latitude; at zoom 1 the world covers the screen. */
  get ky() {
    return Math.max(this.width / 360, this.height / 180) * this.zoom;
  }

  /** Pixels of a degree of longitude: as many at zoom 1, and fewer away from the equator the more it is zoomed in. */
  get kx() {
    const share = clamp((this.zoom - 1) / 4, 0, 1);
    const shrunk = Math.max(0.25, Math.cos((this.lat * Math.PI) / 180));
    return this.ky * (1 + (shrunk - 1) * share);
  }

  /** Pixels of the copy of a place that is nearest to the middle of the screen. */
  point(place) {
    return [this.width / 2 + wrapped(place.lon - this.lon) * this.kx, this.height / 2 + (this.lat - place.lat) * this.ky];
  }

  place(x, y) {
    const lat = clamp(this.lat - (y - this.height / 2) / this.ky, -90, 90);
    return { lat, lon: wrapped(this.lon + (x - this.width / 2) / this.kx) };
  }

  /** Moved so that a place is at a pixel, as far as the world's edge allows. */
  hold(place, x, y) {
    const half = this.height / 2 / this.ky;
    this.lat = clamp(place.lat + (y - this.height / 2) / this.ky, half - 90, 90 - half);
    this.lon = wrapped(place.lon - (x - this.width / 2) / this.kx); // after lat, on which kx depends
    return this;
  }

  /** Zoomed by a factor about a pixel. */
  zoomed(factor, x = this.width / 2, y = this.height / 2) {
    const place = this.place(x, y);
    this.zoom = clamp(this.zoom * factor, 1, MAX_ZOOM);
    return this.hold(place, x, y);
  }

  moved(x, y) {
    return this.hold(this.place(this.width / 2 + x, this.height / 2 + y), this.width / 2, this.height / 2);
  }

  /** The closest look that holds all of the places, `edge` pixels from the border. */
  fitted(places, edge = 64, closest = 7) {
    const lons = places.map((place) => places[0].lon + wrapped(place.lon - places[0].lon));
    const lats = places.map((place) => place.lat);
    const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;
    const span = (values) => Math.max(...values) - Math.min(...values);
    this.zoom = closest;
    const fits = () =>
      span(lons) * this.kx <= this.width - 2 * edge && span(lats) * this.ky <= this.height - 2 * edge;
    const center = { lat: middle(lats), lon: middle(lons) };
    for (this.lat = center.lat; this.zoom > 1 && !fits(); ) this.zoom = Math.max(1, this.zoom * 0.94);
    return this.hold(center, this.width / 2, this.height / 2);
  }

  /** Between two views, share 0 to 1, the short way around. */
  between(other, share) {
    const mixed = this.copy();
    mixed.zoom = this.zoom * (other.zoom / this.zoom) ** share;
    const lon = this.lon + wrapped(other.lon - this.lon) * share;
    return mixed.hold({ lat: this.lat + (other.lat - this.lat) * share, lon }, this.width / 2, this.height / 2);
  }
}
