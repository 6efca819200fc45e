// SPDX-License-Identifier: Apache-2.0
#include "common/picture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "common/text_layout.h"

namespace examples {
namespace {

// Letters of 5 by 9 pixels, the last two rows below the baseline: 45 bits, row by row, the highest bit first.
constexpr int glyph_width = 5, glyph_height = 9, glyph_baseline = 7, glyph_advance = 6;
struct Glyph {
  char letter;
  uint64_t bits;
};
constexpr Glyph font[] = {
    {'%', 0x19c88889cc00}, {'\'', 0x042000000000}, {'(', 0x022210820800}, {')', 0x082084222000}, {'+', 0x00213e420000},
    {',', 0x000000021100}, {'-', 0x00001c000000},  {'.', 0x000000001000}, {'/', 0x010888884000}, {'0', 0x0e8c6318b800},
    {'1', 0x046108423800}, {'2', 0x0e8844447c00},  {'3', 0x1e085c10f800}, {'4', 0x0232a5f10800}, {'5', 0x1f878218b800},
    {'6', 0x0e843d18b800}, {'7', 0x1f0888842000},  {'8', 0x0e8c5d18b800}, {'9', 0x0e8c5e10b800}, {':', 0x000100020000},
    {'=', 0x0007c1f00000}, {'?', 0x0e884c401000},  {'A', 0x0e8c7f18c400}, {'B', 0x1e8c7d18f800}, {'C', 0x0e8c2108b800},
    {'D', 0x1e8c6318f800}, {'E', 0x1f843d087c00},  {'F', 0x1f843d084000}, {'G', 0x0e8c2f18bc00}, {'H', 0x118c7f18c400},
    {'I', 0x0e2108423800}, {'J', 0x071084293000},  {'K', 0x119531494400}, {'L', 0x108421087c00}, {'M', 0x11dd6b18c400},
    {'N', 0x11ce6b39c400}, {'O', 0x0e8c6318b800},  {'P', 0x1e8c7d084000}, {'Q', 0x0e8c63593400}, {'R', 0x1e8c7d494400},
    {'S', 0x0f841c10f800}, {'T', 0x1f2108421000},  {'U', 0x118c6318b800}, {'V', 0x118c63151000}, {'W', 0x118c6b5dc400},
    {'X', 0x118a88a8c400}, {'Y', 0x118a88421000},  {'Z', 0x1f0888887c00}, {'_', 0x0000000003e0}, {'a', 0x000382f8bc00},
    {'b', 0x1087a318f800}, {'c', 0x0003e1083c00},  {'d', 0x010be318bc00}, {'e', 0x0003a3f83c00}, {'f', 0x064790842000},
    {'g', 0x0003e318bc2e}, {'h', 0x1087a318c400},  {'i', 0x040308423800}, {'j', 0x020184210a4c}, {'k', 0x1084a98a4800},
    {'l', 0x0c2108423800}, {'m', 0x0006ab5ad400},  {'n', 0x0007a318c400}, {'o', 0x0003a318b800}, {'p', 0x0007a318fa10},
    {'q', 0x0003e318bc21}, {'r', 0x0005b3084000},  {'s', 0x0003e0e0f800}, {'t', 0x084790841800}, {'u', 0x00046318bc00},
    {'v', 0x000463151000}, {'w', 0x00046b5aa800},  {'x', 0x000454454400}, {'y', 0x00046318bc2e}, {'z', 0x0007c4447c00},
};

uint64_t glyph_of(char letter) {
  if (letter == ' ') return 0;
  const auto found = std::find_if(std::begin(font), std::end(font), [=](const Glyph &g) { return g.letter == letter; });
  return found == std::end(font) ? glyph_of('?') : found->bits;
}

// Pixels, three bytes each.
class Raster {
 public:
  Raster(int width, int height)
      : width_(width), height_(height), bytes_(static_cast<size_t>(width) * static_cast<size_t>(height) * 3, 255) {}

  void fill(int left, int top, int right, int bottom, Colour colour) {
    for (int y = std::max(top, 0); y < std::min(bottom, height_); y++)
      for (int x = std::max(left, 0); x < std::min(right, width_); x++) {
        uint8_t *pixel = &bytes_[(static_cast<size_t>(y) * static_cast<size_t>(width_) + static_cast<size_t>(x)) * 3];
        pixel[0] = colour.red;
        pixel[1] = colour.green;
        pixel[2] = colour.blue;
      }
  }

  std::string png() const;

 private:
  int width_, height_;
  std::vector<uint8_t> bytes_;
};

void put(std::string &out, uint32_t value) {  // big endian
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
}

constexpr std::array<uint32_t, 256> crc_table = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320u ^ value >> 1 : value >> 1;
    table[i] = value;
  }
  return table;
}();

void put_chunk(std::string &out, const std::string &type, const std::string &data) {
  put(out, static_cast<uint32_t>(data.size()));
  uint32_t crc = ~0u;
  for (const char c : type + data) crc = crc_table[(crc ^ static_cast<uint8_t>(c)) & 255] ^ crc >> 8;
  out += type + data;
  put(out, ~crc);
}

// Bits of a deflate stream: the first one goes into the lowest place of a byte.
class BitWriter {
 public:
  // The lowest bit first; Huffman codes are written the other way round.
  void put(uint32_t value, int count) {
    for (int i = 0; i < count; i++) push(value >> i & 1);
  }
  void put_code(uint32_t code, int count) {
    while (count-- > 0) push(code >> count & 1);
  }
  std::string finish() {
    while (used_ > 0) push(0);
    return std::move(bytes_);
  }

