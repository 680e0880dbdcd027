// The page: which photos there are, what is wanted of each, and what is on the screen.

import { distinct, drawThumb, dropped, images, shown } from "/photos.js";
import { Failure, models, send } from "/service.js";
import { Viewer } from "/viewer.js";
import { zipped } from "/zip.js";

const AT_ONCE = 2; // requests on the way: one is derained, one is sent or received
const $ = (id) => document.getElementById(id);
const THUMB = { width: 192, height: 144 };
const DERAINED = "derained";
const RAIN = "rain"; // the layers that can be downloaded
const BEFORE = "before"; // side by side with the photo as it was

const state = {
  photos: [],
  current: null,
  weights: new Map(),
  urgent: [], // tasks that a download waits for
  active: new Set(), // tasks on the way
};
const viewer = new Viewer([$("pane-a"), $("pane-b")], $("handle"), showZoom);

// ---------------------------------------------------------------- photos

class Photo {
  constructor({ file, path }) {
    Object.assign(this, { file, path, name: path.split("/").pop(), before: null, error: null });
    this.results = new Map(); // key of a task -> {blob, name, notices, url}
    this.failures = new Map(); // key of a task -> message
    this.progress = new Map(); // key of a task -> what was said last
    this.li = this.makeThumb();
  }

  makeThumb() {
    const li = document.createElement("li");
    this.button = Object.assign(document.createElement("button"), { type: "button", className: "thumb", title: this.path });
    this.canvas = Object.assign(document.createElement("canvas"), THUMB);
    this.mark = Object.assign(document.createElement("span"), { className: "mark" });
    this.button.append(this.canvas, this.mark);
    this.button.onclick = () => choose(this);
    const remove = Object.assign(document.createElement("button"), { type: "button", className: "remove", textContent: "×" });
    remove.setAttribute("aria-label", `Remove ${this.name}`);
    remove.onclick = () => removePhoto(this);
    li.append(this.button, remove);
    return li;
  }

  /** The photo as it was, in a form that this browser shows. */
  async open() {
    let url = URL.createObjectURL(this.file);
    let image;
    try {
      image = await shown(url);
    } catch {
      URL.revokeObjectURL(url);
      const { promise } = send("/v1/preview", { name: this.name }, this.file, () => {});
      url = URL.createObjectURL((await promise).blob);
      image = await shown(url);
    }
    this.before = { url, width: image.naturalWidth, height: image.naturalHeight };
    drawThumb(this.canvas, image);
  }

  forget() {
    for (const task of state.active) if (task.photo === this) task.stop();
    for (const { url } of this.results.values()) URL.revokeObjectURL(url);
    if (this.before) URL.revokeObjectURL(this.before.url);
    this.li.remove();
  }
}

async function add(found) {
  const photos = images(found).map((image) => new Photo(image));
  if (!photos.length) {
    say("No photos among these files.");
    $("privacy").textContent = "There was no photo among these files.";
    return;
  }
  state.photos.push(...photos);
  $("film").append(...photos.map((photo) => photo.li));
  if (!state.current) choose(photos[0]);
  say(photos.length === 1 ? `${photos[0].name} added` : `${photos.length} photos added`);
  draw();
  pump();
  for (const photo of photos) {
    // One after the other: a hundred decoded at once would fill a phone's memory.
    try {
      await photo.open();
    } catch (error) {
      photo.error = error instanceof Failure ? error.message : `${photo.name} cannot be shown.`;
    }
    if (state.current === photo) draw();
    else drawThumbs();
  }
}

function removePhoto(photo) {
  const at = state.photos.indexOf(photo);
  state.photos.splice(at, 1);
  photo.forget();
  if (state.current === photo) {
    state.current = null;
    const next = state.photos[Math.min(at, state.photos.length - 1)];
    if (next) choose(next);
  }
  draw();
  pump();
}

function choose(photo) {
  if (!photo) return;
  state.current = photo;
  photo.li.scrollIntoView({ block: "nearest", inline: "nearest" });
  draw();
  pump();
}

function step(by) {
  choose(state.photos[state.photos.indexOf(state.current) + by]);
}

// ---------------------------------------------------------------- tasks

const strength = () => Number($("strength").value) / 100;
const view = () => document.querySelector("input[name=view]:checked").value;
const keyOf = (model, amount, layer = DERAINED) => (layer === DERAINED ? `${model} ${amount}` : `${model} ${amount} ${layer}`);
const besides = () => (view() === "two" && $("other").value !== BEFORE ? [$("other").value] : []);

