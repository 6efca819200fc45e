// SPDX-License-Identifier: Apache-2.0
// Writes SVG pictures, and files that appear whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace examples {

struct Colour {
  uint8_t red, green, blue;
};

// "#1b9e77"
std::string hex(Colour colour);
// From `from` at 0 to `to` at 1.
Colour blend(Colour from, Colour to, double share);

enum class Anchor { start, middle, end };

class Svg {
 public:
  Svg(double width, double height);
  void rect(double x, double y, double width, double height, Colour fill, double radius = 0);
  void outline(double x, double y, double width, double height, Colour stroke, double stroke_width, double radius = 0);
  // y is the baseline.
  void text(double x, double y, double size, std::string_view text, Colour colour, Anchor anchor = Anchor::start,
            bool is_bold = false);
  // A smooth horizontal connection.
  void curve(double x0, double y0, double x1, double y1, Colour stroke, double stroke_width);
  std::string finish() const { return body_ + "</svg>\n"; }

 private:
  std::string body_;
};

// Writes beside the file and renames, so that a file there is replaced whole or stays as it is.
void write_file(const std::string &path, std::string_view bytes);

}  // namespace examples
