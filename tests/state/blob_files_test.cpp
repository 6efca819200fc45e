// SPDX-License-Identifier: Apache-2.0
// A blob's file appears whole or not at all, whatever happens to the disk or the process.
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <thread>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "state/blob_bytes.h"

namespace libwkv::test {
namespace {

// A disk in a folder that has room for one file of this size and not for two, for this process alone. False when the
// system does not let us.
bool mount_small_disk(const std::string &folder, size_t file_bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), pages = (file_bytes + page - 1) / page;
  const std::string options = "size=" + std::to_string((2 * pages - 1) * page);
  const auto write_text = [](const char *path, const std::string &text) {
    std::ofstream file(path);
    return static_cast<bool>(file << text << std::flush);
  };
  const std::string user = std::to_string(geteuid()), group = std::to_string(getegid());
  if (unshare(CLONE_NEWNS) != 0 &&
      (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0 || !write_text("/proc/self/setgroups", "deny") ||
       !write_text("/proc/self/uid_map", "0 " + user + " 1") || !write_text("/proc/self/gid_map", "0 " + group + " 1")))
    return false;
  return mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("tmpfs", folder.c_str(), "tmpfs", 0, options.c_str()) == 0;
}

class BlobFiles : public testing::Test {
 protected:
  static wkv_model_options one_thread() {
    wkv_model_options options = default_options();
    options.threads = 1;
    options.device = "cpu";  // these tests fork, which a process with CUDA cannot
    return options;
  }
  void SetUp() override {
    old_ = create_cache(random_.model);
    step(random_.info, random_.model, old_, random_tokens(5, small_shape.vocab_size, 1));
    new_ = create_cache(random_.model);
    step(random_.info, random_.model, new_, random_tokens(9, small_shape.vocab_size, 2));
  }
  wkv_status save(wkv_cache *cache, const std::string &path) {
    failure_ = Failure();
    return wkv_cache_save(cache, path.c_str(), &failure_);
  }
  // With something other than a regular folder at hand: the old file is there and stays.
  void expect_old_stays(const Folder &folder, const std::function<wkv_status()> &call) {
    const std::string path = folder / "state";
    ASSERT_EQ(save(old_, path), WKV_OK) << failure_.message;
    EXPECT_EQ(wkv_status_name(call()), std::string("WKV_IO")) << failure_.message;
    EXPECT_EQ(read_file(path), serialize(old_));
    EXPECT_EQ(folder.files(), 1u) << "a temporary file is left";
    ASSERT_EQ(save(new_, path), WKV_OK) << failure_.message;
    EXPECT_EQ(read_file(path), serialize(new_));
  }

