// SPDX-License-Identifier: Apache-2.0
// The C++ program of the top README, against the installed library.
#include <cstdio>

#include <wkv/wkv.hpp>

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  wkv::Model model = wkv::Model::load(argv[1]);
  wkv::Cache cache(model);
  wkv::GenerationOptions options;
  options.prompt = "Once upon a time";
  options.max_tokens = 20;
  for (const wkv::Piece &piece : wkv::Generation(cache, options)) std::fputs(std::string(piece.text).c_str(), stdout);
  std::puts("");
  return cache.info().position > 20 ? 0 : 1;
}
