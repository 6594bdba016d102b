// Runs the C++ preprocessing over the cases on stdin, one a line; see test_preprocess.py for the fields.
#include <fstream>
#include <iostream>
#include <sstream>

#include "preprocess.hpp"

static std::vector<float> numbers(const std::string& text) {
  std::vector<float> found;
  std::stringstream parts(text == "-" ? "" : text);
  for (std::string part; std::getline(parts, part, ',');) found.push_back(std::stof(part));
  return found;
}

int main() {
  using namespace packlight;
  for (std::string line; std::getline(std::cin, line);) {
    std::stringstream words(line);
    std::string raw, out, colour, mean, std_;
    int h, w, c, orientation, nearest;
    Spec spec;
    words >> raw >> out >> h >> w >> c >> orientation >> colour >> spec.size_short >> spec.size_height >> spec.size_width >> nearest >>
        spec.crop_height >> spec.crop_width >> mean >> std_;
    spec.colour = colour == "RGB" ? Colour::RGB : colour == "BGR" ? Colour::BGR : Colour::GREY;
    spec.nearest = nearest != 0;
    spec.mean = numbers(mean);
    spec.std = numbers(std_);
    Image image(h, w, c);
    std::ifstream(raw, std::ios::binary).read(reinterpret_cast<char*>(image.data.data()), image.data.size());
    const Image pixels = geometry(upright(image, orientation), spec);
    const std::vector<float> tensor = normalise(pixels, spec);
    std::ofstream file(out, std::ios::binary);
    const int32_t shape[3] = {pixels.height, pixels.width, pixels.channels};
    file.write(reinterpret_cast<const char*>(shape), sizeof shape);
    file.write(reinterpret_cast<const char*>(pixels.data.data()), pixels.data.size());
    file.write(reinterpret_cast<const char*>(tensor.data()), tensor.size() * sizeof(float));
  }
}
