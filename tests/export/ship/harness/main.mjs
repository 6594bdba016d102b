// Runs the JavaScript preprocessing over the cases on stdin, one a line; see test_preprocess.py for the fields.
import { readFileSync, writeFileSync } from "node:fs";

const { geometry, normalise, upright } = await import(process.argv[2]);
const numbers = (text) => (text === "-" ? [] : text.split(",").map(Number));
for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const [raw, out, h, w, c, orientation, colour, short, sh, sw, nearest, ch, cw, mean, std] = line.split(" ");
  const spec = {
    colour,
    size: +short > 0 ? +short : +sh > 0 ? [+sh, +sw] : null,
    resize: +nearest ? "nearest" : "bilinear",
    crop: +ch > 0 ? [+ch, +cw] : null,
    mean: numbers(mean),
    std: numbers(std),
  };
  const image = { height: +h, width: +w, channels: +c, data: new Uint8Array(readFileSync(raw)) };
  const pixels = geometry(upright(image, +orientation), spec);
  const tensor = normalise(pixels, spec);
  writeFileSync(
    out,
    Buffer.concat([
      Buffer.from(Int32Array.of(pixels.height, pixels.width, pixels.channels).buffer),
      Buffer.from(pixels.data.buffer),
      Buffer.from(tensor.data.buffer),
    ]),
  );
}
