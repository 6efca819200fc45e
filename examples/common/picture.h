// SPDX-License-Identifier: Apache-2.0
// A picture of rectangles and labels that can be written as SVG and as PNG.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "common/svg.h"

namespace examples {

class Picture {
 public:
  Picture(double width, double height) : width_(width), height_(height) {}
  void rect(double x, double y, double width, double height, Colour colour) {
    shapes_.push_back(Rect{x, y, width, height, colour});
  }
  // y is the baseline.
  void text(double x, double y, double size, std::string text, Colour colour, Anchor anchor = Anchor::start,
            bool is_bold = false) {
    shapes_.push_back(Text{x, y, size, std::move(text), colour, anchor, is_bold});
  }

  std::string svg() const;
  // Every unit becomes `scale` pixels; letters come from a small font inside, printable ASCII only.
  std::string png(int scale) const;

 private:
  struct Rect {
    double x, y, width, height;
    Colour colour;
  };
  struct Text {
    double x, y, size;
    std::string text;
    Colour colour;
    Anchor anchor;
    bool is_bold;
  };
  double width_, height_;
  std::vector<std::variant<Rect, Text>> shapes_;
};

// The colours of viridis, which rise evenly in lightness and which colour-blind people can tell apart; share in [0, 1].
Colour viridis(double share);

}  // namespace examples