/** What is to be done next: first what a download waits for, then what is on the screen. */
function nextTask() {
  if (state.urgent.length) return state.urgent.shift();
  const models = [$("model").value, ...besides()];
  const wanted = [state.current, ...state.photos].flatMap((photo) => (photo ? models.map((model) => ({ photo, model, amount: 1 })) : []));
  return wanted.find(({ photo, model, amount }) => {
    const key = keyOf(model, amount);
    return !photo.results.has(key) && !photo.failures.has(key) && !photo.progress.has(key);
  });
}

function pump() {
  while (state.active.size < AT_ONCE) {
    const task = nextTask();
    if (!task) return;
    run(task);
  }
}

async function run(task) {
  const { photo, model, amount, layer = DERAINED } = task;
  const key = keyOf(model, amount, layer);
  state.active.add(task);
  photo.progress.set(key, { state: "sending" });
  const { promise, stop } = send("/v1/derain", { model, strength: amount, layer, name: photo.name }, photo.file, (told) => {
    if (!photo.progress.has(key)) return;
    photo.progress.set(key, told);
    drawProgress(photo);
  });
  task.stop = stop;
  try {
    const result = await promise;
    photo.results.set(key, layer === DERAINED ? await viewable(photo, result) : result);
    if (key === keyOf(model, 1)) say(`${photo.name} is done`);
  } catch (error) {
    photo.failures.set(key, error.message);
    if (error.message !== "stopped") say(`${photo.name} failed: ${error.message}`);
  }
  photo.progress.delete(key);
  state.active.delete(task);
  task.settle?.();
  draw();
  pump();
}

/** A result with an address that this browser shows, beside the file itself. */
async function viewable(photo, result) {
  const url = URL.createObjectURL(result.blob);
  try {
    await shown(url);
    return { ...result, url };
  } catch {
    URL.revokeObjectURL(url);
    const { promise } = send("/v1/preview", { name: photo.name }, result.blob, () => {});
    return { ...result, url: URL.createObjectURL((await promise).blob) };
  }
}

/** The file to download; made first if it is not there in this strength. */
async function finished(photo, model, amount, layer = DERAINED) {
  const key = keyOf(model, amount, layer);
  photo.failures.delete(key);
  while (!photo.results.has(key)) {
    if (photo.progress.has(key)) await new Promise((go) => setTimeout(go, 150));
    else {
      await new Promise((settle) => {
        state.urgent.push({ photo, model, amount, layer, settle });
        pump();
      });
    }
    if (photo.failures.has(key)) throw new Failure(photo.failures.get(key));
  }
  return photo.results.get(key);
}

// ---------------------------------------------------------------- downloads

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function during(button, text, work) {
  const label = button.textContent;
  button.disabled = true;
  button.textContent = text;
  try {
    await work();
  } catch (error) {
    showStatus(error.message, { failed: true });
    say(error.message);
  }
  button.textContent = label;
  button.disabled = false;
}

function downloadLayer(button, layer) {
  const photo = state.current;
  if (!photo || button.disabled) return;
  during(button, "Making it…", async () => {
    const { blob, name } = await finished(photo, $("model").value, strength(), layer);
    save(blob, name);
  });
}

const downloadOne = () => downloadLayer($("download"), DERAINED);
const downloadRain = () => downloadLayer($("download-rain"), RAIN);

function downloadAll() {
  const [photos, model, amount] = [[...state.photos], $("model").value, strength()];
  const button = $("download-all");
  during(button, `0 of ${photos.length}…`, async () => {
    const results = [];
    for (const photo of photos) {
      try {
        results.push({ photo, ...(await finished(photo, model, amount)) });
      } catch {
        // Its own mark says so; the others are not held back.
      }
      button.textContent = `${results.length} of ${photos.length}…`;
    }
    const names = distinct(results.map(({ photo, name }) => photo.path.replace(/[^/]*$/, "") + name));
    const files = results.map(({ blob }, at) => ({ name: names[at], blob }));
    if (!files.length) throw new Failure("None of the photos could be derained.");
    save(await zipped(files), "derained.zip");
    const missing = photos.length - files.length;
    say(missing ? `${missing} photos failed and are not in the zip` : "All photos are in the zip");
  });
}

// ---------------------------------------------------------------- the screen

function say(text) {
  $("live").textContent = text;
}

function draw() {
  const any = state.photos.length > 0;
  $("welcome").hidden = any;
  $("work").hidden = !any;
  $("bar-actions").hidden = !any;
  $("film-nav").hidden = state.photos.length < 2;
  $("download-all").hidden = state.photos.length < 2;
  $("download-all").textContent = $("download-all").disabled ? $("download-all").textContent : `Download all ${state.photos.length} (zip)`;
  document.title = state.current ? `${state.current.name} · derain` : "derain";
  drawPanes();
  drawThumbs();
  drawStatus();
}

