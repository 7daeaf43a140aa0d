// Messages between holder and server: a packet of words, with up to two descriptors.
#include "holder.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef union {
  char bytes[CMSG_SPACE(2 * sizeof(int))];
  struct cmsghdr aligned;
} Control;

bool message_send(int channel, const char *bytes, size_t length, const int *fds, int count) {
  Control control = {0};
  struct iovec vector = {.iov_base = (char *)bytes, .iov_len = length};
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
  return sent == (ssize_t)length;
}

int message_receive(int channel, Message *message) {
  Control control;
  struct iovec vector = {.iov_base = message->bytes, .iov_len = MAX_MESSAGE};
  struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t length;
  do length = recvmsg(channel, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (length < 0 && errno == EINTR);
  if (length < 0) return errno == EAGAIN ? 0 : -1;
  if (length == 0) return -1;
  message->fds[0] = message->fds[1] = -1;
  for (struct cmsghdr *rights = CMSG_FIRSTHDR(&header); rights != NULL; rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
    size_t size = rights->cmsg_len - CMSG_LEN(0);
    memcpy(message->fds, CMSG_DATA(rights), size < sizeof message->fds ? size : sizeof message->fds);
  }
  message->length = (size_t)length;
  message->bytes[length] = 0;
  return 1;
}

const char *message_word(const Message *message, int index) {
  size_t at = 0;
  while (index > 0 && at < message->length) {
    at += strlen(message->bytes + at) + 1;
    index--;
  }
  return at < message->length ? message->bytes + at : "";
}
