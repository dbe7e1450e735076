// Geometry on the sphere. Places are {lat, lon} in degrees, distances km; lines are arrays of places whose longitudes
// run on past 180 instead of jumping.

const EARTH_KM = 6371.0088;
export const LONGEST_KM = Math.PI * EARTH_KM;
const rad = (degrees) => (degrees * Math.PI) / 180;
const deg = (radians) => (radians * 180) / Math.PI;

/** The longitude within [-180, 180). */
export const wrapped = (lon) => ((((lon + 180) % 360) + 360) % 360) - 180;

/** Great-circle distance (haversine). */
export function distance(a, b) {
  const u = Math.sin(rad(b.lat - a.lat) / 2) ** 2;
  const v = Math.sin(rad(b.lon - a.lon) / 2) ** 2;
  return 2 * EARTH_KM * Math.asin(Math.sqrt(Math.min(1, u + Math.cos(rad(a.lat)) * Math.cos(rad(b.lat)) * v)));
}

/** The place `km` from another towards `bearing`, in degrees from north. */
export function destination(from, bearing, km) {
  const [angle, lat, way] = [km / EARTH_KM, rad(from.lat), rad(bearing)];
  const sine = Math.sin(lat) * Math.cos(angle) + Math.cos(lat) * Math.sin(angle) * Math.cos(way);
  const at = Math.asin(Math.max(-1, Math.min(1, sine)));
  const east = Math.atan2(Math.sin(way) * Math.sin(angle) * Math.cos(lat), Math.cos(angle) - Math.sin(lat) * sine);
  return { lat: deg(at), lon: from.lon + deg(east) };
}

function unwrapped(line) {
  let turn = 0;
  return line.map((place, i) => {
    if (i) turn -= 360 * Math.round((place.lon - line[i - 1].lon) / 360);
    return { lat: place.lat, lon: place.lon + turn };
  });
}

/**
 * The circle of all places `km` around a centre: {line, inverse}. Around a pole the line is closed along the map's edge;
 * a circle so wide that it holds both poles is `inverse`: it covers what lies outside the line.
 */
export function circle(center, km, points = 180) {
  const ring = Array.from({ length: points + 1 }, (_, i) => destination(center, (360 * i) / points, km));
  const line = unwrapped(ring);
  const pole = (lat) => distance(center, { lat, lon: 0 }) < km;
  const [first, last] = [line[0], line[points]];
  if (Math.abs(last.lon - first.lon) > 180) {
    const lat = pole(90) ? 90 : -90;
    line.push({ lat, lon: last.lon }, { lat, lon: first.lon });
  }
  return { line, inverse: pole(90) && pole(-90) };
}

/** The great circle from a to b. */
export function greatCircle(a, b, points = 64) {
  const xyz = (p) => [Math.cos(rad(p.lat)) * Math.cos(rad(p.lon)), Math.cos(rad(p.lat)) * Math.sin(rad(p.lon)), Math.sin(rad(p.lat))];
  const [from, to, angle] = [xyz(a), xyz(b), distance(a, b) / EARTH_KM];
  if (angle < 1e-6) return [];
  const line = Array.from({ length: points + 1 }, (_, i) => {
    const [p, q] = [Math.sin((1 - i / points) * angle) / Math.sin(angle), Math.sin((i / points) * angle) / Math.sin(angle)];
    const [x, y, z] = from.map((value, axis) => p * value + q * to[axis]);
    return { lat: deg(Math.atan2(z, Math.hypot(x, y))), lon: deg(Math.atan2(y, x)) };
  });
  return unwrapped(line);
}

/** 12.34° N, 56.78° E */
export function words(place, digits = 2) {
  const part = (value, plus, minus) => `${Math.abs(value).toFixed(digits)}° ${value < 0 ? minus : plus}`;
  return `${part(place.lat, "N", "S")}, ${part(wrapped(place.lon), "E", "W")}`;
}

/** 4.2 km, 1,234 km */
export function km(value) {
  if (value < 0.05) return "0 km";
  return value < 9.95 ? `${value.toFixed(1)} km` : `${Math.round(value).toLocaleString("en")} km`;
}