function drawPanes() {
  const photo = state.current;
  const [mode, model] = [view(), $("model").value];
  const two = mode === "two";
  $("other-field").hidden = !two;
  $("pane-b").hidden = !two;
  $("download-rain").hidden = mode !== "rain";
  $("panes").classList.toggle("rain", mode === "rain");
  $("pane-a").classList.toggle("rain", mode === "rain");
  viewer.mode = mode;
  viewer.strength = strength();
  if (!photo?.before) return clearPanes();
  viewer.resize(photo.before.width, photo.before.height);
  const resultOf = (name) => photo.results.get(keyOf(name, 1))?.url;
  viewer.show($("pane-a"), photo.before.url, resultOf(model));
  const other = $("other").value;
  viewer.show($("pane-b"), photo.before.url, other === BEFORE ? null : resultOf(other));
  $("tag-a").textContent = two ? model : resultOf(model) ? "Before" : "";
  $("tag-after").hidden = two || !resultOf(model) || mode === "rain";
  $("tag-b").textContent = two ? (other === BEFORE ? "Before" : other) : "";
  const shownName = (what) => `${photo.name}, ${what}`;
  $("pane-a").querySelector(".before").alt = shownName("before");
  $("pane-a").querySelector(".after").alt = shownName("without its rain");
  $("facts").textContent = `${photo.path}, ${photo.before.width} × ${photo.before.height} pixels`;
  $("notices").textContent = (photo.results.get(keyOf(model, 1))?.notices || []).join(". ");
}

function clearPanes() {
  for (const pane of [$("pane-a"), $("pane-b")]) viewer.show(pane, null, null);
  for (const tag of ["tag-a", "tag-b"]) $(tag).textContent = "";
  $("tag-after").hidden = true;
  $("facts").textContent = "";
  $("notices").textContent = "";
}

const STATES = {
  sending: "Sending", waiting: "Waiting", reading: "Opening the photo", deraining: "Taking out the rain",
  writing: "Writing the photo", busy: "The server is busy: waiting for a place",
};

function wordsFor(told) {
  const left = told.left === null || told.left === undefined ? "" : `, ${duration(told.left)}`;
  const place = told.place > 1 ? `, ${told.place - 1} before it` : "";
  return `${STATES[told.state] || "Working"}${place}${left}`;
}

