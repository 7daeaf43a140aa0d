// A small monitor for tests: maps a disk that `nydusd uffd` serves, reads all of it through page faults and writes it to standard output.
//   uffd-client SOCKET copy|zerocopy|prefault PAGE_SIZE
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static int sock, uffd;
static char *base;

static void fail(const char *what) {
  fprintf(stderr, "uffd-client: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void send_message(const char *text, int fd) {
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec vector = {.iov_base = (void *)text, .iov_len = strlen(text)};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  if (sendmsg(sock, &message, 0) < 0) fail("sendmsg");
}

static int receive_message(char *text, size_t size, int fds[16]) {
  char control[CMSG_SPACE(16 * sizeof(int))];
  struct iovec vector = {.iov_base = text, .iov_len = size - 1};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t got = recvmsg(sock, &message, 0);
  if (got <= 0) return -1;
  text[got] = 0;
  int count = 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    int n = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds + count, CMSG_DATA(header), (size_t)n * sizeof(int));
    count += n;
  }
  return count;
}

static uint64_t number_after(char **at, const char *key) {
  char *found = strstr(*at, key);
  if (!found) return UINT64_MAX;
  *at = found + strlen(key);
  return strtoull(*at, NULL, 10);
}

static unsigned long lent;

// Maps what the server lends over the region, and wakes who waits there.
static void *serve(void *unused) {
  (void)unused;
  char text[65536];
  int fds[16];
  for (int count; (count = receive_message(text, sizeof text, fds)) >= 0;) {
    char *at = strstr(text, "\"ranges\"");
    for (int i = 0; at && i < count; i++) {
      uint64_t length = number_after(&at, "\"len\":"), file = number_after(&at, "\"blob_offset\":"), block = number_after(&at, "\"block_offset\":");
      if (mmap(base + block, length, PROT_READ, MAP_PRIVATE | MAP_FIXED, fds[i], (off_t)file) == MAP_FAILED) fail("mmap of a lent range");
      if (fcntl(fds[i], F_GETFL) & (O_WRONLY | O_RDWR)) fail("a lent file can be written");
      struct uffdio_range range = {.start = (uintptr_t)(base + block), .len = length};
      ioctl(uffd, UFFDIO_WAKE, &range);
      lent += length;
      close(fds[i]);
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
  sock = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(sock, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
  const size_t page = strtoul(argv[3], NULL, 10);
  char text[65536];
  int fds[16];
  send_message("{\"type\":2}", -1);
  if (receive_message(text, sizeof text, fds) < 0) fail("no answer to stat");
  char *at = text;
  const size_t size = number_after(&at, "\"size\":"), length = (size + page - 1) / page * page;

  uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  if (uffd < 0) fail("userfaultfd");
  struct uffdio_api api = {.api = UFFD_API};
  if (ioctl(uffd, UFFDIO_API, &api) < 0) fail("UFFDIO_API");
  base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) fail("mmap");
  struct uffdio_register region = {.range = {.start = (uintptr_t)base, .len = length}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(uffd, UFFDIO_REGISTER, &region) < 0) fail("UFFDIO_REGISTER");
  const int copies = strcmp(argv[2], "copy") == 0;
  snprintf(text, sizeof text, "{\"type\":0,\"regions\":[{\"base_host_virt_addr\":%ju,\"size\":%zu,\"offset\":0,\"page_size\":%zu}],\"policy\":%d,\"enable_prefault\":%s}",
           (uintmax_t)(uintptr_t)base, length, page, copies, strcmp(argv[2], "prefault") == 0 ? "true" : "false");
  send_message(text, uffd);
  pthread_t thread;
  if (!copies) pthread_create(&thread, NULL, serve, NULL);

  // Touched from its end, page by page: nobody may read ahead for us.
  for (size_t offset = length; offset >= 4096; offset -= 4096) ((void)*(volatile char *)(base + offset - 4096));
  for (size_t done = 0; done < size;) {
    ssize_t written = write(1, base + done, size - done);
    if (written < 0) fail("write");
    done += (size_t)written;
  }
  fprintf(stderr, "lent %lu\n", lent);
  return 0;
}
