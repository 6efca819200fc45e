// SPDX-License-Identifier: Apache-2.0
#include "formats/pickle.h"

#include <bit>

#include "formats/bytes.h"

namespace libwkv::formats {

namespace {

// Values that one file may make. The largest released checkpoint makes about 30,000.
constexpr size_t most_cells = size_t{1} << 20;
constexpr size_t most_dimensions = 8;

enum Callable : int64_t { ordered_dict, rebuild_tensor_v2, rebuild_parameter, storage_class };

struct StorageClass {
  std::string_view name;
  std::optional<StoredType> type;
};
constexpr StorageClass storage_classes[] = {
    {"FloatStorage", StoredType::f32},
    {"HalfStorage", StoredType::f16},
    {"BFloat16Storage", StoredType::bf16},
    {"DoubleStorage", {}},
    {"LongStorage", {}},
    {"IntStorage", {}},
    {"ShortStorage", {}},
    {"CharStorage", {}},
    {"ByteStorage", {}},
    {"BoolStorage", {}},
    {"ComplexFloatStorage", {}},
    {"ComplexDoubleStorage", {}},
    {"UntypedStorage", {}},
    {"QInt8Storage", {}},
    {"QUInt8Storage", {}},
    {"QInt32Storage", {}},
};

}  // namespace

Unpickler::Unpickler(std::span<const std::byte> bytes, std::string name) : bytes_(bytes), name_(std::move(name)) {}

void Unpickler::fail_here(wkv_status status, const char *what) const {
  fail(status, "%s: pickle at byte %zu: %s", name_.c_str(), position_, what);
}

std::string_view Unpickler::text(const PickleValue &value) const {
  return text_of(bytes_.subspan(value.index, static_cast<size_t>(value.number)));
}

std::span<const PickleValue> Unpickler::tuple(const PickleValue &value) const {
  return std::span(items_).subspan(value.index, static_cast<size_t>(value.number));
}

const PickleValue *Unpickler::find(const PickleValue &dictionary, std::string_view key) const {
  const std::vector<PickleValue> &entries = dict(dictionary);
  for (size_t i = 0; i < entries.size(); i += 2)
    if (entries[i].kind == Kind::text && text(entries[i]) == key) return &entries[i + 1];
  return nullptr;
}

void Unpickler::spend(size_t cells) {
  if (cells > most_cells - cells_) fail_here(WKV_FORMAT, "more values than any checkpoint has");
  cells_ += cells;
}

std::span<const std::byte> Unpickler::read(uint64_t size) {
  if (size > bytes_.size() - position_) fail_here(WKV_FORMAT, "it passes its end");
  std::span<const std::byte> part = bytes_.subspan(position_, static_cast<size_t>(size));
  position_ += static_cast<size_t>(size);
  return part;
}

template <class T>
T Unpickler::read_number() {
  return load<T>(read(sizeof(T)).data());
}

std::string_view Unpickler::read_line() {
  std::string_view rest = text_of(bytes_.subspan(position_));
  size_t end = rest.find('\n');
  if (end == std::string_view::npos) fail_here(WKV_FORMAT, "a name without an end");
  position_ += end + 1;
  return rest.substr(0, end);
}

void Unpickler::push(PickleValue value) {
  spend(1);
  stack_.push_back(value);
}

PickleValue &Unpickler::top() {
  // Values under a mark belong to what the mark opened.
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail_here(WKV_FORMAT, "the stack is empty");
  return stack_.back();
}

PickleValue Unpickler::pop() {
  PickleValue value = top();
  stack_.pop_back();
  return value;
}

size_t Unpickler::pop_mark() {
  if (marks_.empty()) fail_here(WKV_FORMAT, "no mark is set");
  size_t mark = marks_.back();
  marks_.pop_back();
  return mark;
}

void Unpickler::make_tuple(size_t first) {
  size_t count = stack_.size() - first;
  spend(count);
  PickleValue value{Kind::tuple, static_cast<uint32_t>(items_.size()), static_cast<int64_t>(count)};
  items_.insert(items_.end(), stack_.begin() + static_cast<ptrdiff_t>(first), stack_.end());
  stack_.resize(first);
  push(value);
}

void Unpickler::set_items(size_t first) {
  size_t count = stack_.size() - first;
  if (count % 2) fail_here(WKV_FORMAT, "a key without a value");
  spend(count);
  std::vector<PickleValue> items(stack_.begin() + static_cast<ptrdiff_t>(first), stack_.end());
  stack_.resize(first);
  PickleValue target = top();
  if (target.kind != Kind::dict) fail_here(WKV_FORMAT, "items are set on what is not a dict");
  std::vector<PickleValue> &entries = dicts_[target.index];
  entries.insert(entries.end(), items.begin(), items.end());
}

void Unpickler::append(size_t first) {
  spend(stack_.size() - first);
  std::vector<PickleValue> items(stack_.begin() + static_cast<ptrdiff_t>(first), stack_.end());
  stack_.resize(first);
  PickleValue target = top();
  if (target.kind != Kind::list) fail_here(WKV_FORMAT, "items are appended to what is not a list");
  std::vector<PickleValue> &entries = lists_[target.index];
  entries.insert(entries.end(), items.begin(), items.end());
}

void Unpickler::remember(uint64_t slot) {
  if (slot >= most_cells) fail_here(WKV_FORMAT, "a memo slot that is too large");
  PickleValue value = top();
  if (slot >= memo_.size()) memo_.resize(static_cast<size_t>(slot) + 1);
  memo_[static_cast<size_t>(slot)] = value;
}

void Unpickler::recall(uint64_t slot) {
  if (slot >= memo_.size()) fail_here(WKV_FORMAT, "an unknown memo slot");
  push(memo_[static_cast<size_t>(slot)]);
}

void Unpickler::push_text(uint64_t size) {
  uint32_t begin = static_cast<uint32_t>(position_);
  read(size);
  push({Kind::text, begin, static_cast<int64_t>(size)});
}

void Unpickler::push_long(uint64_t size) {
  std::span<const std::byte> digits = read(size);
  if (size > 8) return push({Kind::big_integer, 0, 0});
  uint64_t value = size && (digits.back() & std::byte{0x80}) != std::byte{0} ? ~uint64_t{0} : 0;
  for (size_t i = digits.size(); i-- > 0;) value = value << 8 | static_cast<uint64_t>(digits[i]);
  push({Kind::integer, 0, static_cast<int64_t>(value)});
}

void Unpickler::push_global(std::string_view module, std::string_view member) {
  auto is = [&](std::string_view m, std::string_view n) { return module == m && member == n; };
  if (is("collections", "OrderedDict")) return push({Kind::callable, 0, ordered_dict});
  if (is("torch._utils", "_rebuild_tensor_v2")) return push({Kind::callable, 0, rebuild_tensor_v2});
  if (is("torch._utils", "_rebuild_parameter")) return push({Kind::callable, 0, rebuild_parameter});
  if (module == "torch" || module == "torch.storage")
    for (uint32_t i = 0; i < std::size(storage_classes); i++)
      if (member == storage_classes[i].name) return push({Kind::callable, i, storage_class});
  fail(WKV_UNSUPPORTED, "%s: the pickle refers to %s.%s, which no file of weights needs; nothing was executed",
       name_.c_str(), printable(module).c_str(), printable(member).c_str());
}

// A persistent id: ('storage', class, key, location, values), and in legacy files a view, always None.
void Unpickler::push_storage() {
  PickleValue id = pop();
  if (id.kind != Kind::tuple) fail_here(WKV_FORMAT, "a persistent id that is not a tuple");
  std::span<const PickleValue> parts = tuple(id);
  bool is_storage = (parts.size() == 5 || (parts.size() == 6 && parts[5].kind == Kind::none)) &&
                    parts[0].kind == Kind::text && text(parts[0]) == "storage" && parts[1].kind == Kind::callable &&
                    parts[1].number == storage_class && parts[2].kind == Kind::text && parts[4].kind == Kind::integer &&
                    parts[4].number >= 0;
  if (!is_storage) fail_here(WKV_FORMAT, "a persistent id that names no storage");
  const StorageClass &type = storage_classes[parts[1].index];
  spend(sizeof(PickleStorage) / sizeof(PickleValue));
  storages_.push_back({text(parts[2]), type.type, type.name, parts[4].number});
  push({Kind::storage, static_cast<uint32_t>(storages_.size() - 1), 0});
}

void Unpickler::rebuild_tensor(std::span<const PickleValue> arguments) {
  // storage, offset, size, stride, requires_grad, hooks; newer ones may add metadata, which must then be empty
  bool is_known = (arguments.size() == 6 || (arguments.size() == 7 && arguments[6].kind == Kind::none) ||
                   (arguments.size() == 7 && arguments[6].kind == Kind::dict && dict(arguments[6]).empty())) &&
                  arguments[0].kind == Kind::storage && arguments[1].kind == Kind::integer &&
                  arguments[2].kind == Kind::tuple && arguments[3].kind == Kind::tuple &&
                  arguments[2].number == arguments[3].number;
  if (!is_known) fail_here(WKV_FORMAT, "a tensor with unknown arguments");
  std::span<const PickleValue> shape = tuple(arguments[2]), strides = tuple(arguments[3]);
  if (shape.size() > most_dimensions) fail_here(WKV_FORMAT, "a tensor with too many dimensions");
  spend(sizeof(PickleTensor) / sizeof(PickleValue) + shape.size());
  PickleTensor result{arguments[0].index, arguments[1].number, {}, {}};
  for (size_t i = 0; i < shape.size(); i++) {
    if (shape[i].kind != Kind::integer || strides[i].kind != Kind::integer)
      fail_here(WKV_FORMAT, "a tensor size that is no integer");
    result.shape.push_back(shape[i].number);
    result.strides.push_back(strides[i].number);
  }
  tensors_.push_back(std::move(result));
  push({Kind::tensor, static_cast<uint32_t>(tensors_.size() - 1), 0});
}

void Unpickler::reduce() {
  PickleValue packed = pop(), function = pop();
  if (packed.kind != Kind::tuple || function.kind != Kind::callable)
    fail_here(WKV_FORMAT, "a call of what is not callable");
  std::span<const PickleValue> arguments = tuple(packed);
  switch (function.number) {
    case ordered_dict:
      if (!arguments.empty()) fail_here(WKV_FORMAT, "OrderedDict with arguments");
      spend(2);
      dicts_.emplace_back();
      return push({Kind::dict, static_cast<uint32_t>(dicts_.size() - 1), 0});
    case rebuild_tensor_v2:
      return rebuild_tensor(arguments);
    case rebuild_parameter:
      if (arguments.empty() || arguments[0].kind != Kind::tensor)
        fail_here(WKV_FORMAT, "a parameter that is not a tensor");
      return push(arguments[0]);
    default:
      fail_here(WKV_FORMAT, "a call of a storage class");
  }
}

PickleValue Unpickler::run() {
  stack_.clear();
  marks_.clear();
  memo_.clear();
  for (;;) {
    size_t begin = position_;
    uint8_t opcode = read_number<uint8_t>();
    switch (opcode) {
      case 0x80: {  // PROTO
        uint8_t version = read_number<uint8_t>();
        if (version < 2 || version > 5) fail_here(WKV_UNSUPPORTED, "a protocol version other than 2 to 5");
        break;
      }
      case 0x95:
        read(8);
        break;     // FRAME: a hint for buffering
      case '.': {  // STOP
        PickleValue value = pop();
        if (!stack_.empty() || !marks_.empty()) fail_here(WKV_FORMAT, "values are left at its end");
        return value;
      }
      case '(':
        spend(1);
        marks_.push_back(stack_.size());
        break;
      case 'N':
        push({});
        break;
      case 0x88:
        push({Kind::boolean, 0, 1});
        break;
      case 0x89:
        push({Kind::boolean, 0, 0});
        break;
      case 'K':
        push({Kind::integer, 0, read_number<uint8_t>()});
        break;
      case 'M':
        push({Kind::integer, 0, read_number<uint16_t>()});
        break;
      case 'J':
        push({Kind::integer, 0, read_number<int32_t>()});
        break;
      case 0x8a:
        push_long(read_number<uint8_t>());
        break;   // LONG1
      case 'G':  // BINFLOAT; its value is never used
        read(8);
        push({Kind::real, 0, 0});
        break;
      case 0x8c:  // SHORT_BINUNICODE
      case 'U':
        push_text(read_number<uint8_t>());
        break;
      case 'X':  // BINUNICODE
      case 'T':
        push_text(read_number<uint32_t>());
        break;
      case '}':
        spend(2);
        dicts_.emplace_back();
        push({Kind::dict, static_cast<uint32_t>(dicts_.size() - 1), 0});
        break;
      case ']':
        spend(2);
        lists_.emplace_back();
        push({Kind::list, static_cast<uint32_t>(lists_.size() - 1), 0});
        break;
      case ')':
        push({Kind::tuple, static_cast<uint32_t>(items_.size()), 0});
        break;
      case 't':
        make_tuple(pop_mark());
        break;
      case 0x85:  // TUPLE1 to TUPLE3
      case 0x86:
      case 0x87: {
        size_t count = opcode - 0x84u;
        if (stack_.size() - (marks_.empty() ? 0 : marks_.back()) < count) fail_here(WKV_FORMAT, "the stack is empty");
        make_tuple(stack_.size() - count);
        break;
      }
      case 's': {
        if (stack_.size() - (marks_.empty() ? 0 : marks_.back()) < 3) fail_here(WKV_FORMAT, "the stack is empty");
        set_items(stack_.size() - 2);
        break;
      }
      case 'u':
        set_items(pop_mark());
        break;
      case 'a':
        if (stack_.size() - (marks_.empty() ? 0 : marks_.back()) < 2) fail_here(WKV_FORMAT, "the stack is empty");
        append(stack_.size() - 1);
        break;
      case 'e':
        append(pop_mark());
        break;
      case 'q':
        remember(read_number<uint8_t>());
        break;
      case 'r':
        remember(read_number<uint32_t>());
        break;
      case 0x94:
        remember(memo_.size());
        break;  // MEMOIZE
      case 'h':
        recall(read_number<uint8_t>());
        break;
      case 'j':
        recall(read_number<uint32_t>());
        break;
      case 'c': {  // GLOBAL
        std::string_view module = read_line(), member = read_line();
        push_global(module, member);
        break;
      }
      case 0x93: {  // STACK_GLOBAL
        PickleValue member = pop(), module = pop();
        if (module.kind != Kind::text || member.kind != Kind::text)
          fail_here(WKV_FORMAT, "a global whose name is no text");
        push_global(text(module), text(member));
        break;
      }
      case 'Q':
        push_storage();
        break;
      case 'R':
        reduce();
        break;
      case 'b': {  // BUILD: attributes of an OrderedDict (_metadata), which say nothing about weights
        pop();
        if (top().kind != Kind::dict) fail_here(WKV_UNSUPPORTED, "attributes of what is not a dict");
        break;
      }
      default: {
        position_ = begin;
        // INST, OBJ, NEWOBJ, NEWOBJ_EX make objects of any class
        bool is_call = opcode == 'i' || opcode == 'o' || opcode == 0x81 || opcode == 0x92;
        fail(is_call ? WKV_UNSUPPORTED : WKV_FORMAT,
             "%s: pickle at byte %zu: opcode 0x%02x, which no file of weights needs; nothing was executed",
             name_.c_str(), position_, opcode);
      }
    }
  }
}

}  // namespace libwkv::formats