  RandomModel random_{small_shape, WKV_TYPE_F32, one_thread()};
  Cache old_, new_;
  Failure failure_;
};

TEST_F(BlobFiles, replace_what_was_there) {
  Folder folder;
  const std::string path = folder / "state";
  EXPECT_EQ(save(old_, path), WKV_OK) << failure_.message;
  EXPECT_EQ(save(new_, path), WKV_OK) << failure_.message;
  EXPECT_EQ(read_file(path), serialize(new_));
  EXPECT_EQ(folder.files(), 1u);
}

TEST_F(BlobFiles, need_a_folder) {
  Folder folder;
  EXPECT_EQ(save(old_, folder / "missing/state"), WKV_NOT_FOUND) << failure_.message;
  EXPECT_NE(std::string(failure_.message).find("missing/state"), std::string::npos) << failure_.message;
  EXPECT_EQ(save(old_, ""), WKV_NOT_FOUND) << failure_.message;
  write_file(folder / "file", {});
  EXPECT_EQ(save(old_, folder / "file/state"), WKV_NOT_FOUND) << failure_.message;
  EXPECT_EQ(save(old_, folder.path()), WKV_IO) << failure_.message;
  EXPECT_EQ(save(old_, folder / std::string(300, 'a').c_str()), WKV_IO) << failure_.message;
  EXPECT_EQ(folder.files(), 1u);
}

TEST_F(BlobFiles, that_are_none_are_refused) {
  Folder folder;
  Cache made;
  BlobInfo info;
  const auto expect_refused = [&](wkv_status status, const std::string &path) {
    WKV_EXPECT_STATUS(status, wkv_cache_load(random_.model, path.c_str(), made.out(), &failure_), failure_);
    EXPECT_EQ(made.get(), nullptr);
    WKV_EXPECT_STATUS(status, wkv_cache_read_header(path.c_str(), &info, &failure_), failure_);
  };
  expect_refused(WKV_NOT_FOUND, folder / "missing");
  expect_refused(WKV_NOT_FOUND, "");
  expect_refused(WKV_IO, folder.path());
  expect_refused(WKV_IO, "/dev/zero");
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_refused(WKV_IO, folder / "pipe");
  write_file(folder / "empty", {});
  expect_refused(WKV_FORMAT, folder / "empty");
}

// A file of a hundred gigabytes without content, whose header says so.
TEST_F(BlobFiles, that_are_huge_are_refused_before_memory_is_taken) {
  Folder folder;
  Bytes bytes = serialize(old_);
  const uint64_t tokens = (uint64_t{100} << 30) / 4;
  put<uint32_t>(bytes, entry_of(0) + at::kind, 1);  // tokens, a hundred gigabytes of them
  put<uint64_t>(bytes, at::position, tokens);
  put<uint64_t>(bytes, entry_of(0) + at::section_bytes, 4 * tokens);
  put<uint64_t>(bytes, at::bytes, 256 + 4 * tokens);
  sign_header(bytes);
  write_file(folder / "huge", bytes);
  if (truncate((folder / "huge").c_str(), static_cast<off_t>(256 + 4 * tokens)) != 0)
    GTEST_SKIP() << "no such large files here";
  Cache made;
  WKV_EXPECT_STATUS(WKV_UNSUPPORTED, wkv_cache_load(random_.model, (folder / "huge").c_str(), made.out(), &failure_),
                    failure_);
}

TEST_F(BlobFiles, leave_the_old_one_when_files_may_not_grow) {
  Folder folder;
  struct sigaction ignore {
  }, before_action;
  ignore.sa_handler = SIG_IGN;
  ASSERT_EQ(sigaction(SIGXFSZ, &ignore, &before_action), 0);
  struct rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  for (const rlim_t most : {0, 1, 168, 1000, 4863})
    expect_old_stays(folder, [&] {
      struct rlimit small = before;
      small.rlim_cur = most;
      setrlimit(RLIMIT_FSIZE, &small);
      const wkv_status status = save(new_, folder / "state");
      setrlimit(RLIMIT_FSIZE, &before);
      return status;
    });
  sigaction(SIGXFSZ, &before_action, nullptr);
}

// In a process of its own, with a disk of its own.
TEST_F(BlobFiles, leave_the_old_one_when_the_disk_is_full) {
  Folder folder;
  enum Outcome { fine, no_disk, wrong };
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (!mount_small_disk(folder.path(), serialize(old_).size())) _exit(no_disk);
    const std::string path = folder / "state";
    bool is_fine = save(old_, path) == WKV_OK && save(new_, folder / "second") == WKV_IO &&
                   save(new_, path) == WKV_IO && read_file(path) == serialize(old_) && folder.files() == 1;
    _exit(is_fine ? fine : wrong);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == no_disk) GTEST_SKIP() << "no file system can be mounted here";
  EXPECT_EQ(WEXITSTATUS(status), fine);
}

TEST_F(BlobFiles, leave_the_old_one_in_a_folder_that_cannot_be_written) {
  Folder folder;
  constexpr uid_t nobody = 65534;
  const bool is_root = geteuid() == 0;  // who may write everywhere
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  expect_old_stays(folder, [&]() -> wkv_status {
    std::filesystem::permissions(folder.path(), std::filesystem::perms(0555));
    if (is_root && seteuid(nobody) != 0) return WKV_INTERNAL;
    const wkv_status status = save(new_, folder / "state");
    if (is_root && seteuid(0) != 0) return WKV_INTERNAL;
    std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
    return status;
  });
}

// A process that saves without end is killed at some moment, again and again.
TEST_F(BlobFiles, are_one_or_the_other_after_a_kill) {
  Folder folder;
  const std::string path = folder / "state";
  ASSERT_EQ(save(old_, path), WKV_OK);
  const Bytes one = serialize(old_), other = serialize(new_);
  const std::vector<int32_t> delays = random_tokens(40, 4000, 5);  // microseconds
  size_t changed = 0;
  for (const int32_t delay : delays) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (;;)
        if (save(new_, path) != WKV_OK || save(old_, path) != WKV_OK) _exit(1);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(delay));
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "saving failed";
    const Bytes now = read_file(path);
    ASSERT_TRUE(now == one || now == other);
    changed += now == other;
    Cache again;
    WKV_ASSERT_STATUS(WKV_OK, wkv_cache_load(random_.model, path.c_str(), again.out(), &failure_), failure_);
  }
  RecordProperty("times_the_new_one_was_there", static_cast<int>(changed));
}

// A file that shrinks or changes while others read it is an error, never the end of the process.
TEST_F(BlobFiles, may_change_while_they_are_read) {
  Folder folder;
  const std::string path = folder / "state";
  const Bytes bytes = serialize(old_);
  write_file(path, bytes);
  std::atomic<bool> is_done{false};
  std::jthread writer([&] {
    while (!is_done) {
      write_file(path, std::span(bytes).first(2000));
      write_file(path, bytes);
    }
  });
  for (int i = 0; i < 300; i++) {
    Cache again;
    Failure failure;
    const wkv_status status = wkv_cache_load(random_.model, path.c_str(), again.out(), &failure);
    ASSERT_TRUE(status == WKV_OK || status == WKV_FORMAT || status == WKV_IO) << failure.message;
    ASSERT_EQ(status == WKV_OK, again.get() != nullptr);
  }
  is_done = true;
}

}  // namespace
}  // namespace libwkv::test
