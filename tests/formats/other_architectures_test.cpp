// SPDX-License-Identifier: Apache-2.0
// What is not RWKV-7 is refused with a message that says what it is; so are shapes and claims that do not fit.
#include "formats/checkpoint_files.h"

namespace libwkv::tests {
namespace {

Checkpoint good() { return formats::open_checkpoint((data_folder() / "rnd_a.bf16.pth").string()); }

void expect_refused(const std::vector<PlainTensor> &tensors, wkv_status status, const std::string &part) {
  std::string content = make_safetensors(tensors), message;
  EXPECT_EQ(status_of([&] { load_all(formats::open_checkpoint_memory(bytes_of(content))); }, &message), status) << part;
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(OtherArchitectures, extra_tensors_of_relatives_are_named) {
  struct {
    const char *tensor, *part;
  } cases[] = {
      {"blocks.0.ffn.s_emb.weight", "RWKV-7a"},
      {"blocks.1.ffn.s1", "RWKV-7a"},
      {"blocks.0.qkv.q.weight", "RWKV-7b"},
      {"blocks.0.att.time_maa_x", "RWKV-6"},
      {"blocks.0.att.gate.weight", "RWKV-5"},
      {"blocks.0.att.time_first", "RWKV-4"},
      {"blocks.0.att.time_state", "time_state"},
      {"model.layers.0.self_attn.q_proj.weight", "attention"},
      {"blocks.0.att.something", "blocks.0.att.something"},
      {"blocks.00.att.w0", "blocks.00.att.w0"},
      {"blocks.1.ln0.weight", "blocks.1.ln0.weight"},
  };
  for (const auto &[tensor, part] : cases) {
    std::vector<PlainTensor> tensors = plain_tensors(good());
    tensors.push_back({tensor, {2, 2}, {1, 2, 3, 4}});
    expect_refused(tensors, WKV_UNSUPPORTED, part);
  }
}

TEST(OtherArchitectures, the_newest_relative_is_named) {
  std::vector<PlainTensor> tensors;
  for (const char *name : {"emb.weight", "blocks.0.att.time_decay", "blocks.0.att.time_faaaa",
                           "blocks.0.att.gate.weight", "blocks.0.att.time_maa_w"})
    tensors.push_back({name, {1, 1}, {1}});
  expect_refused(tensors, WKV_UNSUPPORTED, "RWKV-6");
  tensors.pop_back();
  expect_refused(tensors, WKV_UNSUPPORTED, "RWKV-5");
}

TEST(OtherArchitectures, every_tensor_is_needed_and_its_shape_checked) {
  std::vector<PlainTensor> all = plain_tensors(good());
  for (size_t i = 0; i < all.size(); i++) {
    std::vector<PlainTensor> without = all;
    without.erase(without.begin() + static_cast<ptrdiff_t>(i));
    std::string content = make_safetensors(without);
    EXPECT_EQ(status_of([&] { load_all(formats::open_checkpoint_memory(bytes_of(content))); }), WKV_FORMAT)
        << all[i].name;

    std::vector<PlainTensor> longer = all;  // one more in the last dimension
    longer[i].shape.back()++;
    longer[i].values.resize(longer[i].values.size() +
                            longer[i].values.size() / static_cast<size_t>(longer[i].shape.back() - 1));
    content = make_safetensors(longer);
    EXPECT_EQ(status_of([&] { load_all(formats::open_checkpoint_memory(bytes_of(content))); }), WKV_FORMAT)
        << all[i].name;
  }
}

TEST(OtherArchitectures, a_layer_with_a_gap_is_refused) {
  std::vector<PlainTensor> tensors = plain_tensors(good());
  for (PlainTensor &tensor : tensors)
    if (tensor.name.starts_with("blocks.1.")) tensor.name[7] = '2';
  expect_refused(tensors, WKV_FORMAT, "belong to no layer");
}

TEST(OtherArchitectures, names_of_two_formats_in_one_file_are_duplicates) {
  std::vector<PlainTensor> tensors = plain_tensors(good());
  tensors.push_back({"lm_head.weight", {331, 64}, std::vector<float>(331 * 64)});
  expect_refused(tensors, WKV_FORMAT, "head.weight is there twice");
}

TEST(OtherArchitectures, layer_0_may_carry_value_mixing_of_any_rank) {
  std::vector<PlainTensor> tensors = plain_tensors(good());
  tensors.push_back({"blocks.0.att.v0", {1, 1, 64}, std::vector<float>(64)});
  tensors.push_back({"blocks.0.att.v1", {64, 5}, std::vector<float>(320)});
  tensors.push_back({"blocks.0.att.v2", {5, 64}, std::vector<float>(320)});
  std::string content = make_safetensors(tensors);
  expect_same_model(formats::open_checkpoint_memory(bytes_of(content)), good(), "dummy v");
}

TEST(OtherArchitectures, config_json) {
  TemporaryFolder folder;
  fs::copy(data_folder() / "fla_bf16/model.safetensors", folder / "model.safetensors");
  nlohmann::json config = nlohmann::json::parse(read_file(data_folder() / "fla_bf16/config.json"));
  struct {
    const char *key;
    nlohmann::json value;
    wkv_status status;
    const char *part;
  } cases[] = {
      {"model_type", "llama", WKV_UNSUPPORTED, "llama"},
      {"model_type", "rwkv6", WKV_UNSUPPORTED, "rwkv6"},
      {"attn", {{"layers", {1}}}, WKV_UNSUPPORTED, "hybrid"},
      {"norm_first", false, WKV_UNSUPPORTED, "norm_first"},
      {"norm_eps", 1e-6, WKV_UNSUPPORTED, "norm_eps"},
      {"hidden_act", "relu", WKV_UNSUPPORTED, "hidden_act"},
      {"hidden_size", 128, WKV_FORMAT, "width 128"},
      {"hidden_size", "64", WKV_FORMAT, "hidden_size"},
      {"hidden_size", 64.5, WKV_FORMAT, "hidden_size"},
      {"hidden_size", 0, WKV_FORMAT, "hidden_size"},
      {"num_hidden_layers", 3, WKV_FORMAT, "layers 3"},
      {"num_hidden_layers", 1e30, WKV_FORMAT, "num_hidden_layers"},
      {"head_dim", 32, WKV_FORMAT, "head size 32"},
      {"intermediate_size", 128, WKV_FORMAT, "ffn width 128"},
      {"intermediate_size", nullptr, WKV_OK, ""},
      {"num_heads", nullptr, WKV_OK, ""},
      {"num_heads", 32, WKV_OK, ""},  // head_dim decides
      {"vocab_size", 65536, WKV_FORMAT, "vocabulary 65536"},
      {"gate_low_rank_dim", 64, WKV_FORMAT, "gate rank 64"},
      {"anything_else", {{"is", "ignored"}}, WKV_OK, ""},
  };
  for (const auto &[key, value, status, part] : cases) {
    nlohmann::json changed = config;
    changed[key] = value;
    write_file(folder / "config.json", changed.dump());
    std::string message;
    EXPECT_EQ(open_status(folder.path(), &message), status) << key << " " << message;
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST(OtherArchitectures, a_tied_head_is_the_embedding) {
  TemporaryFolder folder;
  nlohmann::json config = nlohmann::json::parse(read_file(data_folder() / "fla_bf16/config.json"));
  std::vector<PlainTensor> tensors = plain_tensors(good());
  std::erase_if(tensors, [](const PlainTensor &tensor) { return tensor.name == "head.weight"; });
  write_file(folder / "model.safetensors", make_safetensors(tensors));
  write_file(folder / "config.json", config.dump());
  EXPECT_EQ(open_status(folder.path()), WKV_FORMAT);
  config["tie_word_embeddings"] = true;
  write_file(folder / "config.json", config.dump());
  Checkpoint tied = formats::open_checkpoint(folder.path().string());
  derive_hyper_parameters(tied);
  EXPECT_EQ(values_of(tied.tensors.at("head.weight")), values_of(tied.tensors.at("emb.weight")));
}

TEST(OtherArchitectures, a_vocabulary_larger_than_the_model_is_cut) {
  TemporaryFolder folder;
  fs::copy(data_folder() / "fla_bf16", folder.path(), fs::copy_options::recursive);
  std::ofstream(folder / "rwkv_vocab_v20230424.txt", std::ios::app) << "330 'last one' 8\n331 'one too many' 12\n";
  Checkpoint checkpoint = formats::open_checkpoint(folder.path().string());
  ASSERT_EQ(checkpoint.vocabulary.size(), 324u);
  EXPECT_EQ(checkpoint.vocabulary.back().id, 330);
  std::ofstream(folder / "rwkv_vocab_v20230424.txt", std::ios::app) << "332 oops 4\n";
  std::string message;
  EXPECT_EQ(open_status(folder.path(), &message), WKV_FORMAT);
  EXPECT_NE(message.find("line 326"), std::string::npos) << message;
}

// GGUF headers by patching the committed file: same length, so that nothing else moves.
std::string patched_gguf(const std::string &find, const std::string &replace) {
  std::string content = read_file(data_folder() / "rnd_a.Q8_0.gguf");
  size_t at = content.find(find);
  EXPECT_NE(at, std::string::npos) << find;
  EXPECT_EQ(find.size(), replace.size());
  return content.replace(at, find.size(), replace);
}

void expect_gguf_refused(const std::string &content, wkv_status status, const std::string &part) {
  std::string message;
  EXPECT_EQ(status_of([&] { load_all(formats::open_checkpoint_memory(bytes_of(content))); }, &message), status);
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(OtherArchitectures, gguf_headers) {
  using namespace std::string_literals;
  expect_gguf_refused(patched_gguf("\5\0\0\0\0\0\0\0rwkv7"s, "\5\0\0\0\0\0\0\0llama"s), WKV_UNSUPPORTED, "llama");
  expect_gguf_refused(patched_gguf("\5\0\0\0\0\0\0\0rwkv7"s, "\5\0\0\0\0\0\0\0rwkv6"s), WKV_UNSUPPORTED, "rwkv6");
  expect_gguf_refused(patched_gguf("wkv.head_size\4\0\0\0\x40\0\0\0"s, "wkv.head_size\4\0\0\0\x20\0\0\0"s), WKV_OK, "");
  expect_gguf_refused(patched_gguf("wkv.head_size\4\0\0\0\x40\0\0\0"s, "wkv.head_size\4\0\0\0\x30\0\0\0"s), WKV_FORMAT,
                      "head size 48");
  expect_gguf_refused(patched_gguf("block_count\4\0\0\0\2\0\0\0"s, "block_count\4\0\0\0\3\0\0\0"s), WKV_FORMAT,
                      "layers 3");
  expect_gguf_refused(patched_gguf("feed_forward_length\4\0\0\0\0\1\0\0"s, "feed_forward_length\4\0\0\0\0\2\0\0"s),
                      WKV_FORMAT, "ffn width 512");
  expect_gguf_refused(patched_gguf("embedding_length"s, "embedding_lengtt"s), WKV_FORMAT,
                      "embedding_length is missing");
  expect_gguf_refused(patched_gguf("decay_lora_rank\4\0\0\0\x20"s, "decay_lora_rank\4\0\0\0\x21"s), WKV_FORMAT,
                      "decay rank 33");
  expect_gguf_refused(
      patched_gguf("layer_norm_epsilon\6\0\0\0\xac\xc5\x27\x37"s, "layer_norm_epsilon\6\0\0\0\xac\xc5\x27\x36"s),
      WKV_UNSUPPORTED, "epsilon");
}

TEST(OtherArchitectures, gguf_version_2_reads_like_3) {
  using namespace std::string_literals;
  std::string content = patched_gguf("GGUF\3"s, "GGUF\2"s);
  expect_same_model(formats::open_checkpoint_memory(bytes_of(content)),
                    formats::open_checkpoint((data_folder() / "rnd_a.Q8_0.gguf").string()), "v2");
}

TEST(OtherArchitectures, arwkv_is_named) {
  // The name is longer than rwkv7, so a small header of its own.
  std::string content = "GGUF";
  append_number(content, uint32_t{3});
  append_number(content, uint64_t{0});
  append_number(content, uint64_t{1});
  auto text = [&](const std::string &value) {
    append_number(content, static_cast<uint64_t>(value.size()));
    content += value;
  };
  text("general.architecture");
  append_number(content, uint32_t{8});
  text("arwkv7");
  expect_gguf_refused(content, WKV_UNSUPPORTED, "ARWKV");
}

}  // namespace
}  // namespace libwkv::tests
