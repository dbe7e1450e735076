// Moving a map: drag, pinch, wheel, double click and keys. A `map.tool` takes over single-pointer drags while it is set.

const STEP_PX = 80;

/** Make a WorldMap listen. */
export function steer(map) {
  const { root } = map;
  const held = new Map(); // pointer -> where it is
  let grip = null; // what the last move is measured from
  const where = (event) => {
    const box = root.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const regrip = () => {
    const [a, b] = [...held.values()];
    if (!a) grip = null;
    else if (!b) grip = { place: map.view.place(...a) };
    else grip = { apart: Math.hypot(a[0] - b[0], a[1] - b[1]), place: map.view.place((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) };
  };

  root.addEventListener("pointerdown", (event) => {
    if (event.button || event.target.closest("button, a, [role=slider]")) return;
    map.flight = null;
    root.setPointerCapture(event.pointerId);
    held.set(event.pointerId, where(event));
    if (map.tool && held.size === 1) map.tool.begin(map.view.place(...where(event)));
    else {
      map.tool?.cancel();
      regrip();
    }
  });
  root.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    held.set(event.pointerId, where(event));
    if (map.tool && held.size === 1) return map.tool.drag(map.view.place(...where(event)));
    if (!grip) return;
    const [a, b] = [...held.values()];
    const view = map.view.copy();
    if (b && grip.apart) {
      const apart = Math.max(8, Math.hypot(a[0] - b[0], a[1] - b[1]));
      const middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      view.zoomed(apart / grip.apart, ...middle).hold(grip.place, ...middle);
      grip.apart = apart;
    } else view.hold(grip.place, ...a);
    map.go(view, false);
    root.classList.add("held");
  });
  const release = (event) => {
    if (!held.delete(event.pointerId)) return;
    if (map.tool && held.size === 0) map.tool.end(map.view.place(...where(event)));
    regrip();
    root.classList.toggle("held", held.size > 0);
  };
  root.addEventListener("pointerup", release);
  root.addEventListener("pointercancel", release);

  root.addEventListener("dblclick", (event) => {
    if (!map.tool && !event.target.closest("button")) map.go(map.view.copy().zoomed(event.shiftKey ? 0.5 : 2, ...where(event)));
  });
  root.addEventListener(
    "wheel",
    (event) => {
      const factor = Math.exp(-Math.max(-120, Math.min(120, event.deltaY)) * (event.ctrlKey ? 0.01 : 0.0022));
      if (factor < 1 && map.view.zoom === 1) return; // nothing left to zoom out of: the page scrolls on
      event.preventDefault();
      map.go(map.view.copy().zoomed(factor, ...where(event)), false);
    },
    { passive: false },
  );
  root.addEventListener("keydown", (event) => {
    if (event.target !== root || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act(map);
  });
}

const pan = (x, y) => (map) => map.go(map.view.copy().moved(x * STEP_PX, y * STEP_PX));
export const zoom = (factor) => (map) => map.go(map.view.copy().zoomed(factor));
const KEYS = {
  ArrowLeft: pan(-1, 0),
  ArrowRight: pan(1, 0),
  ArrowUp: pan(0, -1),
  ArrowDown: pan(0, 1),
  "+": zoom(1.6),
  "=": zoom(1.6),
  "-": zoom(1 / 1.6),
  0: (map) => map.world(),
};
