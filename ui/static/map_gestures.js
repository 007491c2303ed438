// Pointer input on the map: drag, pinch, wheel, hover, click and lasso, with mouse, pen or fingers.

const DRAG_PX = 4;                       // movement up to which a press is a click
const REACH_PX = 9, TOUCH_REACH_PX = 22; // largest distance of a pointer, and of a finger, from a point that it selects

// `map`: has view, stage, root and the methods that are called below.  `on`: adds an event listener which `map` removes later.
export function listenToPointers(map, canvas, on) {
  const down = new Map();                // pointer id -> [x, y]
  let press = null, pinch = null;
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const reach = (event) => (event.pointerType === "touch" ? TOUCH_REACH_PX : REACH_PX);
  const pinched = () => {
    const [[ax, ay], [bx, by]] = [...down.values()];
    return { x: (ax + bx) / 2, y: (ay + by) / 2, apart: Math.max(Math.hypot(ax - bx, ay - by), 1) };
  };

  on(canvas, "pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    map.stage.focus({ preventScroll: true });
    down.set(event.pointerId, at(event));
    if (down.size === 2) {               // a second finger: zoom instead of moving or drawing
      if (press?.selects) map.drawLasso(null);
      press = null;
      pinch = pinched();
      return;
    }
    const [x, y] = at(event);
    press = { x, y, lastX: x, lastY: y, far: 0, selects: event.shiftKey || map.selecting() };
    if (press.selects) map.drawLasso([x, y], true);
  });
  on(canvas, "pointermove", (event) => {
    const [x, y] = at(event);
    if (down.has(event.pointerId)) down.set(event.pointerId, [x, y]);
    if (pinch && down.size >= 2) {
      const now = pinched();
      map.view.moveBy(now.x - pinch.x, now.y - pinch.y);
      map.view.zoomAt(now.x, now.y, now.apart / pinch.apart);
      pinch = now;
      map.dragging = true;
      map.drawSoon();
      return;
    }
    if (!press) {
      if (!down.size && event.pointerType !== "touch") map.hover(x, y, reach(event));
      return;
    }
    press.far = Math.max(press.far, Math.hypot(x - press.x, y - press.y));
    if (press.selects) map.drawLasso([x, y]);
    else if (press.far > DRAG_PX) {
      map.dragging = true;
      map.root.classList.add("moving");
      map.mark(-1);
      map.view.moveBy(x - press.lastX, y - press.lastY);
      map.drawSoon();
    }
    [press.lastX, press.lastY] = [x, y];
  });
  const end = (event, cancelled) => {
    down.delete(event.pointerId);
    const was = press, moved = map.dragging;
    if (pinch) {
      if (down.size < 2) { pinch = null; map.dragging = false; map.settle(); }
      return;
    }
    press = null;
    map.dragging = false;
    map.root.classList.remove("moving");
    if (!was) return;
    if (was.selects) map.select(!cancelled && was.far > DRAG_PX);
    else if (moved) map.settle();        // draw all points, now that the view is still
    else if (!cancelled) {
      performance.mark("tonelake:click", { startTime: event.timeStamp });
      map.click(...at(event), reach(event));
    }
  };
  on(canvas, "pointerup", (event) => end(event, false));
  on(canvas, "pointercancel", (event) => end(event, true));
  on(canvas, "pointerleave", () => map.mark(-1));
  on(canvas, "wheel", (event) => {
    event.preventDefault();
    map.view.zoomAt(...at(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)));
    map.drawSoon();
  }, { passive: false });
  on(canvas, "dblclick", (event) => { map.view.zoomAt(...at(event), 2); map.drawSoon(); });
}