 private:
  void push(uint32_t bit) {
    if (used_ == 0) bytes_ += '\0';
    bytes_.back() = static_cast<char>(static_cast<uint8_t>(bytes_.back()) | bit << used_);
    used_ = (used_ + 1) & 7;
  }
  std::string bytes_;
  int used_ = 0;
};

// A zlib stream that knows one trick, to repeat the last byte: all that filtered rows of flat colours need. Codes are
// deflate's fixed ones; of its lengths only those without extra bits are used.
std::string zlib_runs(const std::string &data) {
  BitWriter out;
  out.put(0x0178, 16);
  out.put(1, 1);  // the last block
  out.put(1, 2);  // with fixed codes
  const auto put_symbol = [&](uint32_t symbol) {
    if (symbol < 144)
      out.put_code(0x30 + symbol, 8);
    else if (symbol < 256)
      out.put_code(0x190 + symbol - 144, 9);
    else if (symbol < 280)
      out.put_code(symbol - 256, 7);
    else
      out.put_code(0xc0 + symbol - 280, 8);
  };
  uint32_t a = 1, b = 0;
  for (size_t at = 0; at < data.size();) {
    const uint8_t byte = static_cast<uint8_t>(data[at]);
    const size_t found = data.find_first_not_of(data[at], at);
    size_t run = (found == std::string::npos ? data.size() : found) - at;
    for (size_t i = 0; i < run; i++) {
      a = (a + byte) % 65521;
      b = (b + a) % 65521;
    }
    at += run;
    put_symbol(byte);
    for (run--; run > 0;) {
      const size_t length = run >= 258 ? 258 : run >= 10 ? 10 : run >= 3 ? run : 1;
      put_symbol(length == 258 ? 285 : length == 1 ? byte : static_cast<uint32_t>(254 + length));
      if (length > 1) out.put_code(0, 5);  // distance 1
      run -= length;
    }
  }
  put_symbol(256);
  std::string stream = out.finish();
  put(stream, b << 16 | a);
  return stream;
}

std::string Raster::png() const {
  std::string header;
  put(header, static_cast<uint32_t>(width_));
  put(header, static_cast<uint32_t>(height_));
  header += std::string("\x08\x02\x00\x00\x00", 5);  // 8 bits a channel, RGB
  std::string rows;
  const size_t row = static_cast<size_t>(width_) * 3;
  for (size_t at = 0; at < bytes_.size(); at++) {
    if (at % row == 0) rows += '\2';  // each byte less the one above
    rows += static_cast<char>(bytes_[at] - (at >= row ? bytes_[at - row] : 0));
  }
  std::string out = "\x89PNG\r\n\x1a\n";
  put_chunk(out, "IHDR", header);
  put_chunk(out, "IDAT", zlib_runs(rows));
  put_chunk(out, "IEND", "");
  return out;
}

}  // namespace

std::string Picture::svg() const {
  Svg svg(width_, height_);
  for (const auto &shape : shapes_) {
    if (const Rect *r = std::get_if<Rect>(&shape))
      svg.rect(r->x, r->y, r->width, r->height, r->colour);
    else if (const Text *t = std::get_if<Text>(&shape))
      svg.text(t->x, t->y, t->size, t->text, t->colour, t->anchor, t->is_bold);
  }
  return svg.finish();
}

std::string Picture::png(int scale) const {
  const auto pixel = [scale](double value) { return static_cast<int>(std::lround(value * scale)); };
  Raster raster(pixel(width_), pixel(height_));
  for (const auto &shape : shapes_) {
    if (const Rect *r = std::get_if<Rect>(&shape)) {
      raster.fill(pixel(r->x), pixel(r->y), pixel(r->x + r->width), pixel(r->y + r->height), r->colour);
      continue;
    }
    const Text &t = std::get<Text>(shape);
    // capital letters are about seven tenths of a font's size high
    const int dot = std::max(1, static_cast<int>(t.size * scale * 0.72 / glyph_baseline + 0.35));
    const std::string letters = one_line(t.text, true);
    const int width = static_cast<int>(letters.size()) * glyph_advance * dot - dot;
    int left = pixel(t.x) - (t.anchor == Anchor::end ? width : t.anchor == Anchor::middle ? width / 2 : 0);
    const int top = pixel(t.y) - glyph_baseline * dot;
    for (const char letter : letters) {
      const uint64_t bits = glyph_of(letter);
      for (int y = 0; y < glyph_height; y++)
        for (int x = 0; x < glyph_width; x++)
          if (bits >> (glyph_width * glyph_height - 1 - (y * glyph_width + x)) & 1)
            raster.fill(left + x * dot, top + y * dot, left + (x + 1) * dot + (t.is_bold ? dot / 2 : 0),
                        top + (y + 1) * dot, t.colour);
      left += glyph_advance * dot;
    }
  }
  return raster.png();
}

Colour viridis(double share) {
  static constexpr Colour stops[] = {{68, 1, 84},    {71, 45, 123}, {59, 82, 139},  {44, 114, 142}, {33, 145, 140},
                                     {40, 174, 128}, {94, 201, 98}, {173, 220, 48}, {253, 231, 37}};
  constexpr double last = std::size(stops) - 1;
  const double at = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) * last : 0;
  const size_t below = static_cast<size_t>(std::min(at, last - 1));
  return blend(stops[below], stops[below + 1], at - static_cast<double>(below));
}

}  // namespace examples
