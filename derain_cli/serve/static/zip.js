// Files into one zip, stored as they are: images do not get smaller.

const LIMIT = 0xffffffff;
const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value >>> 0;
});

function checksum(bytes) {
  let value = LIMIT;
  for (let at = 0; at < bytes.length; at += 1) value = TABLE[(value ^ bytes[at]) & 255] ^ (value >>> 8);
  return (value ^ LIMIT) >>> 0;
}

function dosTime(date) {
  const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
  const day = ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
  return [time, day];
}

// Numbers as little-endian bytes: each is [bytes, value].
function pack(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += size;
  }
  return new Uint8Array(view.buffer);
}

/** A zip of `{name, blob}` files. */
export async function zipped(files, date = new Date()) {
  const parts = [];
  const directory = [];
  let offset = 0;
  const [time, day] = dosTime(date);
  for (const { name, blob } of files) {
    const label = new TextEncoder().encode(name);
    const sum = checksum(new Uint8Array(await blob.arrayBuffer()));
    // Version 2.0, names in UTF-8, stored; then the same facts again in the directory.
    const facts = [[2, 20], [2, 0x800], [2, 0], [2, time], [2, day], [4, sum], [4, blob.size], [4, blob.size], [2, label.length], [2, 0]];
    parts.push(pack([[4, 0x04034b50], ...facts]), label, blob);
    directory.push(pack([[4, 0x02014b50], [2, 20], ...facts, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]), label);
    offset += 30 + label.length + blob.size;
    if (offset > LIMIT) throw new Error("More than 4 GB: download the photos one by one.");
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = pack([[4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
