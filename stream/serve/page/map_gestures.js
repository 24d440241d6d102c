// Pan, zoom and pick in the taste map: by mouse, touch and keyboard.

const STEP = 60; // px that an arrow moves the map
const FACTOR = 1.4; // that a key or a button zooms
const CLICK = 5; // px that a pointer may move within a click

/**
 * Follow the pointers and keys on a map.
 *
 * hover(point or null): the pointer is over it. pick(point or null): it was clicked, or the keyboard came to it.
 * enter(): the Enter key.
 */
export function gestures(map, { hover, pick, enter }) {
  const { element } = map;
  const pointers = new Map();
  let moved = 0;
  const within = (event) => {
    const { left, top } = element.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };

  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, within(event));
    if (pointers.size === 1) moved = 0;
  });
  element.addEventListener("pointermove", (event) => {
    const now = within(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      hover(map.nearest(...now));
      return;
    }
    if (pointers.size === 2) pinch(map, pointers, event.pointerId, now);
    else map.pan(now[0] - before[0], now[1] - before[1]);
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    pointers.set(event.pointerId, now);
    if (moved > CLICK) hover(null);
  });
  const leave = (event) => {
    const was = pointers.delete(event.pointerId);
    if (was && event.type === "pointerup" && moved <= CLICK) {
      pick(map.nearest(...within(event), { reach: event.pointerType === "touch" ? 24 : undefined }));
    }
  };
  element.addEventListener("pointerup", leave);
  element.addEventListener("pointercancel", leave);
  element.addEventListener("pointerleave", () => hover(null));
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const px = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 * event.deltaY : event.deltaY;
      map.zoomBy(Math.exp(-px * (event.ctrlKey ? 0.01 : 0.0015)), within(event));
    },
    { passive: false },
  );
  element.addEventListener("dblclick", (event) => map.zoomBy(2, within(event)));

  const keys = {
    ArrowLeft: () => map.pan(STEP, 0),
    ArrowRight: () => map.pan(-STEP, 0),
    ArrowUp: () => map.pan(0, STEP),
    ArrowDown: () => map.pan(0, -STEP),
    "+": () => map.zoomBy(FACTOR),
    "=": () => map.zoomBy(FACTOR),
    "-": () => map.zoomBy(1 / FACTOR),
    0: () => map.fit({ fly: true }),
    Enter: enter,
  };
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
    if (event.key !== "Enter") pick(map.nearest(map.width / 2, map.height / 2, { reach: Math.min(map.width, map.height) / 2 }));
  });
}

function pinch(map, pointers, id, now) {
  const [other] = [...pointers].filter(([one]) => one !== id).map(([, place]) => place);
  const before = pointers.get(id);
  const distance = (place) => Math.max(1, Math.hypot(place[0] - other[0], place[1] - other[1]));
  const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
  map.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  map.zoomBy(distance(now) / distance(before), middle);
}
