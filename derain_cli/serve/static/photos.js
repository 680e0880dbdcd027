// Photos as they come in: from the file chooser, a folder, or dropped.

const ENDINGS = /\.(avif|bmp|dib|gif|heic|heif|hif|jfif|jpe|jpe?g|mpo|png|tiff?|webp)$/i;

/** Files that look like images, each with its path, in natural order. */
export function images(files) {
  return [...files]
    .map((file) => (file.file ? file : { file, path: file.webkitRelativePath || file.name }))
    .filter(({ file, path }) => (file.type.startsWith("image/") || ENDINGS.test(path)) && !/(^|\/)\./.test(path))
    .sort((one, two) => one.path.localeCompare(two.path, undefined, { numeric: true }));
}

/** Everything below what was dropped; the entries must be taken while the event lasts. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(below))).flat();
}

async function below(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A browser gives a folder's entries a hundred at a time.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(below))).flat();
}

/** An element that has loaded the file's image; rejects where the browser cannot show it. */
export async function shown(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Draw an image small. */
export function drawThumb(canvas, image) {
  const scale = Math.max(canvas.width / image.naturalWidth, canvas.height / image.naturalHeight);
  const [width, height] = [canvas.width / scale, canvas.height / scale];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(
    image, (image.naturalWidth - width) / 2, (image.naturalHeight - height) / 2, width, height,
    0, 0, canvas.width, canvas.height,
  );
}

/** Names for files of a zip: paths as they came, a number where two are the same. */
export function distinct(names) {
  const taken = new Set();
  return names.map((name) => {
    const [, stem, ending] = /^(.*?)(\.[^./]*)?$/.exec(name);
    let free = name;
    for (let number = 2; taken.has(free.toLowerCase()); number += 1) free = `${stem} (${number})${ending || ""}`;
    taken.add(free.toLowerCase());
    return free;
  });
}