function duration(seconds) {
  if (seconds < 2) return "almost done";
  if (seconds < 90) return `about ${Math.round(seconds)} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

function drawStatus() {
  const photo = state.current;
  if (!photo) return;
  const keys = [$("model").value, ...besides()].map((model) => keyOf(model, 1));
  const failed = keys.find((key) => photo.failures.has(key));
  if (failed || photo.error) return showStatus(photo.failures.get(failed) || photo.error, { failed: true, again: Boolean(failed) });
  const downloads = [...photo.progress.keys()].filter((key) => !key.endsWith(" 1"));
  const told = [...keys, ...downloads].map((key) => photo.progress.get(key)).find(Boolean);
  if (told) return showStatus(wordsFor(told), { fraction: told.fraction ?? null });
  if (keys.some((key) => !photo.results.has(key))) return showStatus("Waiting for the photos before it", { fraction: null });
  $("status").hidden = true;
}

function showStatus(text, { failed = false, fraction, again = false }) {
  $("status").hidden = false;
  $("status").classList.toggle("failed", failed);
  $("status-text").textContent = text;
  $("retry").hidden = !again;
  const bar = $("status-bar");
  bar.hidden = failed;
  if (fraction === null || fraction === undefined) bar.removeAttribute("value");
  else bar.value = fraction;
}

function drawProgress(photo) {
  if (photo === state.current) drawStatus();
  drawThumbs();
}

function drawThumbs() {
  const key = keyOf($("model").value, 1);
  for (const photo of state.photos) {
    const told = photo.progress.get(key);
    const failed = photo.failures.has(key) || photo.error;
    const done = photo.results.has(key);
    const percent = told?.state === "deraining" && told.fraction ? `${Math.round(told.fraction * 100)} %` : "…";
    photo.mark.textContent = failed ? "!" : done ? "✓" : told ? percent : "";
    photo.mark.className = `mark ${failed ? "failed" : done ? "done" : ""}`;
    photo.button.setAttribute("aria-current", String(photo === state.current));
    photo.button.setAttribute("aria-label", `${photo.name}, ${failed ? "failed" : done ? "done" : told ? "under way" : "waiting"}`);
  }
}

function showZoom({ fitted, scale, ratio }) {
  const percent = Math.round(scale * ratio * 100);
  $("zoom-fit").setAttribute("aria-pressed", String(fitted));
  $("zoom-full").setAttribute("aria-pressed", String(!fitted && percent === 100));
  $("zoom-full").textContent = fitted || percent === 100 ? "100 %" : `${percent} %`;
}

// ---------------------------------------------------------------- settings

function describe(name, about, harm) {
  const weights = state.weights.get(name);
  const speed = weights?.seconds_per_megapixel;
  const pace = speed ? ` Takes about ${speed < 10 ? speed.toFixed(1) : Math.round(speed)} s per megapixel.` : "";
  about.textContent = weights ? `${sentence(weights.summary)}${pace}` : name === BEFORE ? "The photo as it was." : "";
  harm.hidden = !weights?.harm;
  harm.textContent = weights?.harm ? sentence(weights.harm) : "";
}

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

function settingsChanged() {
  $("strength-value").textContent = `${$("strength").value} %`;
  describe($("model").value, $("model-about"), $("model-harm"));
  describe($("other").value, $("other-about"), $("other-harm"));
  draw();
  pump();
}

async function loadModels() {
  const { default: chosen, models: all } = await models();
  for (const weights of all) state.weights.set(weights.name, weights);
  const options = (extra) => all.map(({ name }) => new Option(name === chosen && !extra ? `${name} (recommended)` : name, name));
  $("model").replaceChildren(...options(false));
  $("model").value = chosen;
  $("other").replaceChildren(new Option("the photo as it was", BEFORE), ...options(true));
  const second = all.find(({ name, harm }) => name !== chosen && !harm);
  $("other").value = second ? second.name : BEFORE;
  settingsChanged();
}

function setView(value) {
  document.querySelector(`input[name=view][value=${value}]`).checked = true;
  settingsChanged();
}

function tellPrivacy() {
  const here = /^(localhost|127\.|\[::1\])/.test(location.hostname);
  const text = here
    ? "Your photos stay on this computer: nothing is sent anywhere else, and nothing is kept when you close this page."
    : `Your photos go to ${location.hostname} and nowhere else, and nothing is kept there.`;
  $("privacy").textContent = text;
  $("help-privacy").textContent = text;
}

// ---------------------------------------------------------------- wiring

const KEYS = {
  "+": () => viewer.zoomBy(1.25), "=": () => viewer.zoomBy(1.25), "-": () => viewer.zoomBy(0.8),
  0: () => viewer.fit(), 1: () => viewer.full(), "[": () => step(-1), "]": () => step(1),
  s: () => setView("slider"), r: () => setView("rain"), t: () => setView("two"), d: downloadOne,
  Delete: () => state.current && removePhoto(state.current), "?": () => $("help").showModal(),
};

function wire() {
  const pick = (id) => () => $(id).click();
  for (const [button, input] of [["choose", "files"], ["add", "files"], ["choose-folder", "folder"], ["add-folder", "folder"]]) $(button).onclick = pick(input);
  for (const input of ["files", "folder"]) {
    $(input).onchange = () => {
      add($(input).files);
      $(input).value = "";
    };
  }
  $("try-sample").onclick = async () => {
    const blob = await (await fetch("/sample.jpg")).blob();
    add([new File([blob], "sample.jpg", { type: "image/jpeg" })]);
  };
  $("clear").onclick = () => [...state.photos].forEach(removePhoto);
  $("retry").onclick = () => {
    state.current?.failures.clear();
    draw();
    pump();
  };
  for (const id of ["model", "other"]) $(id).onchange = settingsChanged;
  $("strength").oninput = settingsChanged;
  for (const input of document.querySelectorAll("input[name=view]")) input.onchange = settingsChanged;
  $("download").onclick = downloadOne;
  $("download-rain").onclick = downloadRain;
  $("download-all").onclick = downloadAll;
  $("zoom-in").onclick = () => viewer.zoomBy(1.25);
  $("zoom-out").onclick = () => viewer.zoomBy(0.8);
  $("zoom-fit").onclick = () => viewer.fit();
  $("zoom-full").onclick = () => viewer.full();
  $("help-button").onclick = () => $("help").showModal();
  wireKeys();
  wireDrops();
}

function wireKeys() {
  const typing = (target) => target.closest("select, dialog, input:not([type=radio])");
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "b" && !viewer.held) viewer.hold(true);
    if (!KEYS[key] || (!state.photos.length && key !== "?")) return;
    event.preventDefault();
    KEYS[key]();
  });
  addEventListener("keyup", (event) => event.key.toLowerCase() === "b" && viewer.hold(false));
  addEventListener("blur", () => viewer.hold(false));
}

function wireDrops() {
  const carriesFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    $("curtain").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("curtain").hidden = true;
  });
  addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    $("curtain").hidden = true;
    add(await dropped(event.dataTransfer));
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) add(event.clipboardData.files);
  });
}

tellPrivacy();
wire();
loadModels().catch((error) => {
  $("privacy").textContent = error.message;
});
