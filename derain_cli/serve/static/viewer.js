// The panes: before and after in one place, moved and zoomed together.

const CLOSE = 26; // pixels from the line within which a finger takes it
const MOST = 16; // device pixels per image pixel

export class Viewer {
  constructor(panes, handle, onZoom) {
    this.panes = panes;
    this.handle = handle;
    this.onZoom = onZoom;
    this.mode = "slider";
    this.strength = 1;
    this.line = 50; // percent of the pane
    this.size = null; // of the image
    this.fitted = true;
    this.held = false; // the photo as it was
    this.pointers = new Map();
    panes.forEach((pane) => this.listen(pane));
    this.listenToHandle();
    new ResizeObserver(() => this.draw()).observe(panes[0]);
  }

  /** Show an image pair in a pane; `after` may be missing. */
  show(pane, before, after) {
    for (const [kind, source] of [["before", before], ["after", after]]) {
      const image = pane.querySelector(`img.${kind}`);
      image.classList.toggle("ready", Boolean(source));
      if (source && image.src !== source) image.src = source;
    }
    pane.classList.toggle("has-after", Boolean(after));
    this.draw();
  }

  resize(width, height) {
    const same = this.size && this.size.width === width && this.size.height === height;
    this.size = { width, height };
    if (!same) this.fit();
  }

  // Zoom

  get ratio() {
    return window.devicePixelRatio || 1;
  }

  get fitting() {
    const { width, height } = this.panes[0].getBoundingClientRect();
    if (!this.size || !width || !height) return 1;
    return Math.min(width / this.size.width, height / this.size.height, 4 / this.ratio);
  }

  fit() {
    if (!this.size) return;
    this.fitted = true;
    this.draw();
  }

  /** One pixel of the image on one of the screen. */
  full(point) {
    this.zoomTo(1 / this.ratio, point);
  }

  zoomBy(factor, point) {
    this.zoomTo(this.scale * factor, point);
  }

  /** Zoom so that what lies under `point` (of a pane, from its middle) stays there. */
  zoomTo(scale, point = { x: 0, y: 0 }) {
    if (!this.size) return;
    const before = this.scale;
    const least = Math.min(this.fitting, 1 / this.ratio);
    const next = Math.min(Math.max(scale, least), MOST / this.ratio);
    this.centre.x += point.x / before - point.x / next;
    this.centre.y += point.y / before - point.y / next;
    this.fitted = Math.abs(next - this.fitting) < 1e-6;
    this.scale = next;
    this.draw();
  }

  pan(x, y) {
    if (this.fitted) return;
    this.centre.x -= x / this.scale;
    this.centre.y -= y / this.scale;
    this.draw();
  }

  get pannable() {
    if (!this.size) return false;
    const { width, height } = this.panes[0].getBoundingClientRect();
    return this.size.width * this.scale > width + 1 || this.size.height * this.scale > height + 1;
  }

  // Drawing

  draw() {
    if (!this.size) return;
    if (this.fitted) {
      this.scale = this.fitting;
      this.centre = { x: this.size.width / 2, y: this.size.height / 2 };
    }
    for (const pane of this.panes) if (!pane.hidden) this.drawPane(pane);
    this.drawLine();
    this.onZoom(this);
  }

  drawPane(pane) {
    const { width, height } = pane.getBoundingClientRect();
    const x = this.place(width, this.size.width, "x");
    const y = this.place(height, this.size.height, "y");
    for (const image of pane.querySelectorAll("img")) {
      image.style.width = `${this.size.width}px`;
      image.style.height = `${this.size.height}px`;
      image.style.transform = `translate(${this.onPixel(x)}px, ${this.onPixel(y)}px) scale(${this.scale})`;
      image.classList.toggle("sharp", this.scale * this.ratio >= 2);
    }
    const after = pane.querySelector("img.after");
    after.style.opacity = this.held ? 0 : this.strength;
  }

  /** Between two pixels of the screen, edges and 100 % would be blurred. */
  onPixel(length) {
    return Math.round(length * this.ratio) / this.ratio;
  }

