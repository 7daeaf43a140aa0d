// Packets with descriptors beside them.
#include "keeper.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

typedef union {
  char bytes[CMSG_SPACE(2 * sizeof(int))];
  struct cmsghdr aligned;
} Control;

ssize_t packet_send(int channel, const void *bytes, size_t length, const int *fds, int count) {
  Control control = {0};
  struct iovec vector = {.iov_base = (void *)bytes, .iov_len = length};
  struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
  if (count > 0) {
    header.msg_control = &control;
    header.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, (size_t)count * sizeof(int));
  }
  ssize_t sent;
  do sent = sendmsg(channel, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  return sent;
}

ssize_t packet_receive(int channel, void *bytes, size_t size, int *fds, int count) {
  Control control;
  struct iovec vector = {.iov_base = bytes, .iov_len = size};
  struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
  for (int i = 0; i < count; i++) fds[i] = -1;
  ssize_t length;
  do length = recvmsg(channel, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (length < 0 && errno == EINTR);
  if (length <= 0) return length;
  for (struct cmsghdr *rights = CMSG_FIRSTHDR(&header); rights != NULL; rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
    size_t bytes_of = rights->cmsg_len - CMSG_LEN(0);
    memcpy(fds, CMSG_DATA(rights), bytes_of < (size_t)count * sizeof(int) ? bytes_of : (size_t)count * sizeof(int));
  }
  return length;
}
