// SPDX-License-Identifier: Apache-2.0
#include "common/svg.h"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include <unistd.h>

namespace examples {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  std::string digits = text;
  digits.erase(digits.find_last_not_of('0') + 1);
  if (digits.back() == '.') digits.pop_back();
  return digits;
}

std::string attribute(const char *name, double value) { return std::string(" ") + name + "=\"" + number(value) + "\""; }
std::string attribute(const char *name, Colour value) { return std::string(" ") + name + "=\"" + hex(value) + "\""; }

std::string escape(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '&')
      result += "&amp;";
    else if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else if (c == '"')
      result += "&quot;";
    else
      result += c;
  }
  return result;
}

std::string box(double x, double y, double width, double height, double radius) {
  return "<rect" + attribute("x", x) + attribute("y", y) + attribute("width", width) + attribute("height", height) +
         (radius > 0 ? attribute("rx", radius) : "");
}

}  // namespace

std::string hex(Colour colour) {
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", colour.red, colour.green, colour.blue);
  return text;
}

Colour blend(Colour from, Colour to, double share) {
  const auto mix = [share](uint8_t a, uint8_t b) { return static_cast<uint8_t>(std::lround(a + (b - a) * share)); };
  return {mix(from.red, to.red), mix(from.green, to.green), mix(from.blue, to.blue)};
}

Svg::Svg(double width, double height) {
  body_ = "<svg xmlns=\"http://www.w3.org/2000/svg\"" + attribute("width", width) + attribute("height", height) +
          " viewBox=\"0 0 " + number(width) + " " + number(height) +
          "\" font-family=\"Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif\">\n";
  rect(0, 0, width, height, {255, 255, 255});
}

void Svg::rect(double x, double y, double width, double height, Colour fill, double radius) {
  body_ += box(x, y, width, height, radius) + attribute("fill", fill) + "/>\n";
}

void Svg::outline(double x, double y, double width, double height, Colour stroke, double stroke_width, double radius) {
  body_ += box(x, y, width, height, radius) + " fill=\"none\"" + attribute("stroke", stroke) +
           attribute("stroke-width", stroke_width) + "/>\n";
}

void Svg::text(double x, double y, double size, std::string_view text, Colour colour, Anchor anchor, bool is_bold) {
  body_ += "<text" + attribute("x", x) + attribute("y", y) + attribute("font-size", size) + attribute("fill", colour);
  if (anchor != Anchor::start) body_ += anchor == Anchor::middle ? " text-anchor=\"middle\"" : " text-anchor=\"end\"";
  if (is_bold) body_ += " font-weight=\"bold\"";
  body_ += " xml:space=\"preserve\">" + escape(text) + "</text>\n";
}

void Svg::curve(double x0, double y0, double x1, double y1, Colour stroke, double stroke_width) {
  const double middle = (x0 + x1) / 2;
  body_ += "<path d=\"M" + number(x0) + " " + number(y0) + " C" + number(middle) + " " + number(y0) + " " +
           number(middle) + " " + number(y1) + " " + number(x1) + " " + number(y1) + "\" fill=\"none\"" +
           attribute("stroke", stroke) + attribute("stroke-width", stroke_width) + " stroke-linecap=\"round\"/>\n";
}

void write_file(const std::string &path, std::string_view bytes) {
  const std::string temporary = path + "." + std::to_string(getpid()) + ".tmp";
  std::error_code error;
  {
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file) {
      std::filesystem::remove(temporary, error);
      throw std::runtime_error("cannot write " + path);
    }
  }
  std::filesystem::rename(temporary, path, error);
  if (!error) return;
  const std::string reason = error.message();
  std::filesystem::remove(temporary, error);
  throw std::runtime_error("cannot write " + path + ": " + reason);
}

}  // namespace examples