  /** Where the image begins: in the middle when it is smaller than the pane, else without a gap. */
  place(room, side, axis) {
    const length = side * this.scale;
    if (length <= room) {
      this.centre[axis] = side / 2;
      return (room - length) / 2;
    }
    const most = side - room / 2 / this.scale;
    this.centre[axis] = Math.min(Math.max(this.centre[axis], room / 2 / this.scale), most);
    return room / 2 - this.centre[axis] * this.scale;
  }

  drawLine() {
    const [pane] = this.panes;
    const sliding = this.mode === "slider" && pane.classList.contains("has-after");
    const over = pane.querySelector(".over");
    over.style.clipPath = sliding ? `inset(0 0 0 ${this.line}%)` : "none";
    this.handle.hidden = !sliding;
    this.handle.style.left = `${this.line}%`;
    this.handle.setAttribute("aria-valuenow", Math.round(this.line));
    this.handle.setAttribute("aria-valuetext", `${Math.round(this.line)} % before, ${Math.round(100 - this.line)} % after`);
  }

  moveLine(percent) {
    this.line = Math.min(100, Math.max(0, percent));
    this.drawLine();
  }

  hold(held) {
    this.held = held;
    this.draw();
  }

  // Fingers, mouse and keys

  fromMiddle(pane, event) {
    const box = pane.getBoundingClientRect();
    return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
  }

  listen(pane) {
    pane.addEventListener("pointerdown", (event) => this.down(pane, event));
    pane.addEventListener("pointermove", (event) => this.move(pane, event));
    for (const name of ["pointerup", "pointercancel"]) {
      pane.addEventListener(name, (event) => this.up(pane, event));
    }
    pane.addEventListener("wheel", (event) => {
      event.preventDefault();
      const step = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
      this.zoomBy(Math.exp(-step * (event.ctrlKey ? 0.01 : 0.002)), this.fromMiddle(pane, event));
    }, { passive: false });
    pane.addEventListener("dblclick", (event) => {
      if (event.target.closest(".handle")) return;
      if (this.fitted) this.full(this.fromMiddle(pane, event));
      else this.fit();
    });
    pane.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      if (event.target !== pane || !moves[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.pan(...moves[event.key]);
    });
  }

  down(pane, event) {
    if (event.button !== 0) return;
    pane.setPointerCapture(event.pointerId);
    const box = pane.getBoundingClientRect();
    const fromLine = Math.abs(event.clientX - box.left - (this.line / 100) * box.width);
    const sliding = !this.handle.hidden && pane === this.panes[0];
    const takesLine = sliding && (fromLine < CLOSE || !this.pannable);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, takesLine });
    pane.classList.toggle("dragging", !takesLine);
    if (takesLine && fromLine < CLOSE) this.handle.focus({ preventScroll: true });
  }

  move(pane, event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const now = { ...last, x: event.clientX, y: event.clientY };
    if (this.pointers.size === 2) this.pinch(pane, event, last, now);
    else if (last.takesLine) {
      const box = pane.getBoundingClientRect();
      this.moveLine(((event.clientX - box.left) / box.width) * 100);
    } else this.pan(now.x - last.x, now.y - last.y);
    this.pointers.set(event.pointerId, now);
  }

  pinch(pane, event, last, now) {
    const [, other] = [...this.pointers].find(([id]) => id !== event.pointerId);
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
    const middle = { clientX: (now.x + other.x) / 2, clientY: (now.y + other.y) / 2 };
    this.zoomBy(apart(now) / apart(last), this.fromMiddle(pane, middle));
    this.pan((now.x - last.x) / 2, (now.y - last.y) / 2);
  }

  up(pane, event) {
    this.pointers.delete(event.pointerId);
    pane.classList.remove("dragging");
  }

  listenToHandle() {
    this.handle.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 10 : 2;
      const to = {
        ArrowLeft: this.line - step, ArrowDown: this.line - step, ArrowRight: this.line + step,
        ArrowUp: this.line + step, PageDown: this.line - 10, PageUp: this.line + 10, Home: 0, End: 100,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.moveLine(to);
    });
  }
}
