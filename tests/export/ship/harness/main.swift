// Runs the Swift preprocessing over the cases on stdin, one a line; see test_preprocess.py for the fields.
import Foundation

func numbers(_ text: String) -> [Float] { text == "-" ? [] : text.split(separator: ",").map { Float($0)! } }

while let line = readLine() {
    let f = line.split(separator: " ").map(String.init)
    let n = { (i: Int) in Int(f[i])! }
    var spec = Preprocess.Spec()
    spec.colour = Preprocess.Colour(rawValue: f[6])!
    (spec.sizeShort, spec.sizeHeight, spec.sizeWidth) = (n(7), n(8), n(9))
    spec.nearest = n(10) != 0
    (spec.cropHeight, spec.cropWidth) = (n(11), n(12))
    (spec.mean, spec.std) = (numbers(f[13]), numbers(f[14]))
    let raw = [UInt8](try Data(contentsOf: URL(fileURLWithPath: f[0])))
    let image = Preprocess.Image(height: n(2), width: n(3), channels: n(4), data: raw)
    let pixels = try Preprocess.geometry(Preprocess.upright(image, orientation: n(5)), spec)
    let tensor = Preprocess.normalise(pixels, spec)
    var out = Data()
    for side in [pixels.height, pixels.width, pixels.channels] { withUnsafeBytes(of: Int32(side).littleEndian) { out.append(contentsOf: $0) } }
    out.append(contentsOf: pixels.data)
    for v in tensor { withUnsafeBytes(of: v.bitPattern.littleEndian) { out.append(contentsOf: $0) } }
    try out.write(to: URL(fileURLWithPath: f[1]))
}
